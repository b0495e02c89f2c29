//! Builds a `Content-Disposition`.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| {
    matrix_content_scanner::http::fuzz::disposition(input);
});
