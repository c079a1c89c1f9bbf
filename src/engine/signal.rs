//! Ctrl-C and its like: the first asks the build to end, the second ends the process.

use crate::base::{Cancel, process};
use crate::steps::Failure;

/// From now on, SIGINT, SIGTERM and SIGHUP set `cancel`; a second one ends the process at once. What is half done is in `tmp/` and goes with the next build. A
/// signal that is ignored (`nohup`) stays ignored.
pub fn cancel_on_signal(cancel: &Cancel) -> Result<(), Failure> {
    process::stop_on_signals(cancel.flag()).map_err(|error| Failure::io("cannot listen for signals", &error))
}
