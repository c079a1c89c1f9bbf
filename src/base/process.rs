//! What a process must settle before it works: which signals it hears, and how it ends where the system would kill it without a word.

use std::io;
use std::mem::MaybeUninit;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use super::Exit;

/// A write beyond `ulimit -f` becomes an error that is told, not the end of the process. Those that it starts are not concerned: a handler, unlike
/// an ignored signal, is not passed on.
pub fn survive_file_size_limit() {
    if !is_ignored(libc::SIGXFSZ) {
        // Without it, the signal ends the process as it always did.
        let _ = signal_hook::flag::register(libc::SIGXFSZ, Arc::default());
    }
}

/// A thread that gets no memory for the stack on which its signals are handled ends the process with exit code 3. Rust's own library panics there, in a place
/// where a panic aborts. For the first thread, it does so before `main`: that one is beyond our reach.
pub fn explain_threads_without_memory() {
    let usual = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        if panic.location().is_some_and(|location| location.file().ends_with("/stack_overflow.rs")) {
            say_and_end(&[
                b"error: out of memory: the system did not give a new thread its stack for signals\n",
                b"  help: free memory, raise the limit of this shell (`ulimit -v`), or use fewer threads (`-j`)\n",
            ]);
        }
        usual(panic);
    }));
}

/// Ends the process with exit code 3. It asks for no memory and calls nothing but what POSIX calls async-signal-safe.
pub fn say_and_end(parts: &[&[u8]]) -> ! {
    for part in parts {
        // SAFETY: the pointer and the length are those of a slice. A write that fails changes nothing.
        let _ = unsafe { libc::write(libc::STDERR_FILENO, part.as_ptr().cast(), part.len()) };
    }
    // SAFETY: it ends the process without running anything else of it.
    unsafe { libc::_exit(libc::c_int::from(Exit::Environment.code())) }
}

/// SIGINT, SIGTERM and SIGHUP set `flag`; when it is set already, they end the process at once. One that whoever started us ignores (`nohup`, a job in
/// the background of a script) stays ignored.
pub fn stop_on_signals(flag: &Arc<AtomicBool>) -> io::Result<()> {
    for signal in [libc::SIGINT, libc::SIGTERM, libc::SIGHUP] {
        if !is_ignored(signal) {
            // In this order, so that the first one does not end the process.
            signal_hook::flag::register_conditional_shutdown(signal, i32::from(Exit::Interrupted.code()), Arc::clone(flag))?;
            signal_hook::flag::register(signal, Arc::clone(flag))?;
        }
    }
    Ok(())
}

/// Whether a signal is ignored, as whoever started us has left it.
fn is_ignored(signal: libc::c_int) -> bool {
    let mut action = MaybeUninit::<libc::sigaction>::uninit();
    // SAFETY: without a new action, the call only fills in the old one, for which there is room.
    let known = unsafe { libc::sigaction(signal, std::ptr::null(), action.as_mut_ptr()) } == 0;
    // SAFETY: it was filled in if the call succeeded.
    known && unsafe { action.assume_init() }.sa_sigaction == libc::SIG_IGN
}
