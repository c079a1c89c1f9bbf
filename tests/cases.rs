//! Manifests and what becomes of them, as data: `cases/NAME/slmops.toml` and, beside it, `expected` (the plan, or the diagnostics as they are
//! drawn). `args` may hold `--profile NAME`, `--set KEY=VALUE` and targets, one a line. `UPDATE=1` rewrites what is expected.

mod kinds;

use std::fs;
use std::path::Path;

use slmops::base::{Diagnostic, files};
use slmops::manifest::Overrides;
use slmops::plan::{self, Options};

#[test]
fn every_case_comes_out_as_expected() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/cases");
    let mut failed = Vec::new();
    for name in files::names(&root).unwrap() {
        let case = root.join(&name);
        let found = outcome(&case);
        let expected = fs::read_to_string(case.join("expected")).unwrap_or_default();
        if found == expected {
            continue;
        }
        if is_update() {
            fs::write(case.join("expected"), &found).unwrap();
        } else {
            failed.push(format!("--- {}: expected\n{expected}\n+++ found\n{found}", name.to_string_lossy()));
        }
    }
    assert!(failed.is_empty(), "{}\n(UPDATE=1 accepts what was found)", failed.join("\n"));
}

#[expect(clippy::disallowed_methods, reason = "a test may ask how it was called")]
fn is_update() -> bool {
    std::env::var("UPDATE").is_ok_and(|value| value == "1")
}

fn outcome(case: &Path) -> String {
    let args = fs::read_to_string(case.join("args")).unwrap_or_default();
    let mut overrides = Overrides::default();
    let mut targets = Vec::new();
    for line in args.lines() {
        match line.split_once(' ') {
            Some(("--profile", name)) => overrides.profile = Some(name.to_string()),
            Some(("--set", change)) => overrides.set.push(change.to_string()),
            _ => targets.push(line),
        }
    }
    let options = Options { kinds: kinds::KINDS, overrides, ..Options::default() };
    let plan = match plan::load(case, &options) {
        Ok(plan) => plan,
        Err(diagnostics) => return drawn(&diagnostics, case),
    };
    if targets.is_empty() {
        return kinds::show(&plan);
    }
    match plan.select(&targets) {
        Ok(selection) => {
            let names = |ids: &mut dyn Iterator<Item = plan::NodeId>| {
                ids.map(|id| plan.node(id).name().to_string()).collect::<Vec<_>>().join("\n    ")
            };
            format!(
                "targets\n    {}\nneeded\n    {}\n",
                names(&mut selection.targets.iter().copied()),
                names(&mut selection.needed.iter().copied())
            )
        }
        Err(diagnostics) => drawn(&diagnostics, case),
    }
}

fn drawn(diagnostics: &[Diagnostic], case: &Path) -> String {
    let drawn: Vec<String> = diagnostics.iter().map(|diagnostic| diagnostic.render(false)).collect();
    // Where the repository stands is nobody's business.
    drawn.join("\n\n").replace(&*case.to_string_lossy(), "CASE") + "\n"
}
