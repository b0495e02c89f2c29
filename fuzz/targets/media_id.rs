//! Parses a media identifier.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| {
    matrix_content_scanner::media::fuzz::media_id(input);
});
