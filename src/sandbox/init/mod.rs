//! What the helper does, twice: outside, it enters new namespaces and starts itself again; inside, as process 1 of its own process namespace,
//! it builds the file tree ([`tree`]), gives all power away ([`power`]), runs the command and reaps what it leaves behind. When process 1 ends, so does all
//! else in there.

mod power;
mod tree;

use std::fs;
use std::io::{self, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::process::{Command, ExitCode, Stdio};

use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::fs::Mode;
use rustix::process::{Pid, PidfdFlags, WaitOptions, WaitStatus};
use rustix::thread::UnshareFlags;

use super::kernel::{self, Inherited};
use super::wire::{Gap, Order, Outcome, Reply, receive, send};
use super::{Ended, HELPER, Job};

/// The second argument of process 1.
const INSIDE: &str = "inside";
/// Orphans that have ended are reaped this often.
const REAPING: Timespec = Timespec { tv_sec: 0, tv_nsec: 20_000_000 };
/// Killed first when the machine runs out of memory.
const OOM_SCORE: &str = "500";

/// Runs the helper if this process was started as one; `main` calls it before anything else, while there is but one thread.
pub fn run_if_asked() -> Option<ExitCode> {
    let arguments: Vec<_> = std::env::args_os().skip(1).collect();
    match arguments.as_slice() {
        [first] if first == HELPER => Some(main(outside)),
        [first, second] if first == HELPER && second == INSIDE => Some(main(inside)),
        _ => None,
    }
}

fn main(role: fn(&Order, BorrowedFd) -> Result<Option<Outcome>, Refused>) -> ExitCode {
    let stdin = io::stdin();
    let socket = stdin.as_fd();
    // Before anything else: what slmops was started with is not for the sandbox.
    let closed = kernel::inherited_files(Inherited::Close);
    let order: Order = match receive(socket) {
        Ok(order) => order,
        Err(error) => {
            // Somebody typed the hidden command, or slmops is gone already.
            let _ = writeln!(io::stderr(), "`slmops {HELPER}` is started by slmops itself: {error}");
            return ExitCode::from(70);
        }
    };
    let outcome = closed.map_err(refused("close inherited files")).and_then(|()| role(&order, socket));
    let outcome = outcome.unwrap_or_else(|Refused { doing, error }| Some(Outcome::Unavailable { doing, error: error.to_string() }));
    if let Some(outcome) = outcome {
        // Nobody may be left to hear it.
        let _ = send(socket, &Reply::Outcome(outcome));
    }
    ExitCode::SUCCESS
}

/// The kernel said no.
struct Refused {
    doing: String,
    error: io::Error,
}

fn refused<E: Into<io::Error>>(doing: impl Into<String>) -> impl FnOnce(E) -> Refused {
    let doing = doing.into();
    move |error| Refused { doing, error: error.into() }
}

fn outside(order: &Order, socket: BorrowedFd) -> Result<Option<Outcome>, Refused> {
    kernel::default_signals();
    // A container may forbid the call, and the command's filter forbids all use of keys anyway.
    let _ = kernel::new_session_keyring();
    // Only root may drop its groups; others keep them, without a name.
    let _ = rustix::thread::set_thread_groups(&[]);
    let is_grouped = order.groups.iter().all(|group| fs::write(group, "0").is_ok());
    enter_namespaces()?;
    let mut child = Command::new(&order.helper)
        .args([HELPER, INSIDE])
        .env_clear()
        .stdin(Stdio::inherit())
        .spawn()
        .map_err(refused("start the first process of the sandbox"))?;
    let _ = send(socket, &Reply::Started { init: child.id(), is_grouped });
    child.wait().map_err(refused("wait for the sandbox"))?;
    Ok(None)
}

fn enter_namespaces() -> Result<(), Refused> {
    let (user, group) = (rustix::process::getuid().as_raw(), rustix::process::getgid().as_raw());
    let all = UnshareFlags::NEWUSER
        | UnshareFlags::NEWNS
        | UnshareFlags::NEWPID
        | UnshareFlags::NEWNET
        | UnshareFlags::NEWUTS
        | UnshareFlags::NEWIPC;
    #[expect(
        deprecated,
        reason = "only FILES makes it unsafe, which is not among the flags; so this crate stays without unsafe code here"
    )]
    rustix::thread::unshare(all).map_err(refused("make user, mount, process and network namespaces"))?;
    let map = |file: &str, text: String| fs::write(file, text).map_err(refused(format!("write {file}")));
    // Inside, everybody is 0 with the rights of whom slmops runs as: no name or number of the user is seen.
    map("/proc/self/setgroups", "deny".to_string())?;
    map("/proc/self/uid_map", format!("0 {user} 1\n"))?;
    map("/proc/self/gid_map", format!("0 {group} 1\n"))
}

