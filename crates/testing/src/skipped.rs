//! Tests that cannot run on this machine.

/// Reports a skipped test and the reason. `./test` counts these reports.
pub fn report_skipped(test: &str, reason: &str) {
    use std::io::Write as _;
    eprintln!("SKIPPED {test}: {reason}");
    if let Some(list) = std::env::var_os("SKIPPED_TESTS") {
        let mut list = std::fs::File::options().append(true).open(list).unwrap();
        // A single write(2), because other tests append concurrently.
        list.write_all(format!("{test}: {reason}\n").as_bytes()).unwrap();
    }
}
