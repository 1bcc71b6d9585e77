//! Every binary of this crate is made of this file; its name says which target it drives.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| fuzz::drive(env!("CARGO_BIN_NAME"), bytes));