fn inside(order: &Order, socket: BorrowedFd) -> Result<Option<Outcome>, Refused> {
    let job = &order.job;
    rustix::process::setsid().map_err(refused("leave the terminal"))?;
    rustix::process::umask(Mode::from_raw_mode(0o022));
    rustix::system::sethostname(b"slmops").map_err(refused("set the host name"))?;
    rustix::system::setdomainname(b"(none)").map_err(refused("set the domain name"))?;
    // More namespaces within this one are nobody's business. Kernels without the file have no such limit; that is no harm, the filter forbids them, too.
    let _ = fs::write("/proc/sys/user/max_user_namespaces", "0");
    // A higher score than this one is kept.
    let _ = fs::write("/proc/self/oom_score_adj", OOM_SCORE);
    tree::build(job, &order.scratch.join("root"))?;
    rustix::process::chdir(&job.working_folder).map_err(refused(format!("enter {}", job.working_folder)))?;
    let gaps: Vec<Gap> = power::give_away(job)?;
    send(socket, &Reply::Ready { gaps }).map_err(refused("talk to slmops"))?;
    Ok(run_command(job, socket))
}

fn run_command(job: &Job, socket: BorrowedFd) -> Option<Outcome> {
    let not_started = |error: &io::Error| Some(Outcome::NotStarted { error: error.to_string(), errno: error.raw_os_error() });
    let Some((program, arguments)) = job.command.split_first() else {
        return not_started(&io::Error::other("the command is empty"));
    };
    let started = Command::new(program).args(arguments).env_clear().envs(&job.environment).stdin(Stdio::null()).spawn();
    match started {
        Ok(child) => reap_until(child.id(), socket),
        Err(error) => not_started(&error),
    }
}

/// Process 1 inherits every orphan; whoever ends is waited for until the command itself has, or slmops is gone: then there is nobody to tell.
fn reap_until(command: u32, socket: BorrowedFd) -> Option<Outcome> {
    let command = i32::try_from(command).ok().and_then(Pid::from_raw);
    // Not on kernels before 5.3: the command's end is then noticed a moment later.
    let handle = command.and_then(|command| rustix::process::pidfd_open(command, PidfdFlags::empty()).ok());
    loop {
        match rustix::process::wait(WaitOptions::NOHANG) {
            Ok(Some((pid, status))) if Some(pid) == command => {
                if let Some(ended) = ended(status) {
                    return Some(Outcome::Ended(ended));
                }
            }
            Ok(Some(_)) | Err(rustix::io::Errno::INTR) => {}
            Ok(None) if is_left(socket, handle.as_ref()) => return None,
            Ok(None) => {}
            Err(error) => return Some(Outcome::Unavailable { doing: "wait for the command".to_string(), error: error.to_string() }),
        }
    }
}

fn ended(status: WaitStatus) -> Option<Ended> {
    match (status.exit_status(), status.terminating_signal()) {
        (Some(code), _) => Some(Ended::Exited(code)),
        (None, Some(signal)) => Some(Ended::Killed(signal)),
        (None, None) => None,
    }
}

/// Waits for the command's end, for the time to reap, or for slmops' end; says whether it is the last.
fn is_left(socket: BorrowedFd, command: Option<&OwnedFd>) -> bool {
    // slmops says nothing more: anything to read is the end of the stream.
    let mut polled = vec![PollFd::from_borrowed_fd(socket, PollFlags::IN)];
    polled.extend(command.map(|command| PollFd::new(command, PollFlags::IN)));
    match rustix::event::poll(&mut polled, Some(&REAPING)) {
        Ok(_) => polled.first().is_some_and(|socket| !socket.revents().is_empty()),
        Err(_) => false,
    }
}
