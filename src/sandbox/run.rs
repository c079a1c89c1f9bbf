//! The side of slmops: starts the helper, listens to the command, watches its limits, stops it when asked to.

use std::io;
use std::net::Shutdown;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, SyncSender};
use std::thread;
use std::time::{Duration, Instant};

use super::limits::Reached;
use super::watch::Watch;
use super::wire::{Gap, Order, Outcome, Reply, receive, send};
use super::{Ended, HELPER, Job, SandboxError, diagnose, helper, output};
use crate::base::{Cancel, trouble};

/// How soon a wish to stop is heard.
const PATIENCE: Duration = Duration::from_millis(20);
/// Lines on their way from the command; when so many wait, it must wait too.
const LINES_WAITING: usize = 256;
/// A sandbox that does not end in this time hangs in the kernel.
const LAST_PATIENCE: Duration = Duration::from_secs(20);

/// What is heard of a job while it runs.
#[derive(Debug)]
pub enum Said<'a> {
    /// A line that the command printed.
    Line(&'a str),
    /// The sandbox stands. This machine does not give what these sentences say; empty on most.
    Gaps(&'a [String]),
}

/// Runs a job to its end. `scratch` is an empty folder for the helper's own use. Once `cancel` is set or a limit is reached, every process of the job is killed;
/// in any case none is left when this returns.
pub fn run(job: &Job, scratch: &Path, cancel: &Cancel, hear: &mut dyn FnMut(Said)) -> Result<Ended, SandboxError> {
    let helper = helper().ok_or(SandboxError::NoHelper)?;
    let watch = Watch::new(&job.limits);
    let order = Order { job: job.clone(), helper: helper.to_path_buf(), scratch: scratch.to_path_buf(), groups: watch.entrances() };
    let (ours, theirs) = UnixStream::pair().map_err(failed("start the sandbox"))?;
    let child = Command::new(helper)
        .arg(HELPER)
        .env_clear()
        .process_group(0)
        .stdin(Stdio::from(OwnedFd::from(theirs)))
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(failed(format!("start `{}`", helper.display())))?;
    let mut run = Run { child, socket: ours, watch, outcome: None, gaps: Vec::new(), end: None };
    let heard = match run.listen(order) {
        Ok(heard) => heard,
        Err(error) => {
            // Nobody would hear what it says, and it would wait for ever to be heard.
            let _ended = run.child.kill().and_then(|()| run.child.wait());
            return Err(error);
        }
    };
    let followed = run.follow(&heard, cancel, hear);
    run.wait(&heard)?;
    followed?;
    run.result(job)
}

/// What the threads hear.
enum Heard {
    Line(String),
    Reply(Reply),
    /// No helper is left.
    HelperEnded,
    /// One of the command's streams has ended: nobody can write to it any more.
    StreamEnded,
}

struct Run<'a> {
    child: Child,
    /// As long as it is open, the sandbox may live.
    socket: UnixStream,
    watch: Watch<'a>,
    outcome: Option<Outcome>,
    gaps: Vec<Gap>,
    /// Why it was told to end.
    end: Option<End>,
}

enum End {
    Cancelled,
    Reached(Reached),
    /// The outer helper is gone, so nobody tells us any more what becomes of process 1.
    HelperLost,
}

