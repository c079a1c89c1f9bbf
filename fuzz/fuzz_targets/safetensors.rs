//! The weights of a Hugging Face folder, loaded and mapped. What is mapped is not read before it is used: a number that is none is found by loading alone.
#![no_main]

use slmops::model::safetensors;

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    slmops_fuzz::file("model.safetensors", data);
    let config = slmops_fuzz::tiny();
    let loaded = safetensors::read_folder(slmops_fuzz::scratch(), &config);
    let mapped = safetensors::open_folder(slmops_fuzz::scratch(), &config);
    assert!(mapped.is_ok() || loaded.is_err());
});
