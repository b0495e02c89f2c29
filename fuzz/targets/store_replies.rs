//! Checks and decodes replies of a server of the shared store.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| {
    mcs_store::fuzz::replies(input);
});
