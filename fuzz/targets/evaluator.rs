//! Loads any bytes as prepared rules, and evaluates the supplied rules on any bytes as a file.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| {
    mcs_evaluator::fuzz::input(input);
});
