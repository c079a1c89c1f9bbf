//! The `recipe.json` of `fit`, which people edit.
#![no_main]

use slmops::steps::quantize::rules::Pinned;

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    let _ = Pinned::read(&slmops_fuzz::file("recipe.json", data));
});
