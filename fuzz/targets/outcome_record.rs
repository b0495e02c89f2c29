//! Reads stored outcomes.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| {
    matrix_content_scanner::scan::engines::outcome_fuzz::check(input);
});
