//! Paths that a person names for output: what is there is not written over by mistake, and pipes and devices are written into.

use std::fs;
use std::os::unix::fs::{FileTypeExt, MetadataExt, symlink};
use std::process::Stdio;

use crate::space::{Ran, Space};

fn pipe(space: &Space, name: &str) {
    use rustix::fs::{CWD, FileType, Mode, mknodat};
    mknodat(CWD, space.join(name), FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).expect("a pipe");
}

#[test]
fn an_archive_goes_where_it_is_sent_and_over_nothing() {
    let space = Space::with_project();
    space.slmops(&["build"]).success();
    let export = |arguments: &[&str]| space.slmops(&[&["cache", "export"], arguments].concat());
    export(&["a.tar"]).success();
    let archive = fs::read(space.join("a.tar")).expect("an archive");

    space.write("mine", "mine");
    symlink("mine", space.join("link")).expect("a link");
    for path in ["mine", "link", "./mine"] {
        export(&[path]).fails_with(2).says(&["already exists", "--force"]);
    }
    export(&["."]).fails_with(2).says(&["is a folder"]);
    export(&["none/a.tar"]).fails_with(2).says(&["there is no folder"]);
    assert_eq!(space.read("mine"), "mine");
    export(&["--force", "link"]).success();
    assert_eq!(fs::read(space.join("mine")).expect("an archive"), archive);
    assert!(space.join("link").is_symlink());

    // Streams.
    export(&["/dev/null"]).success();
    assert!(fs::metadata("/dev/null").expect("a device").file_type().is_char_device());
    let full = fs::metadata("/dev/full").expect("a device");
    export(&["/dev/full"]).fails_with(3).says(&["the disk is full"]);
    assert_eq!(fs::metadata("/dev/full").expect("a device").ino(), full.ino());
    for path in ["-", "/dev/stdout"] {
        let output = space.command(&["cache", "export", path]).output().expect("a program that starts");
        assert!(output.status.success() && output.stdout == archive, "{path}: {}", String::from_utf8_lossy(&output.stderr));
    }
    pipe(&space, "pipe");
    let reader = space.join("pipe");
    let reader = std::thread::spawn(move || fs::read(reader).expect("a pipe"));
    export(&["pipe"]).success();
    assert_eq!(reader.join().expect("an archive"), archive);
    assert!(fs::metadata(space.join("pipe")).expect("a pipe").file_type().is_fifo());

    // Behind what a shell has written already.
    let script = "echo head > both; { echo first; \"$@\" cache export /dev/stdout; } >> both";
    Ran::of(space.wrapped(&["/bin/sh", "-c", script, "sh"], &[])).success();
    assert_eq!(fs::read(space.join("both")).expect("a file"), [b"head\nfirst\n", &archive[..]].concat());

    // And back.
    let imported = |arguments: &[&str], stdin: Stdio| {
        let other = Space::new();
        let store = other.join("store");
        let store = ["--cache", store.to_str().expect("a path")];
        let mut command = space.command(&[&["cache", "import"], arguments, &store].concat());
        command.stdin(stdin);
        Ran::of(command)
    };
    let open = |path: &str| Stdio::from(fs::File::open(space.join(path)).expect("an archive"));
    imported(&["-"], open("a.tar")).success().says(&["took in"]);
    imported(&["/dev/stdin"], open("a.tar")).success();
    let writer = space.join("pipe");
    let bytes = [archive.clone(), vec![0; 10_240]].concat();
    let writer = std::thread::spawn(move || fs::write(writer, bytes));
    imported(&["pipe"], Stdio::null()).success();
    writer.join().expect("a writer").expect("all of it is read");
    imported(&["-"], Stdio::null()).fails_with(2).says(&["is empty"]);
    imported(&["both"], Stdio::null()).fails_with(2);
    imported(&["."], Stdio::null()).fails_with(2).says(&["is a folder"]);
    imported(&["none"], Stdio::null()).fails_with(2);
}

