//! Parses responses of an ICAP server.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| {
    mcs_icap::fuzz::check(input);
});
