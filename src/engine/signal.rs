//! Ctrl-C and its like: the first asks the build to end, the second ends the process.

use tokio::signal::unix::{SignalKind, signal};

use crate::base::{Cancel, Exit};
use crate::steps::Failure;

/// From now on, SIGINT, SIGTERM and SIGHUP set `cancel`; a second one ends the process at once. What is half done is in `tmp/` and goes with the next build.
pub fn cancel_on_signal(cancel: &Cancel) -> Result<(), Failure> {
    let cancel = cancel.clone();
    let failed = |error| Failure::environment(format!("cannot listen for signals: {error}"));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build().map_err(failed)?;
    std::thread::Builder::new()
        .name("signals".to_string())
        .spawn(move || {
            runtime.block_on(async {
                let listen = || Ok((signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?, signal(SignalKind::hangup())?));
                let Ok::<_, std::io::Error>((mut interrupt, mut terminate, mut hangup)) = listen() else { return };
                loop {
                    tokio::select! {
                        _ = interrupt.recv() => {}
                        _ = terminate.recv() => {}
                        _ = hangup.recv() => {}
                    }
                    if cancel.is_cancelled() {
                        std::process::exit(i32::from(Exit::Interrupted.code()));
                    }
                    cancel.cancel();
                }
            });
        })
        .map(drop)
        .map_err(failed)
}
