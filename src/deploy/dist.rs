//! One `dist/`, locked: puts a folder into its place durably and in one step, and takes away what must not exist any more. Ours and not ours are told
//! apart here.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use super::error::{DeployError, Result};
use super::record::{self, Delivered, Record};
use crate::base::staged::{self, StagedFolder};
use crate::base::{Cancel, Digest, files, output};
use crate::bundle;
use crate::steps::Failure;
use crate::store::{Entry, Mode, Stamp, Tree};

const LOCK: &str = ".slmops.lock";

/// Between two looks at a lock that another process holds.
const POLL: Duration = Duration::from_millis(20);
/// A wait this long is worth a word.
const PATIENCE: Duration = Duration::from_secs(1);
/// How long another process may take for its deliveries. A bundle of 50 GB is copied in less.
const WAIT_MAX: Duration = Duration::from_secs(600);

/// In a staging folder.
const OLD: &str = "old";
const NEW: &str = "new";

/// Of a changed bundle, enough to see what was done to it.
const FINDINGS_SHOWN: usize = 3;

/// How to wait for another process.
pub struct Wait<'a> {
    pub say: &'a dyn Fn(&str),
    pub cancel: &'a Cancel,
    pub limit: Duration,
}

impl<'a> Wait<'a> {
    pub fn new(cancel: &'a Cancel, say: &'a dyn Fn(&str)) -> Wait<'a> {
        Wait { say, cancel, limit: WAIT_MAX }
    }
}

/// What a delivery is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Parcel {
    /// The folder's name in `dist/`.
    pub name: String,
    /// The step that made it.
    pub bundle: String,
    /// `PROJECT-VERSION-DEVICE`
    pub product: String,
}

/// Nobody else delivers there while this value lives.
#[derive(Debug)]
pub struct Dist {
    folder: PathBuf,
    record: Record,
    _lock: Option<File>,
}

/// What is in a bundle's place.
enum Found {
    Nothing,
    Ours(Contents),
}

/// What a folder holds, and what its files looked like just before they were read.
struct Contents {
    tree: Digest,
    files: Vec<Seen>,
}

#[derive(PartialEq)]
struct Seen {
    /// Relative to the folder.
    path: String,
    stamp: Stamp,
    mode: Mode,
}

