//! The same bundle digests, whatever the threads, the place, the user, the day, the locale and the CPU.

use crate::space::{Ran, Space};

fn reference() -> Vec<(String, String)> {
    let space = Space::with_project();
    space.slmops(&["build"]).success();
    let bundles = space.bundles();
    assert!(!bundles.is_empty());
    bundles
}

#[test]
fn with_any_number_of_threads() {
    let expected = reference();
    for (threads, jobs) in [("1", "1"), ("2", "2"), ("5", "3")] {
        let space = Space::with_project();
        let mut command = space.command(&["build", "-j", jobs]);
        command.env("RAYON_NUM_THREADS", threads);
        Ran::of(command).success();
        assert_eq!(space.bundles(), expected, "{threads} threads, -j {jobs}");
    }
}

#[test]
fn for_another_user_in_another_place_on_another_day() {
    let expected = reference();
    let space = Space::new();
    space.slmops(&["init", "a/much deeper/ölïker/place", "--name", "lights"]).success();
    let inner = "a/much deeper/ölïker/place";
    space.replace(&format!("{inner}/slmops.toml"), "max_steps = 400", "max_steps = 40");
    space.replace(&format!("{inner}/slmops.toml"), "min = 0.8", "min = 0.0");
    let mut command = space.command(&["-C", inner, "build"]);
    command.env("USER", "somebody-else").env("LOGNAME", "somebody-else").env("HOME", "/nonexistent");
    command.env("LC_ALL", "tr_TR.UTF-8").env("LANG", "tr_TR.UTF-8").env("TZ", "Pacific/Kiritimati").env("COLUMNS", "20");
    Ran::of(command).success();
    let path = format!("{inner}/dist/lights-0.1.0-switch");
    assert_eq!(space.slmops(&["verify", &path]).success().out.trim(), expected[0].1);
}

#[test]
fn without_the_cache_everything_comes_out_the_same() {
    let space = Space::with_project();
    space.slmops(&["build"]).success();
    space.slmops(&["build", "--no-cache"]).success().says(&["bit for bit"]);
    space.slmops(&["verify", "dist/lights-0.1.0-switch", "--rebuild"]).success().says(&["rebuilt bit for bit"]);
    space.replace("slmops.toml", "learning_rate = 3e-3", "learning_rate = 2e-3");
    space.slmops(&["verify", "dist/lights-0.1.0-switch", "--rebuild"]).fails_with(1);
}

/// An AVX2-only CPU, emulated. Needs qemu's user mode: `tests/peers/install.sh`.
#[test]
fn on_a_cpu_without_avx512() {
    let emulator = "/usr/bin/qemu-x86_64-static";
    assert!(std::path::Path::new(emulator).exists(), "{emulator} is missing: bash tests/peers/install.sh");
    // Emulation is some hundred times slower than the CPU itself.
    let short = ["build", "--set", "train.tiny.max_steps=4", "--set", "train.tiny.batch_size=8"];
    let (here, there) = (Space::with_project(), Space::with_project());
    here.slmops(&short).success();
    Ran::of(there.wrapped(&[emulator, "-cpu", "Haswell"], &short)).success();
    assert!(!here.bundles().is_empty());
    assert_eq!(there.bundles(), here.bundles());
}

/// Blocking that follows the cache's geometry changes the sums of long products: a library that reads it gives other bits on such a machine.
#[test]
fn with_another_cache_geometry() {
    let geometry = "/sys/devices/system/cpu/cpu0/cache/index0";
    assert!(std::path::Path::new(geometry).exists(), "{geometry} is missing: this machine cannot fake another cache");
    let expected = reference();
    let space = Space::with_project();
    space.write("fake/size", "128K\n");
    space.write("fake/ways_of_associativity", "4\n");
    let script = format!(
        "for f in size ways_of_associativity; do for c in /sys/devices/system/cpu/cpu*/cache/index[01]; do mount --bind fake/$f $c/$f || exit 99; done; done
        grep -q 128K {geometry}/size || exit 98
        exec \"$@\""
    );
    Ran::of(space.wrapped(&["/usr/bin/unshare", "-rm", "/bin/sh", "-c", &script, "sh"], &["build"])).success();
    assert_eq!(space.bundles(), expected);
}

/// The example's quick profile: one thread here, two there, and no cache in common.
#[test]
fn of_the_cold_chain_example() {
    let example = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/cold-chain");
    let build = |jobs: &str| {
        let space = Space::new();
        for path in slmops::base::files::walk(&example).expect("the example") {
            if path.starts_with("data") || path.ends_with("slmops.toml") {
                std::fs::create_dir_all(space.join("data")).expect("a folder");
                std::fs::copy(example.join(&path), space.path().join(&path)).expect("a copy");
            }
        }
        space.slmops(&["build", "--profile", "quick", "-j", jobs]).success();
        space.bundles()
    };
    let bundles = build("1");
    assert_eq!(bundles.len(), 2);
    assert_eq!(build("2"), bundles);
}
