//! `slmops.toml`, planned; what is wrong with it is shown.
#![no_main]

use slmops::plan::{self, Options};

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    let path = slmops_fuzz::file("slmops.toml", data);
    if let Err(diagnostics) = plan::load(&path, &Options::default()) {
        assert!(!diagnostics.is_empty());
        diagnostics.iter().for_each(|diagnostic| drop((diagnostic.render(false), diagnostic.to_json())));
    }
});
