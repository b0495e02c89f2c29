//! The secret tokens of operators.

use std::{path::Path, sync::Arc};

use arc_swap::ArcSwap;
use sha2::{Digest as _, Sha256};
use subtle::{ConditionallySelectable as _, ConstantTimeEq as _};
use tracing::info;
use zeroize::Zeroizing;

use super::token_list;
use crate::token_file::FileAccess;

pub use crate::token_file::TokenError;

/// The tokens of a file, as digests. At least one.
#[derive(Debug)]
pub struct AdminTokenList(Vec<AdminToken>);

/// Digest of a token. `Debug` prints nothing of it.
#[derive(Clone)]
struct AdminToken {
    identity: TokenIdentity,
    digest: [u8; 32],
}

/// The token that a request or a session was authenticated with.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct TokenIdentity {
    /// Never given to another token, and not to the same one after it was removed.
    pub(super) id: u64,
    pub(super) name: Arc<str>,
}

/// The tokens in force, which a reload replaces. Cheap to clone.
#[derive(Clone, Debug)]
pub struct AdminTokens(Arc<ArcSwap<TokensInForce>>);

#[derive(Debug)]
struct TokensInForce {
    tokens: Vec<AdminToken>,
    next_id: u64,
}

impl AdminTokenList {
    /// Reads the tokens. Blocks.
    ///
    /// # Errors
    /// If the file cannot be read, others can use it, or it contains anything else.
    pub fn load(path: &Path) -> Result<Self, TokenError> {
        let tokens = token_list::read(path, FileAccess::Private)?.into_iter();
        let tokens = tokens.map(|named| AdminToken {
            identity: TokenIdentity { id: 0, name: named.name.into() },
            digest: digest(named.token.as_bytes()),
        });
        Ok(Self(tokens.collect()))
    }

    /// Returns the number of tokens.
    #[must_use]
    #[expect(clippy::len_without_is_empty, reason = "there is at least one")]
    pub fn len(&self) -> usize {
        self.0.len()
    }
}

impl AdminTokens {
    #[must_use]
    pub fn new(list: AdminTokenList) -> Self {
        let none = TokensInForce { tokens: Vec::new(), next_id: 0 };
        Self(Arc::new(ArcSwap::from_pointee(none.followed_by(list))))
    }

    /// Puts other tokens into force. Sessions of removed tokens end.
    pub fn replace(&self, list: AdminTokenList) {
        let before = self.0.load_full();
        let after = before.followed_by(list);
        let missing_in = |one: &TokensInForce, other: &TokensInForce| -> Vec<Arc<str>> {
            let missing = one.tokens.iter().filter(|token| other.name(token.identity.id).is_none());
            missing.map(|token| Arc::clone(&token.identity.name)).collect()
        };
        let (added, removed) = (missing_in(&after, &before), missing_in(&before, &after));
        if !added.is_empty() || !removed.is_empty() {
            info!(
                added = added.join(", "),
                removed = removed.join(", "),
                "tokens of [admin] changed"
            );
        }
        self.0.store(Arc::new(after));
    }

    /// Returns which token this is. The time does not depend on the tokens.
    pub(super) fn find(&self, token: &[u8]) -> Option<TokenIdentity> {
        let digest = digest(token);
        let in_force = self.0.load();
        let mut found = u32::MAX;
        for (index, token) in (0..).zip(&in_force.tokens) {
            found.conditional_assign(&index, token.digest.ct_eq(&digest));
        }
        let found = in_force.tokens.get(usize::try_from(found).ok()?);
        found.map(|token| token.identity.clone())
    }

    /// Returns the name of a token that is still in force.
    pub(super) fn name(&self, id: u64) -> Option<Arc<str>> {
        self.0.load().name(id)
    }
}

impl TokensInForce {
    /// Returns the tokens of a list. Those that are in force already keep their ids.
    fn followed_by(&self, list: AdminTokenList) -> Self {
        let (mut tokens, mut next_id) = (list.0, self.next_id);
        for token in &mut tokens {
            let same = self.tokens.iter().find(|other| other.digest.ct_eq(&token.digest).into());
            token.identity.id = same.map_or(next_id, |same| same.identity.id);
            next_id += u64::from(same.is_none());
        }
        Self { tokens, next_id }
    }

    fn name(&self, id: u64) -> Option<Arc<str>> {
        let token = self.tokens.iter().find(|token| token.identity.id == id);
        token.map(|token| Arc::clone(&token.identity.name))
    }
}

fn digest(token: &[u8]) -> [u8; 32] {
    Sha256::digest(token).into()
}

impl std::fmt::Debug for AdminToken {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("AdminToken").field(&self.identity.name).finish()
    }
}

