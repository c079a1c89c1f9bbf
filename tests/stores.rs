//! Stores of several users, stores that can only be read, folders that are no stores, and stores full of what killed processes left.
//!
//! What needs a second user runs as root only: `sudo -E cargo test --test stores`.

#![expect(clippy::disallowed_methods, reason = "a test knows what it has made")]

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use slmops::base::files;

const GROUP: u32 = 40_000;
const ALICE: u32 = 40_001;
const BOB: u32 = 40_002;
const STRANGER: u32 = 40_003;

const MANIFEST: &str = r#"slmops = 1

[project]
name = "shared"
version = "0.1.0"

[source]
lines = { path = "lines.jsonl" }

[dataset.first]
data = ["lines"]

[dataset.second]
data = ["first"]
limit = 1
"#;

/// A project, and the program where every user can run it.
struct Space {
    folder: tempfile::TempDir,
    program: PathBuf,
}

struct Ran {
    code: Option<i32>,
    text: String,
}

#[derive(Clone, Copy)]
struct User {
    uid: u32,
    umask: &'static str,
}

impl Space {
    fn new() -> Space {
        let folder = tempfile::tempdir().unwrap();
        set_mode(folder.path(), 0o755);
        let program = folder.path().join("slmops");
        if fs::hard_link(env!("CARGO_BIN_EXE_slmops"), &program).is_err() {
            fs::copy(env!("CARGO_BIN_EXE_slmops"), &program).unwrap();
        }
        let space = Space { folder, program };
        fs::create_dir(space.join("project")).unwrap();
        fs::write(space.join("project/slmops.toml"), MANIFEST).unwrap();
        fs::write(space.join("project/lines.jsonl"), "{\"text\": \"one\"}\n{\"text\": \"two\"}\n").unwrap();
        for path in ["project", "project/slmops.toml", "project/lines.jsonl"] {
            set_mode(&space.join(path), if path == "project" { 0o777 } else { 0o644 });
        }
        space
    }

    fn join(&self, path: &str) -> PathBuf {
        self.folder.path().join(path)
    }

    fn limit(&self, records: u32) {
        fs::write(self.join("project/slmops.toml"), MANIFEST.replace("limit = 1", &format!("limit = {records}"))).unwrap();
    }

    /// The program in the project, as this process's user.
    fn slmops(&self, arguments: &[&str]) -> Ran {
        run(self.command(arguments))
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(&self.program);
        command.args(arguments).current_dir(self.join("project")).env_clear().env("PATH", "/usr/bin:/bin");
        command.env("SLMOPS_CACHE", self.join("cache"));
        command
    }

    /// As another user of the group.
    fn slmops_as(&self, user: User, arguments: &[&str]) -> Ran {
        let mut command = Command::new("/bin/sh");
        command.args(["-c", &format!("umask {}; exec \"$@\"", user.umask), "sh"]).arg(&self.program).args(arguments);
        command.current_dir(self.join("project")).env_clear().env("SLMOPS_CACHE", self.join("cache"));
        let group = if user.uid == STRANGER { STRANGER } else { GROUP };
        command.uid(user.uid).gid(group);
        run(command)
    }
}

fn run(mut command: Command) -> Ran {
    let output = command.output().unwrap();
    let text = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    Ran { code: output.status.code(), text }
}

impl Ran {
    #[track_caller]
    fn ends(&self, code: i32, says: &[&str]) -> &Ran {
        assert_eq!(self.code, Some(code), "{}", self.text);
        for word in says {
            assert!(self.text.contains(word), "no `{word}` in\n{}", self.text);
        }
        self
    }
}

fn set_mode(path: &Path, mode: u32) {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
}

fn is_root() -> bool {
    let is_root = rustix::process::geteuid().is_root();
    if !is_root {
        not_run("only root can act as several users");
    }
    is_root
}

/// Written past the capture of a test that passes.
fn not_run(why: &str) {
    use std::io::Write;
    std::io::stderr().write_all(format!("NOT RUN: {why}\n").as_bytes()).expect("a standard error output");
}

/// Everything below a folder, with permissions and contents.
fn everything(folder: &Path) -> Vec<(PathBuf, u32, Vec<u8>)> {
    let mut found = Vec::new();
    let mut open = vec![folder.to_path_buf()];
    while let Some(path) = open.pop() {
        let meta = fs::symlink_metadata(&path).unwrap();
        let content = if meta.is_file() { fs::read(&path).unwrap() } else { Vec::new() };
        if meta.is_dir() {
            open.extend(files::names(&path).unwrap().into_iter().map(|name| path.join(name)));
        }
        found.push((path, meta.mode(), content));
    }
    found.sort();
    found
}

