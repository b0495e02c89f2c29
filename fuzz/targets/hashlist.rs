//! Reads hash lists of each format, and their prepared form.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| {
    mcs_hashlist::fuzz::input(input);
});