impl Dist {
    /// Refuses what cannot take bundles, before anything is built for it. A link is not followed: whoever wrote the manifest declared a folder.
    pub fn check<'a>(folder: &Path, names: impl IntoIterator<Item = &'a str>) -> Result<()> {
        is_folder(folder)?;
        names.into_iter().try_for_each(|name| is_folder(&folder.join(name)).map(|_| ()))
    }

    /// Opens or makes a `dist/`, waits for other processes, and cleans up after killed ones.
    pub fn open(folder: &Path, wait: &Wait) -> Result<Dist> {
        loop {
            if !is_folder(folder)? {
                staged::make_folders(folder).map_err(DeployError::io("create", folder))?;
                is_folder(folder)?;
            }
            let path = folder.join(LOCK);
            let lock = lock(folder, &path, wait)?;
            // Somebody may have deleted it, or all of `dist/`, while we waited.
            let is_held = lock.as_ref().map_or(Ok(true), |lock| staged::is_at(lock, &path));
            if !is_held.map_err(DeployError::io("look at", &path))? {
                continue;
            }
            close_gaps(folder)?;
            staged::sweep(folder);
            return Ok(Dist { folder: folder.to_path_buf(), record: Record::load(folder)?, _lock: lock });
        }
    }

    /// The same, if there is anything.
    pub fn open_existing(folder: &Path, wait: &Wait) -> Result<Option<Dist>> {
        if is_folder(folder)? { Dist::open(folder, wait).map(Some) } else { Ok(None) }
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    /// Names of deliveries of `product` whose place is not one of `places` any more.
    pub fn renamed(&self, product: &str, is_place: impl Fn(&str) -> bool) -> Vec<String> {
        let is_left = |(name, delivered): &(&str, &Delivered)| delivered.product == product && !is_place(name);
        self.record.iter().filter(is_left).map(|(name, _)| name.to_string()).collect()
    }

    /// Whether a folder is in this place; an error if it is something else.
    pub fn has(&self, name: &str) -> Result<bool> {
        is_folder(&self.path(name))
    }

    /// Why a bundle that was just delivered, or found delivered, is not valid: it was changed, or slmops made it wrong.
    pub fn broken(&self, name: &str, tree: Digest) -> DeployError {
        let path = self.path(name);
        let why = difference(&path);
        match contents(&path) {
            Ok(Some(contents)) if contents.tree == tree => {
                Failure::bug(format!("the bundle in `{}` is not valid: {why}", path.display())).into()
            }
            _ => DeployError::Changed { path, why },
        }
    }

    /// Records what is in its place already: it was found to be what would be delivered.
    pub fn adopt(&mut self, parcel: &Parcel, tree: Digest) -> Result<()> {
        if self.record.get(&parcel.name).is_some_and(|known| known.has(tree)) {
            return Ok(());
        }
        self.note(parcel, vec![tree])
    }

    /// Delivers what `fill` writes into the folder that it is given, which does not exist yet; its answer, and ours, is the tree's digest.
    pub fn deliver(&mut self, parcel: &Parcel, fill: impl FnOnce(&Path) -> std::result::Result<Digest, Failure>) -> Result<Digest> {
        let path = self.path(&parcel.name);
        let found = self.inspect(&parcel.name)?;
        let staged = StagedFolder::new_in(&self.folder).map_err(DeployError::io("create a folder in", &self.folder))?;
        let new = staged.path().join(NEW);
        let tree = fill(&new)?;
        staged::sync_tree(&new).map_err(DeployError::io("sync", &new))?;
        match found {
            Found::Nothing => {
                self.note(parcel, vec![tree])?;
                output::rename_new(&new, &path).map_err(|error| match error.kind() {
                    io::ErrorKind::AlreadyExists => DeployError::Foreign(path.clone()),
                    _ => DeployError::io("write", &path)(error),
                })?;
                // Its end is made durable together with the new name.
                drop(staged);
                self.sync()?;
            }
            Found::Ours(old) => {
                self.note(parcel, vec![old.tree, tree])?;
                let taken = swap(&staged, &new, &path).map_err(DeployError::io("write", &path))?;
                self.sync()?;
                self.discard(staged, &taken, &old, &path)?;
            }
        }
        Ok(tree)
    }

    /// Removes a bundle that must not exist, if it is ours, and says whether there was one. The reason is a fragment that fits "`NAME` {reason}".
    pub fn withdraw(&mut self, name: &str, reason: &'static str) -> Result<bool> {
        let path = self.path(name);
        let found = self.inspect(name).map_err(|error| match error {
            DeployError::Changed { path, why } => {
                DeployError::Rejected { path, reason, why: format!("it was changed after slmops delivered it ({why})") }
            }
            DeployError::Foreign(path) => {
                DeployError::Rejected { path, reason, why: "slmops has no record of having delivered it".to_string() }
            }
            other => other,
        })?;
        let is_ours = matches!(found, Found::Ours(_));
        if let Found::Ours(old) = found {
            let staged = StagedFolder::new_in(&self.folder).map_err(DeployError::io("create a folder in", &self.folder))?;
            let taken = staged.path().join(OLD);
            fs::rename(&path, &taken).map_err(DeployError::io("remove", &path))?;
            self.sync()?;
            self.discard(staged, &taken, &old, &path)?;
        }
        self.record.forget(name)?;
        Ok(is_ours)
    }

    /// Deletes what was taken out of its place, unless somebody wrote to it after it was checked.
    fn discard(&self, staged: StagedFolder, taken: &Path, old: &Contents, path: &Path) -> Result<()> {
        let is_untouched = look(taken).is_ok_and(|now| now.as_ref() == Some(&old.files));
        // A file system may number its files anew when a folder is renamed.
        if is_untouched || contents(taken).is_ok_and(|now| now.is_some_and(|now| now.tree == old.tree)) {
            return Ok(());
        }
        for number in 1..=u32::MAX {
            let mut name = path.as_os_str().to_os_string();
            name.push(format!(".changed-{number}"));
            let kept = PathBuf::from(name);
            match output::rename_new(taken, &kept) {
                Ok(()) => {
                    let why = format!("at this very moment; the changed one is `{}` now", kept.display());
                    return Err(DeployError::Changed { path: path.to_path_buf(), why });
                }
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                Err(error) => {
                    // Names nothing, so that no later process takes it for something to tidy up.
                    fs::write(staged.path().join(staged::UNFINISHED), "/").map_err(DeployError::io("write to", staged.path()))?;
                    staged.keep();
                    return Err(DeployError::io("keep", taken)(error));
                }
            }
        }
        Ok(())
    }

    /// What is in a place; an error if it is not ours.
    fn inspect(&self, name: &str) -> Result<Found> {
        let path = self.path(name);
        if !record::is_plain(name) {
            return Err(DeployError::NotAFolder { path, what: "not a name" });
        }
        if !is_folder(&path)? {
            return Ok(Found::Nothing);
        }
        let contents = contents(&path).map_err(DeployError::io("read", &path))?;
        let Some(known) = self.record.get(name) else { return Err(DeployError::Foreign(path)) };
        match contents {
            Some(contents) if known.has(contents.tree) => Ok(Found::Ours(contents)),
            _ => Err(DeployError::Changed { why: difference(&path), path }),
        }
    }

    fn note(&mut self, parcel: &Parcel, trees: Vec<Digest>) -> Result<()> {
        let mut trees: Vec<String> = trees.iter().map(Digest::hex).collect();
        trees.dedup();
        self.record.set(&parcel.name, Delivered { bundle: parcel.bundle.clone(), product: parcel.product.clone(), trees })
    }

    fn sync(&self) -> Result<()> {
        files::sync_folder(&self.folder).map_err(DeployError::io("sync", &self.folder))
    }
}

