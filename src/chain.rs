//! An error and its causes in one line, for the log and the terminal. Knows no error in particular.

use std::{error::Error, fmt};

/// Shows an error, and after it each of its causes. An error handed to the log as a value would lose
/// them in its JSON format.
#[derive(Clone, Copy, Debug)]
pub struct Chain<'a>(pub &'a (dyn Error + 'static));

impl fmt::Display for Chain<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)?;
        let mut cause = self.0.source();
        while let Some(error) = cause {
            write!(f, ": {error}")?;
            cause = error.source();
        }
        Ok(())
    }
}
