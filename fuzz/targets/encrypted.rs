//! A file whose contents may need a password.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| {
    matrix_content_scanner::scan::encrypted::fuzz::file(input);
});
