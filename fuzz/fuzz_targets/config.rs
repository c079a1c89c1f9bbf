//! `config.json`; what is understood must be written and understood again.
#![no_main]

use slmops::model::Config;

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    if let Ok(config) = Config::from_json(data) {
        let again = Config::from_json(&config.to_json()).expect("what was written is read");
        assert_eq!(config, again);
    }
});
