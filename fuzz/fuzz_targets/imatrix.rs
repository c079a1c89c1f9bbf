//! An importance matrix, in GGUF and in the older format.
#![no_main]

use slmops::model::Imatrix;

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    let _ = Imatrix::read(&slmops_fuzz::file("imatrix.gguf", data));
    let _ = Imatrix::read(&slmops_fuzz::file("imatrix.dat", data));
});
