//! Detects encrypted contents in a file.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| {
    matrix_content_scanner::scan::encrypted::fuzz::check(input);
});