#[test]
fn a_folder_that_is_no_store_is_left_as_it_is() {
    let space = Space::new();
    let home = space.join("cache");
    for (path, content) in [("tmp/report.odt", "work"), ("tmp/1234-0/notes", "mine"), ("partial/x", "mine"), ("quarantine/x", "mine")] {
        fs::create_dir_all(home.join(path).parent().unwrap()).unwrap();
        fs::write(home.join(path), content).unwrap();
    }
    let before = everything(&home);
    for arguments in [&["plan"][..], &["build", "second"], &["explain", "first"], &["lock"], &["out", "first", "copied"], &["log", "first"]]
    {
        space.slmops(arguments).ends(2, &["is not a store of slmops", "SLMOPS_CACHE"]);
        assert_eq!(everything(&home), before, "{arguments:?}");
    }
    for arguments in [&["cache", "stat"][..], &["cache", "gc"], &["cache", "gc", "--all"], &["cache", "verify"], &["cache", "export", "x"]]
    {
        assert_ne!(space.slmops(arguments).code, Some(0), "{arguments:?}");
        assert_eq!(everything(&home), before, "{arguments:?}");
    }
    fs::write(home.join("VERSION"), "1.2.3\n").unwrap();
    let before = everything(&home);
    space.slmops(&["cache", "gc"]).ends(2, &["VERSION"]);
    assert_eq!(everything(&home), before);
}

#[test]
fn a_checkout_and_an_interrupted_creation_become_stores_and_so_do_many_at_once() {
    for names in [&[][..], &["README.md"], &[".slmops-a1B2c3"]] {
        let space = Space::new();
        let cache = space.join("cache");
        fs::create_dir(&cache).unwrap();
        fs::copy(concat!(env!("CARGO_MANIFEST_DIR"), "/cache/CACHEDIR.TAG"), cache.join("CACHEDIR.TAG")).unwrap();
        names.iter().for_each(|name| fs::write(cache.join(name), "").unwrap());
        space.slmops(&["build", "second"]).ends(0, &["2 built"]);
        space.slmops(&["build", "second"]).ends(0, &["2 cached"]);
    }
    for _ in 0..20 {
        let space = Space::new();
        let started: Vec<_> = (0..8).map(|_| space.command(&["build", "second"]).spawn().unwrap()).collect();
        for mut child in started {
            assert_eq!(child.wait().unwrap().code(), Some(0));
        }
        space.slmops(&["build", "second"]).ends(0, &["2 cached"]);
    }
}

#[test]
fn garbage_of_every_kind_is_swept_and_what_is_not_ours_stays() {
    let space = Space::new();
    space.slmops(&["build", "second"]).ends(0, &[]);
    let tmp = space.join("cache/tmp");
    let corner = tmp.join("4000000-0");
    for (name, mode) in [("none", 0o000), ("search", 0o100), ("closed", 0o500), ("plain", 0o555)] {
        let folder = corner.join(name).join("inner");
        fs::create_dir_all(&folder).unwrap();
        fs::write(folder.join("file"), "").unwrap();
        std::os::unix::fs::symlink(space.join("project"), folder.join("link")).unwrap();
        set_mode(&folder, mode);
        set_mode(folder.parent().unwrap(), mode);
    }
    deep(&tmp.join("4000001-0"), 3000);
    fs::write(tmp.join("4000002-0.lock"), "").unwrap();
    fs::write(tmp.join("report.odt"), "not ours").unwrap();
    let command = format!("ulimit -n 40; exec '{}' build second", space.program.display());
    let mut shell = Command::new("/bin/sh");
    shell.args(["-c", &command]).current_dir(space.join("project")).env_clear().env("SLMOPS_CACHE", space.join("cache"));
    let ran = run(shell);
    ran.ends(0, &["2 cached"]);
    assert!(!ran.text.contains("warning"), "{}", ran.text);
    assert_eq!(files::names(&tmp).unwrap(), ["report.odt"]);
    assert!(space.join("project/lines.jsonl").exists());
}

/// Folders within folders, deeper than a path can be long.
fn deep(folder: &Path, depth: usize) {
    use rustix::fs::{Mode, OFlags};
    fs::create_dir(folder).unwrap();
    let mut at = rustix::fs::open(folder, OFlags::PATH, Mode::empty()).unwrap();
    for _ in 0..depth {
        rustix::fs::mkdirat(&at, "d", Mode::RWXU).unwrap();
        at = rustix::fs::openat(&at, "d", OFlags::PATH | OFlags::DIRECTORY, Mode::empty()).unwrap();
    }
}

