//! Migrates a file as the configuration of an earlier scanner.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| {
    matrix_content_scanner::config::fuzz::old_file(input);
});
