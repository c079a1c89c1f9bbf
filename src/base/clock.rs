//! The machine's clock, for ages and for time stamps. It must not reach an output.

use std::time::{SystemTime, UNIX_EPOCH};

/// Nanoseconds since 1970, as local file systems stamp files.
#[expect(clippy::disallowed_methods, reason = "this is the one place that asks, for the ages of files")]
pub fn now_ns() -> i128 {
    match SystemTime::now().duration_since(UNIX_EPOCH) {
        Ok(since) => i128::try_from(since.as_nanos()).unwrap_or(i128::MAX),
        Err(before) => -i128::try_from(before.duration().as_nanos()).unwrap_or(i128::MAX),
    }
}

/// Another text after each start of the machine. None where the kernel does not say.
pub fn boot_id() -> Option<String> {
    let text = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").ok()?;
    Some(text.trim().to_string()).filter(|id| !id.is_empty() && !id.contains(char::is_whitespace))
}