/// Whether a folder is there; anything else in its place is refused.
pub(super) fn is_folder(path: &Path) -> Result<bool> {
    let refused = |what| Err(DeployError::NotAFolder { path: path.to_path_buf(), what });
    match fs::symlink_metadata(path) {
        Ok(meta) if meta.is_dir() => Ok(true),
        Ok(meta) if meta.is_symlink() => refused("a link"),
        Ok(meta) if meta.is_file() => refused("a file"),
        Ok(_) => refused("a special file"),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(DeployError::io("look at", path)(error)),
    }
}

/// The lock of a `dist/`. None where the file system has no locks, which is said.
fn lock(folder: &Path, path: &Path, wait: &Wait) -> Result<Option<File>> {
    let file = open_lock(path).map_err(DeployError::io("open", path))?;
    let began = Instant::now();
    let mut told = false;
    loop {
        match file.try_lock() {
            Ok(()) => return Ok(Some(file)),
            Err(TryLockError::Error(error)) if is_unsupported(&error) => {
                (wait.say)(&format!(
                    "warning: `{}` cannot be locked ({error}): let only one build at a time deliver there",
                    folder.display()
                ));
                return Ok(None);
            }
            Err(TryLockError::Error(error)) => return Err(DeployError::io("lock", path)(error)),
            Err(TryLockError::WouldBlock) => {}
        }
        if wait.cancel.is_cancelled() {
            return Err(Failure::cancelled().into());
        }
        if began.elapsed() >= wait.limit {
            return Err(DeployError::Busy(folder.to_path_buf()));
        }
        if !told && began.elapsed() >= PATIENCE {
            (wait.say)(&format!("waiting for another slmops that delivers to `{}`", folder.display()));
            told = true;
        }
        std::thread::sleep(POLL);
    }
}

fn open_lock(path: &Path) -> io::Result<File> {
    let flags = (rustix::fs::OFlags::NOFOLLOW | rustix::fs::OFlags::NONBLOCK).bits().cast_signed();
    let mut options = OpenOptions::new();
    options.read(true).custom_flags(flags);
    match options.clone().write(true).create(true).truncate(false).open(path) {
        // Another user's: a lock needs no right to write.
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => options.open(path),
        other => other,
    }
}

fn is_unsupported(error: &io::Error) -> bool {
    use rustix::io::Errno;
    [Errno::NOSYS, Errno::OPNOTSUPP, Errno::NOLCK].iter().any(|errno| error.raw_os_error() == Some(errno.raw_os_error()))
}