#[test]
fn a_group_shares_a_store_whatever_its_members_umasks() {
    if !is_root() {
        return;
    }
    let space = Space::new();
    let cache = space.join("cache");
    fs::create_dir(&cache).unwrap();
    std::os::unix::fs::chown(&cache, Some(ALICE), Some(GROUP)).unwrap();
    set_mode(&cache, 0o2770);
    let (alice, bob) = (User { uid: ALICE, umask: "077" }, User { uid: BOB, umask: "027" });
    space.slmops_as(alice, &["build", "first"]).ends(0, &["1 built"]);
    space.slmops_as(bob, &["build", "second"]).ends(0, &["1 built, 1 cached"]);
    space.slmops_as(alice, &["build", "second"]).ends(0, &["2 cached"]);
    space.slmops_as(User { uid: STRANGER, umask: "022" }, &["build", "second"]).ends(3, &["Permission denied"]);
    for (path, mode, _) in everything(&cache) {
        let (is_folder, shown) = (mode & 0o170_000 == 0o040_000, path.display());
        assert_eq!(fs::metadata(&path).unwrap().gid(), GROUP, "{shown}");
        match path.components().nth_back(2).is_some_and(|part| part.as_os_str() == "objects") {
            true => assert_eq!(mode & 0o7777, 0o444, "{shown}"),
            false => assert_eq!(mode & 0o7777, if is_folder { 0o2770 } else { 0o660 }, "{shown}"),
        }
    }
    // What a killed process of one leaves does not stop the other, and goes with the next build of its own.
    let left = cache.join("tmp/4000000-0/in1");
    fs::create_dir_all(&left).unwrap();
    for path in [&left, left.parent().unwrap()] {
        std::os::unix::fs::chown(path, Some(ALICE), Some(GROUP)).unwrap();
        set_mode(path, 0o700);
    }
    space.limit(2);
    space.slmops_as(bob, &["build", "second"]).ends(0, &["1 built", "warning", "4000000-0", "left in the store"]);
    assert!(left.exists());
    space.slmops_as(alice, &["build", "second"]).ends(0, &["2 cached"]);
    assert!(!left.exists());
    // Each removes what the other made; a damaged object is set aside by whoever finds it.
    let object = files::walk(&cache.join("objects")).unwrap().remove(0);
    set_mode(&cache.join("objects").join(&object), 0o644);
    fs::write(cache.join("objects").join(&object), "damaged").unwrap();
    space.slmops_as(bob, &["cache", "verify"]).ends(1, &["damaged"]);
    space.slmops_as(alice, &["build", "second"]).ends(0, &[]);
    space.slmops_as(bob, &["cache", "gc", "--all"]).ends(0, &["freed"]);
    space.slmops_as(alice, &["build", "second"]).ends(0, &["2 built"]);
}

#[test]
fn a_store_that_can_only_be_read_serves_everything_that_only_reads() {
    if !is_root() {
        return;
    }
    let space = Space::new();
    space.slmops(&["build", "second"]).ends(0, &[]);
    let before = everything(&space.join("cache"));
    let bob = User { uid: BOB, umask: "022" };
    read_only(&space, &|arguments| space.slmops_as(bob, arguments));
    assert_eq!(everything(&space.join("cache")), before);
    // The same where even root cannot write.
    let mount = format!("mount --bind {0} {0} && mount -o remount,bind,ro {0} && exec \"$@\"", space.join("cache").display());
    let mounted = |arguments: &[&str]| {
        let mut command = Command::new("unshare");
        command.args(["--mount", "sh", "-c", &mount, "sh"]).arg(&space.program).args(arguments);
        command.current_dir(space.join("project")).env_clear().env("PATH", "/usr/bin:/bin:/usr/sbin:/sbin");
        command.env("SLMOPS_CACHE", space.join("cache"));
        run(command)
    };
    if mounted(&["--version"]).code != Some(0) {
        not_run("a store on a read-only mount: nothing can be mounted here");
        return;
    }
    read_only(&space, &mounted);
    assert_eq!(everything(&space.join("cache")), before);
}

fn read_only(space: &Space, slmops: &dyn Fn(&[&str]) -> Ran) {
    space.limit(1);
    slmops(&["plan", "second"]).ends(0, &["2 cached"]);
    slmops(&["explain", "second"]).ends(0, &[]);
    slmops(&["log", "second"]).ends(0, &[]);
    slmops(&["build", "second"]).ends(0, &["2 cached"]);
    slmops(&["out", "second", "copied"]).ends(0, &[]);
    assert_eq!(fs::read_to_string(space.join("project/copied/data.jsonl")).unwrap(), "{\"text\":\"one\"}\n");
    slmops(&["cache", "stat"]).ends(0, &["objects"]);
    slmops(&["cache", "verify"]).ends(0, &["no damage found"]);
    slmops(&["cache", "export", "archive"]).ends(0, &[]);
    for name in ["copied", "archive"] {
        slmops::base::remove_all(&space.join("project").join(name)).unwrap();
    }
    space.limit(2);
    slmops(&["plan", "second"]).ends(0, &["1 to run, 1 cached"]);
    slmops(&["build", "second"]).ends(3, &["cannot write into the store", "no step can run"]);
    slmops(&["cache", "gc"]).ends(3, &["cannot write into the store"]);
    space.limit(1);
}