/// Reads the token for a client, the first one of the file, whatever the mode of the file is. Blocks.
///
/// # Errors
/// If the file cannot be read, or contains no token.
pub fn read_for_client(path: &Path) -> Result<Zeroizing<String>, TokenError> {
    let first = token_list::read(path, FileAccess::Any)?.into_iter().next();
    first.map(|named| named.token).ok_or_else(|| TokenError::Content {
        path: path.to_owned(),
        key: token_list::KEY,
        found: "nothing".to_owned(),
    })
}

#[cfg(test)]
pub(super) mod tests {
    use std::{fs, os::unix::fs::PermissionsExt as _};

    use super::*;

    const FIRST: &str = "0123456789abcdef";
    const SECOND: &str = "fedcba9876543210";

    pub(in crate::admin) fn load(content: &str, mode: u32) -> Result<AdminTokenList, TokenError> {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("token");
        fs::write(&path, content).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
        AdminTokenList::load(&path)
    }

    fn list(content: &str) -> AdminTokenList {
        load(content, 0o600).unwrap()
    }

    fn name(tokens: &AdminTokens, token: &str) -> Option<String> {
        tokens.find(token.as_bytes()).map(|identity| identity.name.to_string())
    }

    #[test]
    fn accepts_only_the_tokens_and_names_them() {
        let one = AdminTokens::new(list("0123456789abcdef\n"));
        assert_eq!(name(&one, FIRST).as_deref(), Some("admin"));
        let two = AdminTokens::new(list(&format!("alice {FIRST}\nbob {SECOND}\n")));
        assert_eq!(name(&two, FIRST).as_deref(), Some("alice"));
        assert_eq!(name(&two, SECOND).as_deref(), Some("bob"));
        for other in ["", "alice", "0123456789abcde", "0123456789abcdef\n", "0123456789abcdeF"] {
            assert_eq!((name(&one, other), name(&two, other)), (None, None), "{other:?}");
        }
        let printed = format!("{two:?}");
        assert!(printed.contains("alice") && !printed.contains("digest"), "{printed}");
    }

    #[test]
    fn replaced_tokens_keep_their_ids_and_removed_ones_lose_them() {
        let tokens = AdminTokens::new(list(&format!("alice {FIRST}\nbob {SECOND}\n")));
        let (alice, bob) = (tokens.find(FIRST.as_bytes()), tokens.find(SECOND.as_bytes()));
        let (alice, bob) = (alice.unwrap().id, bob.unwrap().id);
        assert_ne!(alice, bob);
        tokens.replace(list(&format!("carol 00000000ffffffff\nrobert {SECOND}\n")));
        assert_eq!((name(&tokens, FIRST), tokens.name(alice)), (None, None));
        assert_eq!(tokens.name(bob).as_deref(), Some("robert"));
        // A token that comes back is another one: its sessions have ended.
        tokens.replace(list(&format!("alice {FIRST}\n")));
        assert_eq!(tokens.name(alice), None);
        let again = tokens.find(FIRST.as_bytes()).unwrap();
        assert_eq!(tokens.name(again.id).as_deref(), Some("alice"));
        assert!(![alice, bob].contains(&again.id));
    }

    #[test]
    fn rejects_files_that_others_can_use() {
        for (mode, is_accepted) in [
            (0o400, true),
            (0o440, true),
            (0o604, false),
            (0o660, false),
            (0o602, false),
            (0o601, false),
        ] {
            let loaded = load("0123456789abcdef", mode);
            assert_eq!(loaded.is_ok(), is_accepted, "{mode:o}");
            assert!(loaded.err().is_none_or(|error| error.is_configuration()), "{mode:o}");
        }
    }

    #[test]
    fn rejects_other_contents_without_quoting_them() {
        for (content, found) in [
            ("", "nothing"),
            ("\n", "nothing"),
            ("short-token\n", "11 characters"),
            ("0123456789 abcdef", "line 1: the token consists of 6 characters"),
            ("0123456789\nabcdef", "line 1: contains one word, expected NAME TOKEN"),
            ("0123456789\u{e4}bcdef", "other characters"),
            (&"x".repeat(2000), "more than 1024 bytes"),
            (&"x".repeat(100_000), "more than "),
        ] {
            let error = load(content, 0o600).unwrap_err();
            assert!(error.is_configuration());
            let error = error.to_string();
            assert!(error.contains(found), "{error}");
            assert!(!error.contains("short-token") && !error.contains("abcdef"), "{error}");
        }
        let error = AdminTokenList::load(Path::new("/nowhere/token")).unwrap_err();
        assert!(!error.is_configuration(), "{error}");
        assert!(AdminTokenList::load(Path::new("/")).is_err());
    }

    #[test]
    fn client_uses_the_first_token_whatever_the_mode_is() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("token");
        fs::write(&path, format!("\nbob {SECOND}\nalice {FIRST}\n")).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
        assert_eq!(*read_for_client(&path).unwrap(), SECOND);
        fs::write(&path, FIRST).unwrap();
        assert_eq!(*read_for_client(&path).unwrap(), FIRST);
    }
}
