//! `[crypto]`: exactly one source of the request key, by default a systemd credential, and how long a
//! replaced key stays valid.

use std::time::Duration;

use super::{
    paths,
    reader::Reader,
    types::{MAX_DURATION, boolean, duration, secret},
};
use crate::keys::{PickleKey, Settings};

const SECRET: &str = "request_secret_path";
const PICKLE: &str = "pickle_path";
const PICKLE_KEY: &str = "pickle_key";
const GENERATE: &str = "generate";

/// systemd credential that is used if the configuration names no source.
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
        crypto.missing(PICKLE_KEY, "the passphrase of the pickle, since pickle_path is set");
    } else if has_key && !has_pickle {
        crypto.missing(PICKLE, "the path of the pickle, since pickle_key is set");
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
    let ttl = crypto.read("previous_key_ttl", duration(Duration::ZERO..=MAX_DURATION));
    ttl.unwrap_or(Duration::from_secs(24 * 60 * 60))
}
