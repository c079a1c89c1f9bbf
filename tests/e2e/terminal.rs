//! What a person sees on a terminal: `script` gives the program one.

use crate::space::{Ran, Space};

#[test]
fn the_live_view_shows_each_step_and_ends_with_the_table() {
    let space = Space::with_project();
    let program = env!("CARGO_BIN_EXE_slmops");
    assert!(std::path::Path::new("/usr/bin/script").exists(), "this test needs `script` (util-linux)");
    let mut command = std::process::Command::new("/usr/bin/script");
    command.args(["-qec", &format!("{program} build"), "/dev/null"]).current_dir(space.path());
    command.env_clear().env("PATH", "/usr/bin:/bin").env("TERM", "xterm").env("HOME", space.path());
    let ran = Ran::of(command);
    ran.success();
    for text in ["✓", "tiny", "steps", "left", "15 built in", "critical path", "dist/lights-0.1.0-switch"] {
        assert!(ran.out.contains(text), "no `{text}` in\n{}", ran.out);
    }
}