/// What a folder holds; nothing if it cannot be what slmops delivers.
fn contents(folder: &Path) -> io::Result<Option<Contents>> {
    let Some(files) = look(folder)? else { return Ok(None) };
    let mut entries = Vec::with_capacity(files.len());
    for Seen { path, mode, .. } in &files {
        let (digest, size_bytes) = Digest::of_file(&folder.join(path))?;
        entries.push(Entry { path: path.clone(), digest, size_bytes, mode: *mode });
    }
    Ok(Tree::new(entries).ok().map(|tree| Contents { tree: tree.digest(), files }))
}

/// The files of a folder, unread; nothing if it holds what is never in a delivery: links, special files, empty folders, names that are not UTF-8.
fn look(folder: &Path) -> io::Result<Option<Vec<Seen>>> {
    let mut files = Vec::new();
    let mut open = vec![PathBuf::new()];
    while let Some(relative) = open.pop() {
        let names = files::names(&folder.join(&relative))?;
        if names.is_empty() {
            return Ok(None);
        }
        for name in names {
            let inner = relative.join(name);
            let meta = fs::symlink_metadata(folder.join(&inner))?;
            if meta.is_dir() {
                open.push(inner);
                continue;
            }
            let (true, Some(path)) = (meta.is_file(), inner.to_str()) else { return Ok(None) };
            let mode = if meta.permissions().mode() & 0o111 == 0 { Mode::Plain } else { Mode::Executable };
            files.push(Seen { path: path.to_string(), stamp: Stamp::at(&folder.join(&inner))?, mode });
        }
    }
    files.sort_by(|a, b| a.path.cmp(&b.path));
    Ok(Some(files))
}

/// What a person would look for first.
fn difference(path: &Path) -> String {
    let findings = match bundle::verify(path) {
        Ok(summary) => return format!("it holds the bundle {} now", summary.digest),
        Err(findings) => findings,
    };
    let shown: Vec<String> = findings.iter().take(FINDINGS_SHOWN).map(ToString::to_string).collect();
    let more = if findings.len() > FINDINGS_SHOWN { "; …" } else { "" };
    format!("{}{more}", shown.join("; "))
}

/// Puts `new` in place of `path`, and says where the old one is: in the staging folder.
fn swap(staged: &StagedFolder, new: &Path, path: &Path) -> io::Result<PathBuf> {
    use rustix::fs::{CWD, RenameFlags, renameat_with};
    use rustix::io::Errno;
    match renameat_with(CWD, new, CWD, path, RenameFlags::EXCHANGE) {
        Ok(()) => Ok(new.to_path_buf()),
        Err(Errno::INVAL | Errno::NOSYS | Errno::OPNOTSUPP) => swap_in_two(staged.path(), new, path),
        Err(error) => Err(error.into()),
    }
}

/// The same where the file system cannot exchange. Whoever is killed in between has left a note, by which the next one closes the gap.
fn swap_in_two(staged: &Path, new: &Path, path: &Path) -> io::Result<PathBuf> {
    let (old, note) = (staged.join(OLD), staged.join(staged::UNFINISHED));
    files::write_atomic(&note, path.file_name().unwrap_or_default().as_bytes())?;
    fs::rename(path, &old)?;
    if let Err(error) = fs::rename(new, path) {
        fs::rename(&old, path)?;
        return Err(error);
    }
    files::sync_folder(files::parent(path))?;
    fs::remove_file(&note)?;
    Ok(old)
}

