//! `tokenizer.json`; a text that it takes apart is put together again.
#![no_main]

use slmops::model::Tokenizer;

// The `tokenizers` crate panics on some files, which slmops catches and tells; libFuzzer's hook would abort at once.
libfuzzer_sys::fuzz_target!(init: std::panic::set_hook(Box::new(|_| ())), |data: &[u8]| {
    if let Ok(tokenizer) = Tokenizer::from_json(data) {
        let tokens = tokenizer.encode("Where is 北京, at 10:30?\n").unwrap_or_default();
        let _ = tokenizer.decode(&tokens);
        let _ = tokenizer.config_json(None);
    }
});
