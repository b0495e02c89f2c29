//! Loading never panics, and displayed values parse to the same value.

use std::time::Duration;

use proptest::prelude::*;

use super::*;

proptest! {
    #[test]
    fn arbitrary_text_does_not_panic(text in ".{0,200}", value in ".{0,60}") {
        let dir = ConfigDir::new();
        let _ = dir.load_with(&text, &[("MCS_SCAN__TIMEOUT", &value)]);
    }

    #[test]
    fn arbitrary_value_does_not_panic(
        key in prop::sample::select(known()),
        value in prop_oneof![
            ".{0,60}",
            "[0-9]{1,25} ?[smhdywKMGTPi]{0,3}B?( [0-9]{1,20}(s|ms|us|ns))?",
            "[\\[{\"'0-9a-z.:/ =,}\\]-]{0,40}",
        ],
    ) {
        let name = format!("MCS_{}__{}", key.0, key.1).to_uppercase();
        if let Err(errors) = environment(&[(&name, &value)]) {
            prop_assert!(!errors.problems().is_empty());
        }
    }

    #[test]
    fn displayed_durations_parse_to_same_value(millis in 0..=types::MAX_DURATION.as_secs() * 1000) {
        let duration = Duration::from_millis(millis);
        let line = format!("result_cache.ttl = \"{}\"", format::duration(duration));
        prop_assert_eq!(ConfigDir::new().load_valid(&line).result_cache.ttl, duration);
    }

    #[test]
    fn displayed_sizes_parse_to_same_value(
        mantissa in 0_u64..=1000,
        unit in prop::sample::select(vec![1, 1000, 1024, 1_000_000, 1 << 20, 1 << 30]),
    ) {
        let bytes = mantissa * unit;
        for line in [format::size(bytes), bytes.to_string()] {
            let line = format!("result_cache.max_file_size = \"{line}\"");
            prop_assert_eq!(ConfigDir::new().load_valid(&line).result_cache.max_file_size, bytes);
        }
    }
}

pub(super) fn known() -> Vec<(&'static str, &'static str)> {
    let sources = Sources::from_text("", Path::new("/"));
    Config::read(sources.parse(ROOT).unwrap()).1.known
}

#[test]
fn rejects_overflowing_durations_and_sizes() {
    let dir = ConfigDir::new();
    for text in ["18446744073709551615s 1000ms", "584542046090y", "99999999999999999999d"] {
        assert!(dir.load(&format!("scan.timeout = \"{text}\"")).is_err());
    }
    for text in ["1.2.3MB", "99999999999999999999999EB", "-1", "1e3", "MB"] {
        assert!(dir.load(&format!("download.max_size = \"{text}\"")).is_err(), "{text}");
    }
}

#[test]
fn rejects_deep_nesting() {
    let deep = format!("web.port = {}", "[".repeat(100_000));
    assert!(ConfigDir::new().load(&deep).is_err());
    assert!(environment(&[("MCS_WEB__PORT", &"{a=".repeat(100_000))]).is_err());
}
