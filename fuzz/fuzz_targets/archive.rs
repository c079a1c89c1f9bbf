//! `slmops cache import`.
#![no_main]

use std::sync::OnceLock;

use slmops::store::Store;

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    static STORE: OnceLock<Store> = OnceLock::new();
    let store = STORE.get_or_init(|| Store::open(&slmops_fuzz::scratch().join("store")).expect("a store"));
    let _ = store.import(data);
});
