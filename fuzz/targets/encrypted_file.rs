//! Parses a body with an `EncryptedFile`.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| {
    matrix_content_scanner::http::fuzz::encrypted_file(input);
});
