//! Parses responses of clamd.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| {
    matrix_content_scanner::scan::engines::clamd::fuzz::check(input);
});
