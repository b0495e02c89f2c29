//! `[incident]`.

use std::time::Duration;

use super::prelude::*;

settings! {
    /// Settings of all incidents.
    #[derive(Clone, PartialEq, Eq, Debug)]
    pub struct Settings {
        /// How long the names of media are kept by content, and how long an incident is not created again.
        pub keep: Duration = duration(SECOND..=MAX_DURATION),
    }
}