impl Run<'_> {
    fn listen(&mut self, order: Order) -> Result<Receiver<Heard>, SandboxError> {
        let (sender, heard) = mpsc::sync_channel(LINES_WAITING);
        for stream in [self.child.stdout.take().map(OwnedFd::from), self.child.stderr.take().map(OwnedFd::from)].into_iter().flatten() {
            let sender = sender.clone();
            let listen = move || {
                output::forward(std::fs::File::from(stream), &mut |line| sender.send(Heard::Line(line)).is_ok());
                let _ = sender.send(Heard::StreamEnded);
            };
            thread::Builder::new().spawn(listen).map_err(failed("start a thread that listens to the command"))?;
        }
        let socket = self.socket.try_clone().map_err(failed("start the sandbox"))?;
        let talk = move || converse(&socket, &order, &sender);
        thread::Builder::new().spawn(talk).map_err(failed("start a thread for the sandbox"))?;
        Ok(heard)
    }

    /// Tells lines until no helper is left, which means that nobody is left in the sandbox.
    fn follow(&mut self, heard: &Receiver<Heard>, cancel: &Cancel, hear: &mut dyn FnMut(Said)) -> Result<(), SandboxError> {
        let mut streams = 2;
        let mut has_helper = true;
        let mut stopping: Option<Instant> = None;
        while has_helper || streams > 0 {
            match heard.recv_timeout(PATIENCE) {
                Ok(Heard::Line(line)) if !matches!(self.end, Some(End::Cancelled)) => hear(Said::Line(&line)),
                Ok(Heard::Line(_)) | Err(RecvTimeoutError::Timeout) => {}
                Ok(Heard::Reply(reply)) => self.reply(reply, hear),
                Ok(Heard::HelperEnded) => has_helper = false,
                Ok(Heard::StreamEnded) => streams -= 1,
                Err(RecvTimeoutError::Disconnected) => return Ok(()),
            }
            if self.end.is_none() {
                self.end = self.reason_to_stop(cancel);
            }
            if self.end.is_some() && stopping.is_none() {
                // Process 1 sees the end of the stream and exits; the kernel then kills all others in there.
                let _ = self.socket.shutdown(Shutdown::Write);
                stopping = Some(Instant::now());
            }
            if stopping.is_some_and(|since| since.elapsed() > LAST_PATIENCE) {
                let _ = self.child.kill();
                return Err(failed("stop the command")(io::Error::other("one of its processes does not end")));
            }
        }
        Ok(())
    }

    fn reply(&mut self, reply: Reply, hear: &mut dyn FnMut(Said)) {
        match reply {
            Reply::Started { init, is_grouped } => self.gaps.extend(self.watch.started(init, is_grouped)),
            Reply::Ready { gaps } => {
                self.gaps.extend(gaps);
                let texts: Vec<String> = self.gaps.iter().map(Gap::text).collect();
                hear(Said::Gaps(&texts));
            }
            Reply::Outcome(outcome) => self.outcome = Some(outcome),
        }
    }

    fn reason_to_stop(&mut self, cancel: &Cancel) -> Option<End> {
        if cancel.is_cancelled() {
            return Some(End::Cancelled);
        }
        if let Some(reached) = self.watch.look() {
            return Some(End::Reached(reached));
        }
        // Asked of the kernel each time, since process 1 keeps the socket open.
        let is_lost = self.outcome.is_none() && matches!(self.child.try_wait(), Ok(Some(status)) if !status.success());
        is_lost.then_some(End::HelperLost)
    }

    fn wait(&mut self, heard: &Receiver<Heard>) -> Result<(), SandboxError> {
        match self.child.wait() {
            Ok(_) => {}
            // Somebody told the kernel not to keep ended children for us.
            Err(error) if error.raw_os_error() == Some(libc::ECHILD) => {}
            Err(error) => return Err(failed("wait for the sandbox")(error)),
        }
        heard.try_iter().for_each(drop);
        Ok(())
    }

    fn result(self, job: &Job) -> Result<Ended, SandboxError> {
        if matches!(self.end, Some(End::Cancelled)) {
            return Err(SandboxError::Cancelled);
        }
        let reached = match self.end {
            Some(End::Reached(reached)) => Some(reached),
            _ => self.watch.last_look(),
        };
        if let Some(reached) = reached {
            return Err(SandboxError::Reached(reached));
        }
        match self.outcome {
            Some(Outcome::Ended(ended)) => Ok(ended),
            Some(Outcome::Unavailable { doing, error }) => {
                let help = diagnose::help(&doing);
                Err(SandboxError::Unavailable { doing, error, help })
            }
            Some(Outcome::NotStarted { error, errno }) => Err(not_started(job, error, errno.map(io::Error::from_raw_os_error))),
            None => {
                let error = "its first process was killed, perhaps for want of memory".to_string();
                let help = "see the kernel's log (`dmesg`)".to_string();
                Err(SandboxError::Unavailable { doing: "keep the sandbox alive".to_string(), error, help })
            }
        }
    }
}

fn not_started(job: &Job, why: String, error: Option<io::Error>) -> SandboxError {
    let program = job.command.first().cloned().unwrap_or_default();
    // No process or memory was to be had: no command of this step could be started, and the next attempt may go well.
    if let Some(error) = error.as_ref().filter(|error| trouble::thread_hint(error).is_some()) {
        return SandboxError::Io { doing: format!("start `{program}` in the sandbox"), error: trouble::copy(error) };
    }
    let is_missing = error.is_some_and(|error| error.kind() == io::ErrorKind::NotFound);
    let help =
        "the sandbox holds only the step's inputs, tools and root: is the program among them, and the loader or interpreter that it names?";
    SandboxError::NotStarted { program, error: why, help: is_missing.then(|| help.to_string()) }
}

/// Gives both helpers their orders and hears what they reply, until none is left.
fn converse(socket: &UnixStream, order: &Order, sender: &SyncSender<Heard>) {
    // A helper that ended at once is found below.
    let _ = send(socket, order).and_then(|()| send(socket, order));
    while let Ok(reply) = receive(socket) {
        if sender.send(Heard::Reply(reply)).is_err() {
            return;
        }
    }
    let _ = sender.send(Heard::HelperEnded);
}

fn failed(doing: impl Into<String>) -> impl FnOnce(io::Error) -> SandboxError {
    let doing = doing.into();
    move |error| SandboxError::Io { doing, error }
}
