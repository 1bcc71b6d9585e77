//! One binary drives every target, so that everything is built and linked once: `FUZZ_TARGET` says which.
#![no_main]

use std::sync::LazyLock;

static TARGET: LazyLock<fn(&[u8])> = LazyLock::new(|| {
    let name = std::env::var("FUZZ_TARGET").unwrap_or_default();
    match fuzz::target(&name) {
        Some(target) => target,
        None => panic!("FUZZ_TARGET must name a target, as the folders of fuzz/corpus do; it is {name:?}"),
    }
});

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| (*TARGET)(bytes));
