//! Detects the type of a file.
#![no_main]

use std::sync::LazyLock;

use mcs_filetype::Detector;

static DETECTOR: LazyLock<Detector> = LazyLock::new(|| Detector::new().expect("rules"));

libfuzzer_sys::fuzz_target!(|input: &[u8]| {
    let detected = DETECTOR.detect_bytes(input);
    assert!(mcs_filetype::can_detect(detected.as_str()), "{detected}");
});
