//! One digest of everything that computes: on every instruction set, on any number of threads, by another compiler with another
//! optimisation for another processor. `UPDATE=1 cargo test --test digests` writes the digests anew; `NUMERICS_VERSION` goes up when they change.

#![expect(clippy::disallowed_methods, reason = "a test knows what it has made")]

use std::path::{Path, PathBuf};
use std::process::Command;

use slmops::kernels::isa::{self, Isa};

#[path = "digests/work.rs"]
mod work;

const GOLDEN: &str = "tests/digests/golden.txt";

fn golden() -> String {
    std::fs::read_to_string(GOLDEN).expect("the digests")
}

fn here() -> String {
    let space = tempfile::tempdir().expect("a folder");
    let mut lines = String::new();
    work::all(space.path(), &mut |name, digest| lines += &format!("{digest} {name}\n"));
    lines
}

#[expect(clippy::disallowed_methods, reason = "a test's own switch, not the product's")]
fn updating() -> bool {
    std::env::var("UPDATE").is_ok_and(|value| value == "1")
}

fn assert_golden(found: &str, where_from: &str) {
    let golden = golden();
    for (found, expected) in found.lines().zip(golden.lines()) {
        assert_eq!(found, expected, "{where_from}");
    }
    assert_eq!(found.lines().count(), golden.lines().count(), "{where_from}");
}

#[test]
fn on_every_instruction_set_and_number_of_threads() {
    if updating() {
        std::fs::write(GOLDEN, here()).expect("the digests");
    }
    for threads in [1, 2, 3, 5] {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().expect("threads");
        assert_golden(&pool.install(here), &format!("{threads} threads"));
    }
    let mut instruction_sets = 0;
    for isa in Isa::ALL {
        let Some(_forced) = isa::force(isa) else { continue };
        assert_golden(&here(), &format!("{isa:?}"));
        instruction_sets += 1;
    }
    assert!(instruction_sets >= 2, "this processor has nothing to compare with plain Rust");
}

fn emulator(name: &str) -> PathBuf {
    let path = Path::new("/usr/bin").join(name);
    assert!(path.exists(), "{} is missing: bash tests/peers/install.sh", path.display());
    path
}

/// This very program on a processor without AVX-512.
#[test]
fn on_an_emulated_haswell() {
    let program = std::env::current_exe().expect("this program");
    let mut command = Command::new(emulator("qemu-x86_64-static"));
    command.args(["-cpu", "Haswell"]).arg(program).args(["--exact", "prints_its_digests", "--ignored", "--nocapture"]);
    assert_golden(&printed(&mut command), "Haswell");
}

#[test]
#[ignore = "called by other tests, in other surroundings"]
fn prints_its_digests() {
    println!("\n{}", here());
}

/// Sums whose order follows the cache's geometry change with it. candle's do, which shows that this test can fail.
#[test]
fn with_another_cache_geometry() {
    let geometry = "/sys/devices/system/cpu/cpu0/cache/index0";
    assert!(Path::new(geometry).exists(), "{geometry} is missing: this machine cannot fake another cache");
    let program = std::env::current_exe().expect("this program");
    let elsewhere = |test: &str, size: &str, ways: &str| {
        let space = tempfile::tempdir().expect("a folder");
        std::fs::write(space.path().join("size"), format!("{size}\n")).expect("a file");
        std::fs::write(space.path().join("ways_of_associativity"), format!("{ways}\n")).expect("a file");
        let script = format!(
            "for f in size ways_of_associativity; do for c in /sys/devices/system/cpu/cpu*/cache/index[01]; do mount --bind $f $c/$f || exit 99; done; done
            grep -q {size} {geometry}/size || exit 98
            cd {} && exec \"$@\"",
            env!("CARGO_MANIFEST_DIR")
        );
        let mut command = Command::new("/usr/bin/unshare");
        command.args(["-rm", "/bin/sh", "-c", &script, "sh"]).arg(&program).args(["--exact", test, "--ignored", "--nocapture"]);
        printed(command.current_dir(space.path()))
    };
    let mut controls = vec![candle()];
    // One of them is unlike whatever this machine has.
    for (size, ways) in [("128K", "4"), ("32K", "8")] {
        assert_golden(&elsewhere("prints_its_digests", size, ways), "another cache");
        controls.push(elsewhere("prints_a_product_of_candle", size, ways));
        assert!(controls.last().is_some_and(|line| line.ends_with("candle\n")), "{controls:?}");
    }
    controls.dedup();
    assert!(controls.len() > 1, "candle has the same bits with other caches, so this test shows nothing: {controls:?}");
}

#[test]
#[ignore = "called by the test above"]
fn prints_a_product_of_candle() {
    println!("\n{}", candle());
}

/// A product of candle's, whose blocks of k follow the first-level cache.
fn candle() -> String {
    use candle_core::{Device, Tensor};
    let matrix = |rows: usize, columns: usize, stream: u64| {
        let values = (0..(rows * columns) as u64).map(|i| slmops::kernels::rng::normal(1, stream, i));
        Tensor::from_iter(values, &Device::Cpu).and_then(|x| x.reshape((rows, columns))).expect("a matrix")
    };
    let product = matrix(64, 1024, 1).matmul(&matrix(1024, 1024, 2)).and_then(|c| c.flatten_all()?.to_vec1::<f32>()).expect("a product");
    let bytes: Vec<u8> = product.iter().flat_map(|x| x.to_bits().to_le_bytes()).collect();
    format!("{} candle\n", slmops::base::Digest::of(&bytes))
}

/// A release build by Debian's compiler for a Cortex-A72: another compiler, another optimisation, NEON.
#[test]
fn on_an_emulated_cortex_a72() {
    let (compiler, target) = ("/usr/bin/rustc", "aarch64-unknown-linux-gnu");
    let found = Command::new(compiler).args(["--print", "target-libdir", "--target", target]).output();
    let has_std = found.is_ok_and(|out| Path::new(String::from_utf8_lossy(&out.stdout).trim()).is_dir());
    assert!(has_std, "{compiler} for {target} is missing: bash tests/peers/install.sh");
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/digests/elsewhere");
    let target_dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/elsewhere");
    let mut build = Command::new(env!("CARGO"));
    build.args(["build", "--release", "--quiet", "--target", target]).current_dir(&folder);
    build.env("RUSTC", compiler).env("CARGO_TARGET_DIR", &target_dir);
    build.env("CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_LINKER", "aarch64-linux-gnu-gcc");
    // Linked statically: qemu 7.2 hangs where Debian's dynamic glibc for aarch64 starts a thread.
    build.env("RUSTFLAGS", "-C target-feature=+crt-static").env_remove("RUSTUP_TOOLCHAIN");
    assert!(build.status().expect("cargo").success(), "the build for {target} failed");
    let space = tempfile::tempdir().expect("a folder");
    let mut command = Command::new(emulator("qemu-aarch64-static"));
    command.args(["-cpu", "cortex-a72"]);
    command.arg(target_dir.join(target).join("release/slmops")).arg(space.path());
    assert_golden(&printed(&mut command), "Cortex-A72");
}

/// The lines that begin with a digest.
fn printed(command: &mut Command) -> String {
    let out = command.output().expect("an emulator");
    let text = String::from_utf8_lossy(&out.stdout).into_owned();
    assert!(out.status.success(), "{text}\n{}", String::from_utf8_lossy(&out.stderr));
    let is_digest = |line: &&str| line.len() > 65 && line.as_bytes()[..64].iter().all(u8::is_ascii_hexdigit);
    text.lines().filter(is_digest).map(|line| format!("{line}\n")).collect()
}
