//! A damaged store, a store that cannot be written, a damaged lock, a loss that is not a number, a killed process.

use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::time::Duration;

use slmops::base::files;

use crate::space::{Ran, Space};

fn objects(space: &Space) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let folder = space.join("cache/objects");
    for path in files::walk(&folder).expect("objects") {
        found.push(folder.join(path));
    }
    found.sort_by_key(|path| std::cmp::Reverse(path.metadata().expect("a file").len()));
    found
}

fn overwrite(path: &PathBuf, change: impl Fn(&mut Vec<u8>)) {
    let mut bytes = std::fs::read(path).expect("an object");
    change(&mut bytes);
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o644)).expect("permissions");
    std::fs::write(path, bytes).expect("a written object");
}

#[test]
fn flipped_bits_and_cut_objects_are_found_and_rebuilt() {
    let space = Space::with_project();
    space.slmops(&["build"]).success();
    let bundles = space.bundles();
    for (i, object) in objects(&space).iter().enumerate() {
        match i % 2 {
            0 => overwrite(object, |bytes| {
                if let Some(byte) = bytes.last_mut() {
                    *byte ^= 1;
                }
            }),
            _ => overwrite(object, |bytes| bytes.truncate(bytes.len() / 2)),
        }
    }
    let verify = space.slmops(&["cache", "verify"]);
    verify.fails_with(1);
    assert!(verify.out.contains("damaged: "), "{}", verify.out);
    std::fs::remove_dir_all(space.join("dist")).expect("dist");
    let ran = space.slmops(&["build"]);
    assert!(!ran.success().started().is_empty());
    assert_eq!(space.bundles(), bundles);
    space.slmops(&["cache", "verify"]).success();
}

#[test]
fn one_flipped_bit_is_found_when_the_object_is_read() {
    let space = Space::with_project();
    space.slmops(&["build"]).success();
    let bundles = space.bundles();
    overwrite(&objects(&space)[0], |bytes| bytes[0] ^= 0x10);
    space.replace("slmops.toml", "Q4_0\"]", "Q4_0\", \"Q5_0\"]");
    let ran = space.slmops(&["build"]);
    ran.success().says(&["it is built again"]);
    space.replace("slmops.toml", "Q4_0\", \"Q5_0\"]", "Q4_0\"]");
    space.slmops(&["build"]).success();
    assert_eq!(space.bundles(), bundles);
}

#[test]
fn a_store_that_cannot_be_written_is_the_environments_fault() {
    let space = Space::with_project();
    space.write("taken", "a file where the store should be");
    space.slmops(&["build", "--cache", "taken"]).fails_with(3).says(&["taken"]);
    assert_eq!(space.read("taken"), "a file where the store should be");
}

#[test]
fn a_corrupted_lock_is_an_error_that_says_what_to_do() {
    let space = Space::with_project();
    space.write("slmops.lock", "version = [broken");
    space.slmops(&["build"]).fails_with(2).says(&["slmops.lock", "slmops lock"]);
    std::fs::remove_file(space.join("slmops.lock")).expect("the lock");
    space.slmops(&["check"]).success();
}

#[test]
fn a_loss_that_is_not_a_number_stops_the_step_and_is_not_cached() {
    let space = Space::with_project();
    space.replace("slmops.toml", "learning_rate = 3e-3", "learning_rate = 10.0\nlr_scheduler_type = \"constant\"\nweight_decay = 1.0");
    space.slmops(&["build"]).fails_with(1).says(&["tiny", "diverged at step", "not a finite number"]);
    space.slmops(&["build"]).fails_with(1);
    space.replace("slmops.toml", "learning_rate = 10.0\nlr_scheduler_type = \"constant\"\nweight_decay = 1.0", "learning_rate = 3e-3");
    space.slmops(&["build"]).success();
}

#[test]
fn bad_data_names_file_and_line() {
    let space = Space::with_project();
    let data = space.read("data/train.jsonl");
    space.write("data/train.jsonl", &format!("{data}{{\"prompt\": 7}}\n"));
    let line = format!("train.jsonl:{}", data.lines().count() + 1);
    space.slmops(&["build"]).fails_with(1).says(&[&line]);
}

#[test]
fn killed_at_random_moments_it_resumes_to_the_same_bits() {
    let whole = Space::with_project();
    whole.slmops(&["build"]).success();
    let killed = Space::with_project();
    let mut kills = 0;
    for round in 0..10u64 {
        let mut child = killed.command(&["build", "--quiet"]).spawn().expect("a child");
        std::thread::sleep(Duration::from_millis(40 + 130 * round));
        if child.try_wait().expect("a state").is_none() {
            kills += 1;
        }
        child.kill().expect("a kill");
        child.wait().expect("an end");
    }
    assert!(kills >= 3, "the build is over too soon to be killed: {kills}");
    killed.slmops(&["build"]).success();
    assert_eq!(killed.bundles(), whole.bundles());
    assert!(!killed.bundles().is_empty());
    killed.slmops(&["cache", "verify"]).success();
}

