//! The server's request key: reading or generating it, decrypting with it, and replacing it at a reload.

mod file;
mod request_key;
mod ring;

pub use request_key::{KeyError, KeyNotice, OpenError, PickleKey, RequestKey, Settings};
pub use ring::Keyring;
