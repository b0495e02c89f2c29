//! Parses responses of an ICAP server.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| {
    matrix_content_scanner::scan::engines::icap::fuzz::check(input);
});
