//! `slmops.lock`; what is understood must be written and understood again.
#![no_main]

use std::sync::Arc;

use slmops::base::SourceText;
use slmops::manifest::Lock;

libfuzzer_sys::fuzz_target!(|data: &str| {
    let text = |text: &str| Arc::new(SourceText::new("slmops.lock", text));
    match Lock::parse(&text(data)) {
        Ok(lock) => assert_eq!(Lock::parse(&text(&lock.to_toml())).ok(), Some(lock)),
        Err(diagnostics) => diagnostics.iter().for_each(|diagnostic| drop(diagnostic.render(false))),
    }
});
