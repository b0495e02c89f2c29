//! `[quarantine]`.

use std::path::PathBuf;

use reqwest::Url;

use super::{
    download::{base_url, format_url},
    prelude::*,
};

/// `[quarantine]`, checked.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Settings {
    /// Kind of the homeserver.
    pub at: QuarantineApi,
    /// Base URL of the admin API, if it is another one than that of the homeserver.
    pub base_url: Option<Url>,
    /// Maximum number of calls a second.
    pub rate: u32,
    /// File with the token of an administrator of the homeserver.
    pub token_path: PathBuf,
}

/// Admin API that quarantines media.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum QuarantineApi {
    /// Of Synapse.
    Synapse,
    /// Of matrix-media-repo.
    MediaRepo,
}

/// `None` if nothing is quarantined.
impl KeyGroup for Option<Settings> {
    fn read(section: &mut Section<'_, '_>) -> Option<Self> {
        let at = at().read(section, "at");
        let base_url = url().read(section, "base_url");
        let rate = rate().read(section, "rate");
        let token_path = token_path().read(section, "token_path");
        let Some(at) = at? else { return Some(None) };
        if token_path == Some(None) {
            section.missing(
                "token_path",
                "the path of a file with the access token of an administrator of the homeserver",
            );
        }
        Some(Some(Settings { at, base_url: base_url?, rate: rate?, token_path: token_path?? }))
    }

    fn write(&self, lines: &mut Lines) {
        at().write(&self.as_ref().map(|settings| settings.at), "at", lines);
        if let Some(settings) = self {
            url().write(&settings.base_url, "base_url", lines);
            rate().write(&settings.rate, "rate", lines);
            token_path().write(&Some(settings.token_path.clone()), "token_path", lines);
        }
    }
}

fn at() -> Key<Option<QuarantineApi>> {
    choice([
        ("off", None),
        ("synapse", Some(QuarantineApi::Synapse)),
        ("media-repo", Some(QuarantineApi::MediaRepo)),
    ])
}

fn url() -> Key<Option<Url>> {
    optional(Key::new(base_url, format_url))
}

fn rate() -> Key<u32> {
    integer(1..=1000)
}

fn token_path() -> Key<Option<PathBuf>> {
    optional(paths::key(paths::path))
}
