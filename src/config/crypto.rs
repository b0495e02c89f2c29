//! `[crypto]`: exactly one source of the request key, or else a credential of systemd's, and how long
//! a replaced key is good.

use std::time::Duration;

use super::{
    kinds::{LONGEST, boolean, duration, secret},
    paths,
    reader::Reader,
};
use crate::keys::{PickleKey, Settings};

const SECRET: &str = "request_secret_path";
const PICKLE: &str = "pickle_path";
const PICKLE_KEY: &str = "pickle_key";
const GENERATE: &str = "generate";

/// Of systemd's: counts where the configuration names no source.
const CREDENTIAL: &str = "matrix-content-scanner.request_secret";

pub(super) fn read(reader: &mut Reader<'_>) -> Option<Settings> {
    let credential = reader.credential(CREDENTIAL);
    let mut crypto = reader.section("crypto");
    let secret_path = crypto.read(SECRET, paths::path);
    let pickle_path = crypto.read(PICKLE, paths::path);
    let pickle_key = crypto.read(PICKLE_KEY, secret).map(PickleKey::new);
    let generate = crypto.read(GENERATE, boolean).unwrap_or_default();

    let [has_secret, has_pickle, has_key] = [SECRET, PICKLE, PICKLE_KEY].map(|key| crypto.has(key));
    if has_secret && (has_pickle || has_key) {
        let key = if has_pickle { PICKLE } else { PICKLE_KEY };
        crypto.conflict(key, format!("found beside {SECRET}, expected one source of the key"));
    } else if has_pickle && !has_key {
        crypto.missing(PICKLE_KEY, "what the pickle is encrypted with, since pickle_path is set");
    } else if has_key && !has_pickle {
        crypto.missing(PICKLE, "the pickle's path, since pickle_key is set");
    } else if !has_secret && !has_pickle && credential.is_none() {
        crypto.missing(SECRET, "the path of the request key, or pickle_path and pickle_key");
    }
    if generate && has_pickle && !has_secret {
        crypto.conflict(
            GENERATE,
            format!("found true beside {PICKLE}, expected false: only {SECRET} is generated"),
        );
    }
    if generate && !has_secret && !has_pickle && credential.is_some() {
        let message =
            format!("found true without {SECRET}, expected false: the key is a credential");
        crypto.conflict(GENERATE, message);
    }
    match (secret_path, pickle_path, pickle_key) {
        (None, None, None) if !has_secret && !has_pickle && !has_key => {
            credential.map(|path| Settings::RequestSecret { path, generate: false })
        }
        (Some(path), ..) => Some(Settings::RequestSecret { path, generate }),
        (None, Some(path), Some(key)) => Some(Settings::Pickle { path, key }),
        _ => None,
    }
}

pub(super) fn previous_key_ttl(reader: &mut Reader<'_>) -> Duration {
    let mut crypto = reader.section("crypto");
    let written = crypto.read("previous_key_ttl", duration(Duration::ZERO..=LONGEST));
    written.unwrap_or(Duration::from_secs(24 * 60 * 60))
}
