//! Manifests beyond reason: the time is in proportion to the text, and of ten thousand mistakes a hundred are shown. `STRESS=1` prints the times.

use std::fmt::Write;
use std::time::{Duration, Instant};

use super::{Space, ends};

const HEAD: &str = "slmops = 1\n[project]\nname = \"p\"\n";

/// Runs `check` on a manifest, which must end with one of these codes and within so many seconds (twenty times what it takes).
#[track_caller]
fn check(what: &str, text: &str, codes: &[i32], seconds: u64) -> super::Ran {
    let space = Space::new();
    space.write("slmops.toml", text);
    space.write("data.jsonl", "{\"text\": \"a\"}\n");
    let began = Instant::now();
    let ran = ends(space.command(&["check"]));
    let took = began.elapsed();
    let json = ends(space.command(&["check", "--json"]));
    eprintln!("{what}: {} bytes in {took:.2?}, {} lines of talk, {} bytes of JSON", text.len(), ran.err.lines().count(), json.out.len());
    ran.ends_with(codes);
    json.ends_with(codes);
    assert!(took < Duration::from_secs(seconds), "{what}: {took:?}");
    assert!(ran.err.len() < 200_000 && json.out.len() < 400_000, "{what}: too much is said");
    ran
}

fn lines(count: usize, line: impl Fn(usize) -> String) -> String {
    (0..count).fold(String::new(), |mut text, i| {
        let _infallible = writeln!(text, "{}", line(i));
        text
    })
}

#[test]
fn unknown_keys() {
    let text = format!(
        "{HEAD}[source]\nd = {{ path = \"data.jsonl\" }}\n[dataset.d2]\ndata = \"d\"\n{}",
        lines(100_000, |i| format!("k{i} = {i}"))
    );
    check("100,000 unknown keys of a step", &text, &[2], 60).says(&["problems found", "of them are not shown"]);
    let text = format!("{HEAD}{}", lines(100_000, |i| format!("[kind{i}.x]")));
    check("100,000 unknown kinds", &text, &[2], 60);
    let text = format!("{HEAD}{}", lines(30_000, |i| format!("[dataset.d{i}]\ndta = \"d\"\nsed = {i}")));
    check("30,000 steps with two unknown keys each", &text, &[2], 90);
    let text =
        format!("{HEAD}[defaults.dataset]\n{}{}", lines(20_000, |i| format!("k{i} = 1")), lines(20_000, |i| format!("[dataset.d{i}]")));
    check("20,000 unknown defaults of 20,000 steps", &text, &[2], 90);
}

#[test]
fn unknown_names() {
    let text = format!("{HEAD}{}", lines(50_000, |i| format!("[dataset.d{i}]\ndata = \"none{i}\"")));
    check("50,000 references to nothing", &text, &[2], 90);
    let text = format!("{HEAD}[source]\n{}", lines(50_000, |i| format!("s{i} = {{ path = \"none{i}\" }}")));
    check("50,000 sources that are not there", &text, &[2], 90);
    let profiles = lines(2_000, |i| format!("[profile.p{i}.dataset.none{i}]\nseed = 1"));
    let text = format!("{HEAD}{}{profiles}", lines(2_000, |i| format!("[dataset.d{i}]\ndata = \"d{}\"", i + 1)));
    check("2,000 profiles of steps that are not there", &text, &[2], 60);
}

#[test]
fn many_steps_and_circles() {
    let source = "[source]\nd0 = { path = \"data.jsonl\" }\n";
    let text = format!("{HEAD}{source}{}", lines(100_000, |i| format!("[dataset.d{}]\ndata = \"d{i}\"", i + 1)));
    check("a chain of 100,000 steps", &text, &[0], 120);
    let text = format!("{HEAD}{}", lines(100_000, |i| format!("[dataset.d{i}]\ndata = \"d{}\"", (i + 1) % 100_000)));
    check("a circle of 100,000 steps", &text, &[2], 120).says(&["steps need each other"]);
    let text = format!("{HEAD}{}", lines(50_000, |i| format!("[dataset.d{i}]\ndata = \"d{i}\"")));
    check("50,000 circles of one", &text, &[2], 120);
}

#[test]
fn long_lines_and_deep_ones() {
    let long = "x".repeat(1 << 20);
    check("a key of 1 MB", &format!("{HEAD}{long} = 1\n"), &[2], 20);
    check("a string of 1 MB", &format!("{HEAD}description = 3\nversion = \"{long}\"\n"), &[2], 20);
    let keys: String = (0..60_000).map(|i| format!("k{i} = 1, ")).collect();
    check("60,000 unknown keys on one line", &format!("{HEAD}dataset.d = {{ {keys} z = 1 }}\n"), &[2], 60);
    let items: String = (0..60_000).map(|i| format!("\"none{i}\", ")).collect();
    check("60,000 references on one line", &format!("{HEAD}dataset.d = {{ data = [ {items} ] }}\n"), &[2], 60);
    check("60,000 errors of TOML on one line", &format!("{HEAD}a = {}\n", "= ".repeat(60_000)), &[2], 60);
    check("60,000 errors of TOML", &format!("{HEAD}{}", lines(60_000, |i| format!("a{i} = = 1"))), &[2], 60);
    check("60,000 numbers that are none", &format!("{HEAD}{}", lines(60_000, |i| format!("a{i} = nan"))), &[2], 60);
    for (what, deep) in [
        ("lists", format!("a = {}", "[".repeat(1 << 20))),
        ("tables", format!("a = {}", "{ a = ".repeat(200_000))),
        ("keys", format!("a{} = 1", ".a".repeat(500_000))),
        ("headers", format!("[a{}]", ".a".repeat(500_000))),
    ] {
        check(&format!("{what} within each other"), &format!("{HEAD}{deep}\n"), &[2], 60);
    }
}

#[test]
fn combinations_beyond_reason() {
    let values: String = (0..4000).map(|i| format!("{i}, ")).collect();
    let steps = lines(400, |i| format!("[dataset.d{i}]\ndata = \"d\"\nmatrix.seed = [{values}]"));
    let source = "[source]\nd = { path = \"data.jsonl\" }\n";
    check("1,600,000 combinations", &format!("{HEAD}{source}{steps}"), &[2], 120).says(&["steps"]);
    let names: String = (0..10_000).map(|_| "\"d\", ").collect();
    let wide = format!("[dataset.w]\ndata = [{names}]\nmatrix.seed = [{values}]\n");
    check("4,000 combinations of 10,000 values", &format!("{HEAD}{source}{wide}"), &[2], 60);
}

#[test]
fn records_beyond_reason() {
    let space = Space::new();
    space.write("slmops.toml", &format!("{HEAD}[source]\nd = {{ path = \"data.jsonl\" }}\n[dataset.d2]\ndata = \"d\"\n"));
    let deep = |open: &str, close: &str| format!("{{\"text\": \"a\", \"x\": {}{}}}\n", open.repeat(100_000), close.repeat(100_000));
    for line in [deep("[", "]"), deep("{\"a\":", "}"), format!("{{\"text\": \"{}\"", "[".repeat(1 << 20)), "{".repeat(1 << 20)] {
        space.write("data.jsonl", &line);
        ends(space.command(&["build"])).ends_with(&[1]).says(&["data.jsonl:1: "]);
    }
}
