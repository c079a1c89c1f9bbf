//! The side of slmops: starts the helper, listens to the command, stops it when asked to.

use std::fs;
use std::io::{self, Write};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::thread;
use std::time::Duration;

use super::init::{Order, Outcome, Stage, outcome_file};
use super::{Ended, HELPER, Job, SandboxError, diagnose, helper, output};
use crate::base::Cancel;

/// How soon a wish to stop is heard.
const PATIENCE: Duration = Duration::from_millis(50);
/// Lines on their way from the command; when so many wait, it must wait too.
const LINES_WAITING: usize = 256;

/// Runs a job to its end, telling every line it prints. `scratch` is an empty folder for the helper's own use. Once `cancel` is set, every process of the
/// job is killed.
pub fn run(job: &Job, scratch: &Path, cancel: &Cancel, say: &mut dyn FnMut(&str)) -> Result<Ended, SandboxError> {
    let helper = helper().ok_or(SandboxError::NoHelper)?;
    let order = Order { job: job.clone(), helper: helper.to_path_buf(), scratch: scratch.to_path_buf(), stage: Stage::Outside };
    let mut child = Command::new(helper)
        .arg(HELPER)
        .env_clear()
        .process_group(0)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(failed(format!("start `{}`", helper.display())))?;
    if let Some(mut stdin) = child.stdin.take() {
        let text = serde_json::to_vec(&order).map_err(|error| failed("describe the job")(error.into()))?;
        // A helper that died at once is found below.
        let _ = stdin.write_all(&text);
    }
    let lines = listen(&mut child);
    let stopped = follow(&lines, cancel, say);
    if stopped {
        // The sandbox's first process is bound to the helper's life, and all others to that one's.
        child.kill().map_err(failed("stop the helper"))?;
    }
    child.wait().map_err(failed("wait for the helper"))?;
    if stopped {
        lines.iter().for_each(drop);
        return Err(SandboxError::Cancelled);
    }
    outcome(job, scratch)
}

/// Both streams as one stream of lines, which ends when no process of the job can write any more.
fn listen(child: &mut Child) -> Receiver<String> {
    let (sender, receiver) = mpsc::sync_channel(LINES_WAITING);
    if let Some(stream) = child.stdout.take() {
        let sender = sender.clone();
        thread::spawn(move || output::forward(stream, &sender));
    }
    if let Some(stream) = child.stderr.take() {
        thread::spawn(move || output::forward(stream, &sender));
    }
    receiver
}

/// Tells lines until there are no more, or until it shall stop: then the answer is `true`.
fn follow(lines: &Receiver<String>, cancel: &Cancel, say: &mut dyn FnMut(&str)) -> bool {
    loop {
        if cancel.is_cancelled() {
            return true;
        }
        match lines.recv_timeout(PATIENCE) {
            Ok(line) => say(&line),
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => return false,
        }
    }
}

fn outcome(job: &Job, scratch: &Path) -> Result<Ended, SandboxError> {
    let path = outcome_file(scratch);
    let text = fs::read(&path).map_err(failed(format!("read `{}`", path.display())))?;
    let outcome: Outcome = serde_json::from_slice(&text).map_err(|_| {
        let error = "its first process was killed, perhaps for want of memory".to_string();
        SandboxError::Unavailable { doing: "keep the sandbox alive".to_string(), error, help: "see the kernel's log (`dmesg`)".to_string() }
    })?;
    match outcome {
        Outcome::Ended(ended) => Ok(ended),
        Outcome::Unavailable { doing, error } => Err(SandboxError::Unavailable { doing, error, help: diagnose::help() }),
        Outcome::NotStarted { error, not_found } => {
            let program = job.command.first().cloned().unwrap_or_default();
            let help = "the sandbox holds only the step's inputs, tools and root: is the program among them, and the loader or interpreter that it names?";
            Err(SandboxError::NotStarted { program, error, help: not_found.then(|| help.to_string()) })
        }
    }
}

fn failed(doing: impl Into<String>) -> impl FnOnce(io::Error) -> SandboxError {
    let doing = doing.into();
    move |error| SandboxError::Io { doing, error }
}
