//! A GGUF file: the container, and the model in it.
#![no_main]

use slmops::model::{Model, gguf};

// As in the target `tokenizer`.
libfuzzer_sys::fuzz_target!(init: std::panic::set_hook(Box::new(|_| ())), |data: &[u8]| {
    let path = slmops_fuzz::file("model.gguf", data);
    if gguf::Header::parse(data).is_ok()
        && let Ok(model) = Model::open(&path)
    {
        slmops_fuzz::answer(&model);
    }
});
