//! Progress line on a terminal.

use std::{
    io::{self, IsTerminal, Write},
    pin::pin,
    time::Duration,
};

use tokio::time::{Instant, interval_at};

/// Minimum duration of work before a progress line appears.
const PROGRESS_DELAY: Duration = Duration::from_millis(500);

/// Width of a terminal whose size is unknown.
const DEFAULT_COLUMNS: u16 = 80;

/// Awaits `work`. If standard error is a terminal and the work takes longer than half a second, a line there shows
/// the elapsed time and `description` until the work ends.
pub(super) async fn with_progress<T>(description: &str, work: impl Future<Output = T>) -> T {
    if !io::stderr().is_terminal() {
        return work.await;
    }
    let start = Instant::now();
    let mut ticks = interval_at(start + PROGRESS_DELAY, Duration::from_secs(1));
    let (mut work, mut line) = (pin!(work), ProgressLine::default());
    loop {
        tokio::select! {
            result = &mut work => return result,
            _ = ticks.tick() => line.show(&format!("{} s: {description}", start.elapsed().as_secs())),
        }
    }
}

/// Progress line. Cleared with spaces rather than an escape sequence, which a terminal may not support.
#[derive(Default)]
struct ProgressLine {
    width: usize,
}

impl ProgressLine {
    fn show(&mut self, text: &str) {
        let columns = terminal_size::terminal_size_of(io::stderr())
            .map_or(DEFAULT_COLUMNS, |(width, _)| width.0);
        // Some terminals wrap a line that uses the last column.
        let (text, width) = truncate(text, usize::from(columns).saturating_sub(1));
        let rest = self.width.saturating_sub(width);
        self.width = width;
        Self::write(&format!("\r{text}{:rest$}\r", ""));
    }

    fn write(text: &str) {
        let _ignored = io::stderr().lock().write_all(text.as_bytes());
    }
}

impl Drop for ProgressLine {
    fn drop(&mut self) {
        if self.width > 0 {
            Self::write(&format!("\r{:1$}\r", "", self.width));
        }
    }
}

/// Truncates text to `columns` and returns it with its maximum width, counting two columns for each non-ASCII
/// character.
fn truncate(text: &str, columns: usize) -> (String, usize) {
    let (mut truncated, mut width) = (String::new(), 0);
    for character in text.chars() {
        let new_width = width + if character.is_ascii() { 1 } else { 2 };
        if new_width > columns {
            break;
        }
        truncated.push(character);
        width = new_width;
    }
    (truncated, width)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn truncates_to_terminal_width() {
        assert_eq!(truncate("scanning", 4), ("scan".to_owned(), 4));
        assert_eq!(truncate("a文書", 4), ("a文".to_owned(), 3));
        assert_eq!(truncate("a", 0), (String::new(), 0));
    }
}
