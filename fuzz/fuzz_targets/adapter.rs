//! A LoRA adapter as PEFT keeps it: the first line is its `adapter_config.json`, the rest its `adapter_model.safetensors`.
#![no_main]

use slmops::model::Adapter;

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    let cut = data.iter().position(|byte| *byte == b'\n').unwrap_or(data.len());
    slmops_fuzz::file("adapter_config.json", &data[..cut]);
    slmops_fuzz::file("adapter_model.safetensors", data.get(cut + 1..).unwrap_or_default());
    let _ = Adapter::load(slmops_fuzz::scratch(), &slmops_fuzz::tiny());
});
