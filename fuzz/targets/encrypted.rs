//! Detects encrypted contents in a file.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| {
    mcs_evaluator::encrypted::fuzz::check(input);
});
