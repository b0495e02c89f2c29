//! The server's request key: reading or generating it, decrypting with it, and replacing it at a reload.

mod file;
mod notice;
mod request_key;
mod ring;

pub use file::read_secret;
pub use notice::KeyNotice;
pub use request_key::{KeyError, OpenError, PickleKey, RequestKey, Settings};
pub use ring::Keyring;