/// Puts back what a process took out of its place before it was killed.
fn close_gaps(folder: &Path) -> Result<()> {
    for leftover in staged::leftovers(folder) {
        let (old, note) = (leftover.path.join(OLD), leftover.path.join(staged::UNFINISHED));
        let Some(name) = fs::read_to_string(&note).ok().filter(|name| record::is_plain(name)) else { continue };
        if fs::symlink_metadata(&old).is_ok() {
            let path = folder.join(&name);
            match output::rename_new(&old, &path) {
                Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(DeployError::io("write", &path)(error)),
                _ => files::sync_folder(folder).map_err(DeployError::io("sync", folder))?,
            }
        }
        fs::remove_file(&note).map_err(DeployError::io("remove", &note))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::Exit;
    use std::os::unix::fs::symlink;

    struct Space {
        folder: tempfile::TempDir,
        cancel: Cancel,
    }

    impl Space {
        fn new() -> Space {
            Space { folder: tempfile::tempdir().unwrap(), cancel: Cancel::default() }
        }

        fn dist(&self) -> PathBuf {
            self.folder.path().join("dist")
        }

        fn open(&self) -> Result<Dist> {
            Dist::open(&self.dist(), &Wait { say: &|_| {}, cancel: &self.cancel, limit: Duration::ZERO })
        }

        fn read(&self, path: &str) -> String {
            fs::read_to_string(self.dist().join(path)).unwrap()
        }

        /// What a person sees there.
        fn names(&self) -> Vec<String> {
            let names = files::names(&self.dist()).unwrap().into_iter().map(|name| name.into_string().unwrap());
            names.filter(|name| name != LOCK && name != record::FILE).collect()
        }
    }

    fn parcel(name: &str) -> Parcel {
        Parcel { name: name.into(), bundle: "release".into(), product: "p-1-d".into() }
    }

    /// Delivers a folder of two files.
    fn deliver(dist: &mut Dist, name: &str, text: &str) -> Result<Digest> {
        dist.deliver(&parcel(name), |folder| {
            fs::create_dir_all(folder.join("blobs")).unwrap();
            fs::write(folder.join("index.json"), text).unwrap();
            fs::write(folder.join("blobs/b"), text).unwrap();
            Ok(contents(folder).unwrap().unwrap().tree)
        })
    }

    fn exit<T>(result: Result<T>) -> Exit {
        Failure::from(result.err().unwrap()).exit
    }

    #[test]
    fn what_was_delivered_is_replaced_and_withdrawn() {
        let space = Space::new();
        for text in ["one", "two", "two", "three"] {
            deliver(&mut space.open().unwrap(), "p-1-d", text).unwrap();
            assert_eq!(space.read("p-1-d/blobs/b"), text);
            assert_eq!(space.names(), ["p-1-d"]);
        }
        space.open().unwrap().withdraw("p-1-d", "must go").unwrap();
        space.open().unwrap().withdraw("p-1-d", "must go").unwrap();
        assert!(space.names().is_empty());
        assert!(space.open().unwrap().record.get("p-1-d").is_none());
        deliver(&mut space.open().unwrap(), "p-1-d", "one").unwrap();
    }

    #[test]
    fn what_a_person_put_there_or_changed_stays() {
        type Change = fn(&Path);
        let changes: [(Change, &str); 9] = [
            (|b| fs::write(b.join("index.json"), "TWO").unwrap(), "a changed file"),
            (|b| fs::write(b.join("notes.txt"), "mine").unwrap(), "another file"),
            (|b| fs::remove_file(b.join("blobs/b")).unwrap(), "a file less"),
            (|b| fs::create_dir(b.join("notes")).unwrap(), "an empty folder"),
            (|b| fs::rename(b.join("blobs/b"), b.join("blobs/c")).unwrap(), "another name"),
            (|b| fs::set_permissions(b.join("index.json"), fs::Permissions::from_mode(0o755)).unwrap(), "another mode"),
            (|b| symlink("index.json", b.join("link")).unwrap(), "a link"),
            (|b| fs::hard_link(b.join("index.json"), b.join("again")).unwrap(), "a hard link"),
            (
                |b| {
                    fs::remove_dir_all(b).unwrap();
                    fs::create_dir(b).unwrap();
                },
                "an empty folder in its place",
            ),
        ];
        for (change, what) in changes {
            let space = Space::new();
            deliver(&mut space.open().unwrap(), "p-1-d", "one").unwrap();
            change(&space.dist().join("p-1-d"));
            let before = look_all(&space.dist().join("p-1-d"));
            assert_eq!(exit(deliver(&mut space.open().unwrap(), "p-1-d", "two")), Exit::Usage, "{what}");
            let refused = space.open().unwrap().withdraw("p-1-d", "must go").unwrap_err();
            assert!(matches!(refused, DeployError::Rejected { .. }), "{what}: {refused}");
            assert_eq!(look_all(&space.dist().join("p-1-d")), before, "{what}");
            assert_eq!(space.names(), ["p-1-d"], "{what}");
            // As the message says.
            fs::rename(space.dist().join("p-1-d"), space.dist().join("mine")).unwrap();
            deliver(&mut space.open().unwrap(), "p-1-d", "two").unwrap();
            assert_eq!(space.names(), ["mine", "p-1-d"], "{what}");
        }
    }

    fn look_all(folder: &Path) -> Vec<(PathBuf, Vec<u8>)> {
        let mut all = Vec::new();
        let mut open = vec![folder.to_path_buf()];
        while let Some(inner) = open.pop() {
            for name in files::names(&inner).unwrap() {
                let path = inner.join(name);
                let meta = fs::symlink_metadata(&path).unwrap();
                all.push((path.clone(), if meta.is_file() { fs::read(&path).unwrap() } else { Vec::new() }));
                if meta.is_dir() {
                    open.push(path);
                }
            }
        }
        all
    }

    #[test]
    fn what_stands_in_the_way_is_not_written_over() {
        let space = Space::new();
        space.open().unwrap();
        let away = space.folder.path().join("away");
        fs::create_dir(&away).unwrap();
        let place = space.dist().join("p-1-d");
        fs::create_dir(&place).unwrap();
        assert!(matches!(deliver(&mut space.open().unwrap(), "p-1-d", "one"), Err(DeployError::Foreign(_))));
        assert!(matches!(space.open().unwrap().withdraw("p-1-d", "must go"), Err(DeployError::Rejected { .. })));
        fs::remove_dir(&place).unwrap();
        for target in ["../away", "nowhere", "/"] {
            symlink(target, &place).unwrap();
            assert!(matches!(deliver(&mut space.open().unwrap(), "p-1-d", "one"), Err(DeployError::NotAFolder { what: "a link", .. })));
            assert!(space.open().unwrap().withdraw("p-1-d", "must go").is_err());
            fs::remove_file(&place).unwrap();
        }
        fs::write(&place, "mine").unwrap();
        assert_eq!(exit(deliver(&mut space.open().unwrap(), "p-1-d", "one")), Exit::Usage);
        assert_eq!(space.read("p-1-d"), "mine");
        assert!(files::names(&away).unwrap().is_empty());
        for name in ["", ".", "..", "../away", "/"] {
            assert!(deliver(&mut space.open().unwrap(), name, "one").is_err(), "{name}");
        }
    }

    #[test]
    fn a_dist_that_is_no_folder_is_refused() {
        let space = Space::new();
        fs::create_dir(space.folder.path().join("away")).unwrap();
        symlink("away", space.dist()).unwrap();
        assert_eq!(exit(space.open()), Exit::Usage);
        assert!(Dist::check(&space.dist(), []).is_err());
        assert!(files::names(&space.folder.path().join("away")).unwrap().is_empty());
        fs::remove_file(space.dist()).unwrap();
        fs::write(space.dist(), "mine").unwrap();
        assert_eq!(exit(space.open()), Exit::Usage);
        fs::remove_file(space.dist()).unwrap();
        assert!(Dist::open_existing(&space.dist(), &Wait::new(&space.cancel, &|_| {})).unwrap().is_none());
        assert!(!space.dist().exists());
        space.open().unwrap();
        fs::remove_file(space.dist().join(LOCK)).unwrap();
        symlink("../away/lock", space.dist().join(LOCK)).unwrap();
        assert!(space.open().is_err());
        assert!(files::names(&space.folder.path().join("away")).unwrap().is_empty());
    }

    #[test]
    fn one_process_at_a_time_and_the_others_are_told() {
        let space = Space::new();
        let held = space.open().unwrap();
        assert_eq!(exit(space.open()), Exit::Environment);
        space.cancel.cancel();
        assert_eq!(exit(space.open()), Exit::Interrupted);
        drop(held);
        space.open().unwrap();
    }

    /// Killed between the two renames of a file system that cannot exchange: the old bundle comes back. Killed after them: the new one stays.
    #[test]
    fn a_gap_is_closed() {
        let space = Space::new();
        let mut dist = space.open().unwrap();
        deliver(&mut dist, "p-1-d", "one").unwrap();
        let place = space.dist().join("p-1-d");
        let leftover = space.dist().join(".slmops-new-abcdefghijkl");
        for is_second_done in [false, true] {
            fs::create_dir(&leftover).unwrap();
            fs::write(leftover.join(staged::UNFINISHED), "p-1-d").unwrap();
            fs::rename(&place, leftover.join(OLD)).unwrap();
            if is_second_done {
                fs::create_dir(&place).unwrap();
                fs::write(place.join("index.json"), "two").unwrap();
            }
            drop(dist);
            dist = space.open().unwrap();
            assert_eq!(space.read("p-1-d/index.json"), if is_second_done { "two" } else { "one" });
            assert_eq!(space.names(), ["p-1-d"]);
        }
        // A note that leads out of the folder is nobody's of ours.
        fs::create_dir_all(leftover.join(OLD)).unwrap();
        fs::write(leftover.join(staged::UNFINISHED), "../out").unwrap();
        drop(dist);
        space.open().unwrap();
        assert!(!space.folder.path().join("out").exists());
        assert!(leftover.join(OLD).exists());
    }

    #[test]
    fn a_swap_in_two_is_a_swap() {
        let space = Space::new();
        let mut dist = space.open().unwrap();
        deliver(&mut dist, "p-1-d", "one").unwrap();
        let staged = StagedFolder::new_in(&space.dist()).unwrap();
        let new = staged.path().join(NEW);
        fs::create_dir(&new).unwrap();
        fs::write(new.join("index.json"), "two").unwrap();
        let old = swap_in_two(staged.path(), &new, &space.dist().join("p-1-d")).unwrap();
        assert_eq!(fs::read_to_string(old.join("index.json")).unwrap(), "one");
        assert_eq!(space.read("p-1-d/index.json"), "two");
        // The new one is not there: the old one goes back.
        assert!(swap_in_two(staged.path(), &staged.path().join("none"), &space.dist().join("p-1-d")).is_err());
        assert_eq!(space.read("p-1-d/index.json"), "two");
        drop(staged);
        assert_eq!(space.names(), ["p-1-d"]);
    }

    #[test]
    fn a_change_at_the_last_moment_is_kept() {
        let space = Space::new();
        let mut dist = space.open().unwrap();
        deliver(&mut dist, "p-1-d", "one").unwrap();
        let Found::Ours(old) = dist.inspect("p-1-d").unwrap() else { panic!() };
        let staged = StagedFolder::new_in(&space.dist()).unwrap();
        let taken = staged.path().join(OLD);
        fs::rename(space.dist().join("p-1-d"), &taken).unwrap();
        fs::write(taken.join("index.json"), "mine").unwrap();
        let kept = dist.discard(staged, &taken, &old, &space.dist().join("p-1-d")).unwrap_err();
        assert!(kept.to_string().contains("p-1-d.changed-1"), "{kept}");
        assert_eq!(space.read("p-1-d.changed-1/index.json"), "mine");
        assert_eq!(space.names(), ["p-1-d.changed-1"]);
    }

    #[test]
    fn deliveries_under_an_old_name_are_known() {
        let space = Space::new();
        let mut dist = space.open().unwrap();
        for name in ["p-1-d-a", "p-1-d-b"] {
            deliver(&mut dist, name, name).unwrap();
        }
        fs::create_dir(space.dist().join("p-1-d.bak")).unwrap();
        assert_eq!(dist.renamed("p-1-d", |name| name == "p-1-d-a"), ["p-1-d-b"]);
        assert!(dist.renamed("p-2-d", |_| false).is_empty());
    }

    #[test]
    fn what_lies_there_already_is_taken_over_only_when_it_is_equal() {
        let space = Space::new();
        let tree = deliver(&mut space.open().unwrap(), "p-1-d", "one").unwrap();
        fs::remove_file(space.dist().join(record::FILE)).unwrap();
        let mut dist = space.open().unwrap();
        assert!(matches!(deliver(&mut dist, "p-1-d", "two"), Err(DeployError::Foreign(_))));
        dist.adopt(&parcel("p-1-d"), tree).unwrap();
        deliver(&mut dist, "p-1-d", "two").unwrap();
        assert_eq!(space.read("p-1-d/index.json"), "two");
    }
}
