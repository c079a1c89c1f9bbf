//! How long a stranger may take and how much it may send: one list, so that the documentation and the tests read the same numbers.
//!
//! Whoever needs a limit takes it from [`super::Remote::limits`]; tests set smaller ones.

use std::time::Duration;

/// What a source may cost. The defaults are in `docs/sources.md`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// For a name to be looked up; for a connection with its encryption to stand.
    pub connect: Duration,
    /// For the head of one answer: status and headers, interim answers included.
    pub head: Duration,
    /// From a request to the head of the answer behind the last redirect.
    pub answer: Duration,
    /// Without a single byte.
    pub silence: Duration,
    /// A body takes at most this and the time that [`Limits::slowest_bytes_per_s`] gives for its bytes.
    pub grace: Duration,
    pub slowest_bytes_per_s: u64,
    /// For a body whose size nobody knows, however fast it is.
    pub unsized_body: Duration,
    /// All pauses that servers ask for while one file is fetched.
    pub pauses: Duration,
    /// A whole source takes at most this, [`Limits::per_file`] for each file, and the time for its bytes.
    pub source: Duration,
    pub per_file: Duration,

    /// Files of a source.
    pub files: usize,
    /// Folders of a source.
    pub folders: usize,
    pub file_bytes: u64,
    /// All files of a source.
    pub source_bytes: u64,
    /// Files that a server lists one by one: of a repository on the Hub, or kept by Git LFS.
    pub listed: usize,
    /// Pages of a listing.
    pub pages: usize,

    /// A compressed archive may become this many times its size.
    pub ratio: u64,
    /// Below this size nobody looks at the ratio.
    pub ratio_from_bytes: u64,
    /// One extended header of a tar archive.
    pub tar_header_bytes: u64,

    /// Branches and tags that a git server names.
    pub refs: usize,
    /// What a git server says besides its pack.
    pub aside_bytes: u64,
    /// Objects of one pack.
    pub pack_objects: u32,
    /// One object of a git repository, unpacked.
    pub git_object_bytes: u64,
    /// What the objects of a pack come to, unpacked; a large one counts once for each delta that stands below it.
    pub pack_bytes: u64,
    /// Deltas that stand on each other.
    pub delta_depth: u16,
    /// Deltas that name what they stand on, in place of saying where it is: of their order nothing is known.
    pub named_deltas: u32,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits {
            connect: Duration::from_secs(20),
            head: Duration::from_secs(60),
            answer: Duration::from_secs(120),
            silence: Duration::from_secs(60),
            grace: Duration::from_secs(60),
            slowest_bytes_per_s: 10_000,
            unsized_body: Duration::from_secs(24 * 3600),
            pauses: Duration::from_secs(600),
            source: Duration::from_secs(3600),
            per_file: Duration::from_secs(2),
            files: 1_000_000,
            folders: 1_000_000,
            file_bytes: 1 << 40,
            source_bytes: 1 << 41,
            listed: 100_000,
            pages: 10_000,
            ratio: 100,
            ratio_from_bytes: 64 << 20,
            tar_header_bytes: 64 << 10,
            refs: 1_000_000,
            aside_bytes: 64 << 20,
            pack_objects: 2_000_000,
            git_object_bytes: 100 << 20,
            pack_bytes: 256 << 30,
            delta_depth: 1000,
            named_deltas: 10_000,
        }
    }
}

impl Limits {
    /// The longest that a body of so many bytes may take.
    pub fn time_for(&self, size_bytes: u64) -> Duration {
        self.grace.saturating_add(self.time_at_slowest(size_bytes))
    }

    /// The longest that a whole source may take.
    pub fn time_for_source(&self, files: usize, size_bytes: u64) -> Duration {
        let files = u32::try_from(files).unwrap_or(u32::MAX);
        self.source.saturating_add(self.per_file.saturating_mul(files)).saturating_add(self.time_at_slowest(size_bytes))
    }

    fn time_at_slowest(&self, size_bytes: u64) -> Duration {
        let milliseconds = u128::from(size_bytes) * 1000 / u128::from(self.slowest_bytes_per_s.max(1));
        Duration::from_millis(u64::try_from(milliseconds).unwrap_or(u64::MAX))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_documentation_has_the_same_numbers() {
        let docs = include_str!("../../docs/sources.md");
        let limits = Limits::default();
        let size = |bytes: u64| crate::base::units::show_size(bytes).replace(".0", "");
        let count = |number: usize| {
            let digits = number.to_string();
            let cut = digits.len() % 3;
            let (first, rest) = digits.split_at(if cut == 0 { 3.min(digits.len()) } else { cut });
            rest.as_bytes().chunks(3).fold(first.to_string(), |text, three| format!("{text},{}", String::from_utf8_lossy(three)))
        };
        let seconds = |time: Duration| time.as_secs();
        for row in [
            format!("connecting, with encryption | {} s each |", seconds(limits.connect)),
            format!("interim answers included | {} s, 64 KiB |", seconds(limits.head)),
            format!("redirects included | {} s, {} redirects |", seconds(limits.answer), crate::source::http::error::MAX_REDIRECTS),
            format!("nothing arrives | {} s |", seconds(limits.silence)),
            format!("a body | {} s and 1 s for each {} kB of it;", seconds(limits.grace), limits.slowest_bytes_per_s / 1000),
            format!("at most {} h |", seconds(limits.unsized_body) / 3600),
            format!("{} min of pauses", seconds(limits.pauses) / 60),
            format!("a source | {} h, {} s a file,", seconds(limits.source) / 3600, seconds(limits.per_file)),
            format!("folders of a source | {} each |", count(limits.files)),
            format!("all files of a source | {}; {} |", size(limits.file_bytes), size(limits.source_bytes)),
            format!("in Git LFS | {}; pages of a listing: {} |", count(limits.listed), count(limits.pages)),
            format!("grows to {} times its size (looked at from {} on)", limits.ratio, size(limits.ratio_from_bytes)),
            format!("an extended header of a tar archive | {} |", size(limits.tar_header_bytes)),
            format!("branches and tags of a git server | {} |", count(limits.refs)),
            format!("unpacked | {}; {} |", count(limits.pack_objects as usize), size(limits.pack_bytes)),
            format!("belong into Git LFS) | {} |", size(limits.git_object_bytes)),
            format!("stand on each other | {}; named by digest: {} in a pack |", limits.delta_depth, count(limits.named_deltas as usize)),
        ] {
            assert!(docs.contains(&row), "docs/sources.md has no `{row}`");
        }
        assert_eq!(limits.files, limits.folders);
    }

    #[test]
    fn time_grows_with_size_and_never_overflows() {
        let limits = Limits::default();
        assert_eq!(limits.time_for(0), Duration::from_secs(60));
        assert_eq!(limits.time_for(1_000_000), Duration::from_secs(160));
        assert_eq!(limits.time_for_source(10, 10_000), Duration::from_secs(3600 + 20 + 1));
        assert!(limits.time_for(u64::MAX) > limits.time_for(1 << 40));
        assert!(limits.time_for_source(usize::MAX, u64::MAX) > limits.time_for(u64::MAX));
    }
}