#[test]
fn what_init_and_man_find_stays() {
    let space = Space::new();
    space.write("elsewhere/.keep", "");
    symlink("elsewhere/ignored", space.join(".gitignore")).expect("a link");
    pipe(&space, "slmops.toml");
    space.slmops(&["init", "--name", "lights"]).fails_with(2).says(&["already there", "writes over nothing"]);
    assert!(!space.join("data").exists());
    fs::remove_file(space.join("slmops.toml")).expect("a pipe");
    symlink("nowhere/at/all", space.join("slmops.toml")).expect("a link");
    space.slmops(&["init", "--name", "lights"]).fails_with(2).says(&["there is no folder"]);
    fs::remove_file(space.join("slmops.toml")).expect("a link");
    space.slmops(&["init", "--name", "lights"]).success();
    assert!(space.join(".gitignore").is_symlink());
    assert_eq!(space.read("elsewhere/ignored"), "/cache/\n/dist/\n");

    space.slmops(&["man", "pages"]).success();
    space.slmops(&["man", "pages"]).success();
    let page = space.read("pages/slmops-build.1");
    space.write("pages/slmops-build.1", "mine");
    space.slmops(&["man", "pages"]).fails_with(2).says(&["slmops-build.1` already exists", "--force"]);
    assert_eq!(space.read("pages/slmops-build.1"), "mine");
    space.slmops(&["man", "--force", "pages"]).success();
    assert_eq!(space.read("pages/slmops-build.1"), page);
}

#[test]
fn a_lock_is_written_through_a_link() {
    let space = Space::with_project();
    space.write("shared/.keep", "");
    // A lock that has to be written: it pins a source that is not there any more.
    let old = "version = 1\n\n[[source]]\nname = \"gone\"\nurl = \"https://example.org/x\"\nsha256 = \"ZEROS\"\ntree = \"ZEROS\"\n";
    space.write("shared/lock", &old.replace("ZEROS", &"0".repeat(64)));
    symlink("shared/lock", space.join("slmops.lock")).expect("a link");
    space.slmops(&["lock"]).success();
    assert!(space.join("slmops.lock").is_symlink());
    assert!(!space.read("shared/lock").contains("gone"), "{}", space.read("shared/lock"));
}

#[test]
fn results_of_a_project_out_of_sight_stay_until_it_is_said() {
    let space = Space::with_project();
    space.slmops(&["build", "words", "--cache", "store"]).success();
    let away = Space::new();
    fs::create_dir(away.join("project")).expect("a folder");
    let copied =
        std::process::Command::new("cp").args(["-r", "slmops.toml", "data"]).arg(away.join("project")).current_dir(space.path()).status();
    assert!(copied.expect("cp").success());
    away.replace("project/slmops.toml", "vocab_size = 320", "vocab_size = 316");
    let store = space.join("store");
    let store = store.to_str().expect("a path");
    let build = || away.slmops(&["-C", "project", "build", "words", "--cache", store]);
    assert_eq!(build().success().counts().0, 1);
    let (here, gone) = (away.join("project"), away.join("unmounted"));
    let gc = |arguments: &[&str]| {
        fs::rename(&here, &gone).expect("a project that goes");
        let ran = space.slmops(&[&["cache", "gc", "--cache", "store"], arguments].concat());
        fs::rename(&gone, &here).expect("a project that comes back");
        ran
    };
    for kept in [&[][..], &["--max-size", "1B"], &["--max-age", "30d"], &["--dry-run", "--forget-missing"]] {
        gc(kept).success();
        assert_eq!(build().success().counts().0, 0, "{kept:?}");
    }
    gc(&[]).says(&["project` is not visible from here", "--forget-missing"]);
    let plan = gc(&["--forget-missing", "--dry-run"]);
    assert!(plan.out.contains("words of ") && plan.out.contains("forgets `"), "{}", plan.out);
    gc(&["--forget-missing"]).success().says(&["forgets `"]);
    assert_eq!(build().success().counts().0, 1);
}
