//! `[[notify]]`: each table is one target. In a variable, and in the output of `check-config`, the tables are the list
//! `notify.targets`.

use std::path::PathBuf;

use reqwest::Url;
use url::Host;

use super::{
    download::{base_url, format_url, http_url},
    prelude::*,
};
use crate::config::problem::InvalidValue;

/// Maximum length of a room ID, bytes (Matrix specification, appendices, section "Common identifier format").
const MAX_ROOM_ID: usize = 255;

settings! {
    /// The targets of notifications.
    #[derive(Clone, PartialEq, Eq, Debug)]
    pub struct Settings {
        /// Each target gets a notification of each incident.
        // Opaque, because the address of a webhook may contain a secret.
        pub targets: Vec<NotifyTarget> = list(target()).or_else(Vec::new).opaque(),
    }
}

/// A target of notifications.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct NotifyTarget {
    /// Where notifications are sent.
    pub address: NotifyAddress,
    /// Whether notifications contain names of files.
    pub personal_data: bool,
}

/// Where notifications are sent.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum NotifyAddress {
    /// Signed JSON to a web service.
    Webhook {
        /// https, or http to this machine.
        url: Url,
        /// File with the key of the signatures.
        secret_path: PathBuf,
    },
    /// A message in a Matrix room.
    Room {
        /// ID of the room.
        room: String,
        /// Base URL of the homeserver of the sender.
        homeserver: Url,
        /// File with the access token of the sender, which is a member of the room.
        token_path: PathBuf,
    },
}

impl NotifyAddress {
    /// Returns the file with the secret, and its key.
    #[must_use]
    pub fn secret_file(&self) -> (&'static str, &PathBuf) {
        match self {
            Self::Webhook { secret_path, .. } => ("notify.targets.secret_path", secret_path),
            Self::Room { token_path, .. } => ("notify.targets.token_path", token_path),
        }
    }
}

/// The keys of one target, as far as they are set.
#[derive(Default)]
struct TargetKeys {
    webhook: Option<Url>,
    secret_path: Option<PathBuf>,
    room: Option<String>,
    homeserver: Option<Url>,
    token_path: Option<PathBuf>,
    personal_data: bool,
}

/// Sets one key.
type SetKey = Box<dyn FnOnce(&mut TargetKeys)>;

fn target() -> Key<NotifyTarget> {
    Key::new(parse, |target: &NotifyTarget| {
        let mut keys = match &target.address {
            NotifyAddress::Webhook { url, secret_path } => {
                vec![("webhook", format_webhook(url)), ("secret_path", format::path(secret_path))]
            }
            NotifyAddress::Room { room, homeserver, token_path } => vec![
                ("room", format::quoted(room)),
                ("homeserver", format_url(homeserver)),
                ("token_path", format::path(token_path)),
            ],
        };
        keys.push(("personal_data", target.personal_data.to_string()));
        format::table(keys.into_iter())
    })
}

fn parse(value: RawValue<'_>) -> ParseResult<NotifyTarget> {
    let mut keys = TargetKeys::default();
    for set in parse_table(value, parse_key)? {
        set(&mut keys);
    }
    let TargetKeys { webhook, secret_path, room, homeserver, token_path, personal_data } = keys;
    let address = match (webhook, secret_path, room, homeserver, token_path) {
        (Some(url), Some(secret_path), None, None, None) => {
            NotifyAddress::Webhook { url, secret_path }
        }
        (None, None, Some(room), Some(homeserver), Some(token_path)) => {
            NotifyAddress::Room { room, homeserver, token_path }
        }
        _ => {
            let expected = "either webhook and secret_path, or room, homeserver and token_path";
            return Err(InvalidValue::single("other keys", expected));
        }
    };
    Ok(NotifyTarget { address, personal_data })
}

fn parse_key(name: &str, value: RawValue<'_>) -> ParseResult<SetKey> {
    Ok(match name {
        "webhook" => {
            let url = webhook(value)?;
            Box::new(|keys| keys.webhook = Some(url))
        }
        "secret_path" => {
            let path = paths::path(value)?;
            Box::new(|keys| keys.secret_path = Some(path))
        }
        "room" => {
            let room = room(value)?;
            Box::new(|keys| keys.room = Some(room))
        }
        "homeserver" => {
            let url = base_url(value)?;
            Box::new(|keys| keys.homeserver = Some(url))
        }
        "token_path" => {
            let path = paths::path(value)?;
            Box::new(|keys| keys.token_path = Some(path))
        }
        "personal_data" => {
            let personal_data = boolean().parse(value)?;
            Box::new(move |keys| keys.personal_data = personal_data)
        }
        _ => {
            let expected = "webhook, secret_path, room, homeserver, token_path or personal_data";
            return Err(InvalidValue::single("an unknown key", expected));
        }
    })
}

/// Parses the address of a webhook: https, or http to this machine. Errors hide it, since it may contain a secret.
fn webhook(value: RawValue<'_>) -> ParseResult<Url> {
    const EXPECTED: &str = "an https URL without user and password, or an http URL of this machine";
    match http_url(value) {
        Ok(url)
            if url.username().is_empty()
                && url.password().is_none()
                && (url.scheme() == "https" || is_loopback(&url)) =>
        {
            Ok(url)
        }
        _ => value.invalid_secret(EXPECTED),
    }
}

fn is_loopback(url: &Url) -> bool {
    match url.host() {
        Some(Host::Domain(name)) => name == "localhost",
        Some(Host::Ipv4(address)) => address.is_loopback(),
        Some(Host::Ipv6(address)) => address.is_loopback(),
        None => false,
    }
}

fn format_webhook(url: &Url) -> String {
    let origin = url.origin().ascii_serialization();
    format::quoted(&format!("{origin}/{}", format::SECRET))
}

fn room(value: RawValue<'_>) -> ParseResult<String> {
    let is_room = |text: &&str| {
        text.len() > 1
            && text.len() <= MAX_ROOM_ID
            && text.starts_with('!')
            && !text.contains(|c: char| c.is_whitespace() || c.is_control())
    };
    match value.text().filter(is_room) {
        Some(room) => Ok(room.to_owned()),
        None => value.invalid("the ID of a room, like \"!abc:example.org\""),
    }
}
