//! The kernel's list of mounts, as `/proc/self/mountinfo` gives it.

use std::ffi::OsString;
use std::fs;
use std::io;
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MountInfo {
    /// Which folder of the file system is mounted there.
    pub root: PathBuf,
    pub point: PathBuf,
    /// `rw,nosuid,relatime`
    pub options: Vec<String>,
    /// `ext4`, `cgroup2`
    pub kind: String,
    /// The file system's own options.
    pub super_options: Vec<String>,
}

impl MountInfo {
    pub fn has(&self, option: &str) -> bool {
        self.options.iter().any(|own| own == option)
    }
}

/// All mounts that this process sees, in the order in which they were made.
pub fn all() -> io::Result<Vec<MountInfo>> {
    Ok(parse(&fs::read("/proc/self/mountinfo")?))
}

/// The mounts at a folder and below it.
pub fn below(folder: &Path) -> io::Result<Vec<MountInfo>> {
    let mut mounts = all()?;
    mounts.retain(|mount| mount.point.starts_with(folder));
    Ok(mounts)
}

/// Lines that are not understood are left out: a kernel adds fields, it does not change them.
fn parse(text: &[u8]) -> Vec<MountInfo> {
    text.split(|byte| *byte == b'\n').filter_map(line).collect()
}

/// `36 35 98:0 /mnt1 /mnt2 rw,noatime master:1 - ext3 /dev/root rw,errors=continue`; see proc_pid_mountinfo(5).
fn line(line: &[u8]) -> Option<MountInfo> {
    let words: Vec<&[u8]> = line.split(|byte| *byte == b' ').collect();
    let dash = words.iter().position(|word| *word == b"-")?;
    let options = |word: &[u8]| String::from_utf8_lossy(word).split(',').map(str::to_string).collect();
    Some(MountInfo {
        root: unescaped(words.get(3)?),
        point: unescaped(words.get(4)?),
        options: options(words.get(5)?),
        kind: String::from_utf8_lossy(words.get(dash + 1)?).into_owned(),
        super_options: options(words.get(dash + 3)?),
    })
}

/// Spaces, tabs, newlines and backslashes are written as `\040`.
fn unescaped(word: &[u8]) -> PathBuf {
    let mut bytes = Vec::with_capacity(word.len());
    let mut rest = word;
    while let Some((first, after)) = rest.split_first() {
        let octal = after.get(..3).filter(|_| *first == b'\\').and_then(|digits| std::str::from_utf8(digits).ok());
        match octal.and_then(|digits| u8::from_str_radix(digits, 8).ok()) {
            Some(byte) => {
                bytes.push(byte);
                rest = &after[3..];
            }
            None => {
                bytes.push(*first);
                rest = after;
            }
        }
    }
    PathBuf::from(OsString::from_vec(bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_read_with_odd_names_in_it() {
        let text = b"36 35 98:0 /mnt1 /a\\040b\\134c rw,noatime master:1 shared:2 - ext3 /dev/root rw,errors=continue\nnonsense\n";
        let mounts = parse(text);
        assert_eq!(mounts.len(), 1);
        assert_eq!((mounts[0].root.as_path(), mounts[0].point.as_path()), (Path::new("/mnt1"), Path::new("/a b\\c")));
        assert!(mounts[0].has("noatime") && !mounts[0].has("ro"));
        assert_eq!((mounts[0].kind.as_str(), mounts[0].super_options[1].as_str()), ("ext3", "errors=continue"));
    }

    #[test]
    fn this_machine_has_a_root() {
        assert!(all().unwrap().iter().any(|mount| mount.point == Path::new("/")));
    }
}
