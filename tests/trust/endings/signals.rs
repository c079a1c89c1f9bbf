//! Signals: what is ignored stays ignored, the first one is a request, the second one is an order.

use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use super::{Space, in_shell};

/// A project with one step that takes its time.
fn slow() -> Space {
    let space = Space::with_project();
    space.replace("slmops.toml", "max_steps = 40", "max_steps = 100000");
    space
}

/// Starts a build and waits until its training is under way.
fn start(space: &Space, before: &str) -> Child {
    let mut command = in_shell(space, before, &["build", "tiny", "--json"], ">out.jsonl");
    let child = command.stdin(Stdio::null()).stderr(Stdio::null()).spawn().expect("a program that starts");
    wait(|| std::fs::read_to_string(space.join("out.jsonl")).is_ok_and(|text| text.contains("\"progress\"") && text.contains("\"tiny\"")));
    child
}

#[track_caller]
fn wait(mut until: impl FnMut() -> bool) {
    let began = Instant::now();
    while !until() {
        assert!(began.elapsed() < Duration::from_secs(60), "it never happens");
        std::thread::sleep(Duration::from_millis(10));
    }
}

fn send(signal: &str, child: &Child) {
    assert!(Command::new("kill").args([signal, &child.id().to_string()]).status().is_ok_and(|status| status.success()));
}

#[track_caller]
fn code(mut child: Child) -> Option<i32> {
    let mut status = None;
    wait(|| {
        status = child.try_wait().expect("a child");
        status.is_some()
    });
    status.and_then(|status| status.code())
}

#[test]
fn each_of_three_signals_asks_a_build_to_end() {
    for signal in ["-INT", "-TERM", "-HUP"] {
        let space = slow();
        let child = start(&space, "");
        send(signal, &child);
        assert_eq!(code(child), Some(130), "{signal}");
        // It goes on where it was.
        assert!(std::fs::read_to_string(space.join("out.jsonl")).unwrap().contains("\"cancelled\""), "{signal}");
    }
}

#[test]
fn a_signal_that_is_ignored_at_the_start_stays_ignored() {
    for (signal, before) in [("-HUP", "trap '' HUP;"), ("-INT", "trap '' INT;"), ("-TERM", "trap '' TERM;")] {
        let space = slow();
        let mut child = start(&space, before);
        send(signal, &child);
        std::thread::sleep(Duration::from_millis(300));
        assert!(child.try_wait().expect("a child").is_none(), "{signal} has ended it");
        send(if signal == "-TERM" { "-INT" } else { "-TERM" }, &child);
        assert_eq!(code(child), Some(130), "{signal}");
    }
    let space = slow();
    let child = start(&space, "exec 2>/dev/null; nohup true; set -- \"$@\"; trap '' HUP;");
    send("-HUP", &child);
    std::thread::sleep(Duration::from_millis(300));
    send("-TERM", &child);
    assert_eq!(code(child), Some(130));
}

#[test]
fn a_second_signal_ends_it_at_once() {
    let space = slow();
    let child = start(&space, "");
    // Both arrive before the training has come to the end of a step or not; either way it ends as if interrupted.
    send("-INT", &child);
    send("-TERM", &child);
    assert_eq!(code(child), Some(130));
}
