//! `[operations]`.

use super::{listen::Listen, prelude::*};

/// Validated `[operations]` section.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Settings {
    /// Address to listen on.
    pub listen: Listen,
}

/// `None` if the listener is disabled.
impl KeyGroup for Option<Settings> {
    fn read(section: &mut Section<'_, '_>) -> Option<Self> {
        let enabled = boolean().read(section, "enabled");
        let listen = Listen::read(section)?;
        Some(enabled?.then_some(Settings { listen }))
    }

    fn write(&self, lines: &mut Lines) {
        boolean().write(&self.is_some(), "enabled", lines);
        if let Some(settings) = self {
            settings.listen.write(lines);
        }
    }
}