#[test]
fn ctrl_c_ends_with_130_and_leaves_a_clean_store() {
    let space = Space::with_project();
    space.replace("slmops.toml", "max_steps = 40", "max_steps = 5000");
    let child =
        space.command(&["build"]).stderr(std::process::Stdio::piped()).stdout(std::process::Stdio::piped()).spawn().expect("a child");
    std::thread::sleep(Duration::from_millis(1500));
    let pid = rustix::process::Pid::from_child(&child);
    rustix::process::kill_process(pid, rustix::process::Signal::INT).expect("a signal");
    let output = child.wait_with_output().expect("an end");
    assert_eq!(output.status.code(), Some(130), "{}", String::from_utf8_lossy(&output.stderr));
    space.slmops(&["cache", "verify"]).success();
    assert_eq!(files::names(&space.join("cache/tmp")).expect("tmp"), Vec::<std::ffi::OsString>::new());
}

#[test]
fn two_builds_share_one_store_and_compute_once() {
    let space = Space::with_project();
    let build =
        || space.command(&["build"]).stderr(std::process::Stdio::piped()).stdout(std::process::Stdio::piped()).spawn().expect("a child");
    let (first, second) = (build(), build());
    let ends = [first, second].map(|child| child.wait_with_output().expect("an end"));
    let rans = ends.map(|end| Ran {
        code: end.status.code(),
        out: String::from_utf8_lossy(&end.stdout).into_owned(),
        err: String::from_utf8_lossy(&end.stderr).into_owned(),
    });
    let built: usize = rans.iter().map(|ran| ran.success().counts().0).sum();
    let once = Space::with_project();
    assert_eq!(built, once.slmops(&["build"]).success().counts().0);
    assert_eq!(space.bundles(), once.bundles());
}

#[test]
fn results_travel_in_an_archive() {
    let (from, to) = (Space::with_project(), Space::with_project());
    from.slmops(&["build"]).success();
    from.slmops(&["cache", "export", "results.tar"]).success();
    std::fs::copy(from.join("results.tar"), to.join("results.tar")).expect("a copy");
    to.slmops(&["cache", "import", "results.tar"]).success();
    assert_eq!(to.slmops(&["build"]).success().counts().0, 0);
    assert_eq!(from.bundles(), to.bundles());
    overwrite(&to.join("results.tar"), |bytes| {
        let middle = bytes.len() / 2;
        bytes[middle] ^= 1;
    });
    let other = Space::with_project();
    std::fs::copy(to.join("results.tar"), other.join("results.tar")).expect("a copy");
    assert_ne!(other.slmops(&["cache", "import", "results.tar"]).code, Some(0));
    other.slmops(&["cache", "verify"]).success();
}

#[test]
fn gc_keeps_the_last_results_unless_told_otherwise() {
    let space = Space::with_project();
    let (built, _) = space.slmops(&["build"]).success().counts();
    space.slmops(&["cache", "gc"]).success();
    assert_eq!(space.slmops(&["build"]).success().counts(), (0, built));
    space.slmops(&["cache", "gc", "--all", "--dry-run"]).success();
    assert_eq!(space.slmops(&["build"]).success().counts(), (0, built));
    space.slmops(&["cache", "gc", "--all"]).success();
    assert_eq!(space.slmops(&["build"]).success().counts().0, built);
}

/// A store on a file system that fills up, and then has room again.
#[test]
fn a_full_disk_is_told_and_the_next_build_recovers() {
    let space = Space::with_project();
    let script = "mkdir -p cache && mount -t tmpfs -o size=300k full cache || exit 99
        \"$@\" 2>first; echo $? >code
        mount -o remount,size=64m cache && \"$@\" 2>second";
    let ran = Ran::of(space.wrapped(&["/usr/bin/unshare", "-rm", "/bin/sh", "-c", script, "sh"], &["build"]));
    assert_ne!(ran.code, Some(99), "this machine cannot mount a small file system: {}", ran.err);
    assert_eq!(space.read("code").trim(), "3", "{}", space.read("first"));
    assert!(space.read("first").contains("the disk is full"), "{}", space.read("first"));
    assert!(space.read("second").contains("built"), "{}", space.read("second"));
    let whole = Space::with_project();
    whole.slmops(&["build"]).success();
    assert_eq!(space.bundles(), whole.bundles());
}
