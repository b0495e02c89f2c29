//! Opens sealed records of the store.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| {
    mcs_store::fuzz::input(input);
});
