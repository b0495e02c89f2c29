//! An ICAP server's answer.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| {
    matrix_content_scanner::scan::engines::icap::fuzz::answer(input);
});
