//! Data as people have it: lines of JSON, or a text.
#![no_main]

use slmops::steps::dataset::record;

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    let _ = record::read(&[slmops_fuzz::file("data.jsonl", data)]);
    let _ = record::read(&[slmops_fuzz::file("data.txt", data)]);
});
