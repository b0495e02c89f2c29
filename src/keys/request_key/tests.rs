use std::{fs, os::unix::fs::PermissionsExt};

use vodozemac::pk_encryption::PkEncryption;

use super::*;

/// Generated with libolm 3.2.15 (npm `@matrix-org/olm`): `PkDecryption.generate_key()`, then `.pickle()`.
mod libolm {
    pub(super) const PUBLIC: &str = "jLVWQUTEEkeqHPMAkPsDyj7Wh6jKUAw5rkp6h4VPqBA";
    pub(super) const SECRET: &str = "FjA38iRQh4mH6ED7wa1Ba7O0tv4x+AtX2tVPgireeic=";
    pub(super) const PICKLE_KEY: &str = "a pickle key of the Node scanner";
    pub(super) const PICKLE: &str = "/YmZju2bJEJsurL8UsOvwk5NZlH8iebYom30Y1Y/GTpvdVSglwvQHv2a0EggOvbRu\
         7cX+fH4lGjqIM7/XdxJuECvtTWevflF96vufoFUFFQo7Ht8Kf2TnA";
    pub(super) const CIPHERTEXT: &str =
        "ngW6KBDpKoy5M3Vr7VKr9cWvToXm/F6CkFdmVX48R5Fx8Fd2EbsgQYD2i5oQwOKg";
    pub(super) const MAC: &str = "a19tHEBw8KU";
    pub(super) const EPHEMERAL: &str = "agxaaHtusRfBH5qEvuuTNVERuwI9hSp020X/xF0DQzM";
    pub(super) const PLAINTEXT: &str = r#"{"file": {"v": "v2"}, "é": "✓"}"#;
}

struct TestDir(tempfile::TempDir);

impl TestDir {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn file(&self, content: &str, mode: u32) -> PathBuf {
        let path = self.0.path().join("key");
        fs::write(&path, content).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
        path
    }

    fn secret(&self, content: &str) -> Settings {
        Settings::RequestSecret { path: self.file(content, 0o600), generate: false }
    }

    fn pickle(&self, content: &str, key: &str) -> Settings {
        Settings::Pickle { path: self.file(content, 0o600), key: PickleKey::new(key.into()) }
    }
}

/// Returns the key whose secret consists of 32 copies of `byte`.
pub(in crate::keys) fn new_key(byte: u8) -> RequestKey {
    load(&TestDir::new().secret(&STANDARD.encode([byte; 32])))
}

fn load(settings: &Settings) -> RequestKey {
    let (key, notices) = RequestKey::load(settings).unwrap();
    assert_eq!(notices, []);
    key
}

fn error(settings: &Settings) -> String {
    let error = RequestKey::load(settings).unwrap_err();
    format!("{error:?} {error}")
}

fn libolm_key() -> RequestKey {
    load(&TestDir::new().secret(libolm::SECRET))
}

/// Encrypts for `key`; returns ciphertext, MAC and ephemeral key in unpadded base64.
pub(in crate::keys) fn seal(key: &RequestKey, plaintext: &[u8]) -> [String; 3] {
    let message = PkEncryption::from_key(key.decryption.public_key()).encrypt(plaintext).unwrap();
    [message.ciphertext, message.mac, message.ephemeral_key.to_vec()]
        .map(|part| STANDARD.encode(part))
}

#[test]
fn loads_secret_of_python_scanner() {
    let dir = TestDir::new();
    let unpadded = libolm::SECRET.trim_end_matches('=');
    let url_safe = libolm::SECRET.replace('+', "-");
    for content in
        [libolm::SECRET, unpadded, &url_safe, &format!("{unpadded}\n"), &format!(" {unpadded}\r\n")]
    {
        assert_eq!(load(&dir.secret(content)).public_key(), libolm::PUBLIC);
    }
}

#[test]
fn loads_pickle_of_libolm() {
    let dir = TestDir::new();
    let pickle = libolm::PICKLE;
    for content in [pickle.to_owned(), format!("{pickle}\n")] {
        let key = load(&dir.pickle(&content, libolm::PICKLE_KEY));
        assert_eq!(key.public_key(), libolm::PUBLIC);
    }
}

#[test]
fn decrypts_message_of_libolm() {
    let opened = libolm_key().open(libolm::CIPHERTEXT, libolm::MAC, libolm::EPHEMERAL).unwrap();
    assert_eq!(opened.as_slice(), libolm::PLAINTEXT.as_bytes());
}

#[test]
fn accepts_both_base64_alphabets_and_paddings() {
    let key = libolm_key();
    // Repeated, so that `+` and `/` occur in all parts with high probability.
    for _ in 0..16 {
        let sealed = seal(&key, &[0xfb; 33]);
        for form in [
            sealed.clone(),
            sealed.clone().map(|part| format!("{part}{}", "=".repeat((4 - part.len() % 4) % 4))),
            sealed.map(|part| part.replace('+', "-").replace('/', "_")),
        ] {
            assert_eq!(key.open(&form[0], &form[1], &form[2]).unwrap().as_slice(), [0xfb; 33]);
        }
    }
}

#[test]
fn rejects_message_for_another_key() {
    let other = RequestKey { decryption: PkDecryption::new() };
    let [ciphertext, mac, ephemeral] = seal(&other, b"{}");
    assert_eq!(libolm_key().open(&ciphertext, &mac, &ephemeral), Err(OpenError::Mac));
}

#[test]
fn rejects_tampered_parts() {
    let key = libolm_key();
    let open = |c: &str, m: &str, e: &str| key.open(c, m, e).unwrap_err();
    let (c, m, e) = (libolm::CIPHERTEXT, libolm::MAC, libolm::EPHEMERAL);
    assert_eq!(open(c, "b19tHEBw8KU", e), OpenError::Mac);
    // A shorter tag would be easier to guess.
    assert_eq!(open(c, "a18", e), OpenError::Mac);
    assert_eq!(open(c, "", e), OpenError::Mac);
    assert_eq!(open(&c[..60], m, e), OpenError::Padding);
    assert_eq!(open("", m, e), OpenError::Padding);
    assert_eq!(open(c, m, ""), OpenError::Ephemeral);
    assert_eq!(open(c, m, "AAAA"), OpenError::Ephemeral);
    // The point of order one: the shared secret does not depend on the secret key.
    assert_eq!(open(c, m, &"A".repeat(43)), OpenError::Ephemeral);
    assert_eq!(open("?", m, e), OpenError::Base64("ciphertext"));
    assert_eq!(open(c, "a19tHEBw 8KU", e), OpenError::Base64("mac"));
    assert_eq!(open(c, m, "é"), OpenError::Base64("ephemeral"));
}

#[test]
fn missing_file_error_contains_remedy() {
    let dir = TestDir::new();
    let path = dir.0.path().join("absent");
    let secret = error(&Settings::RequestSecret { path: path.clone(), generate: false });
    assert!(secret.contains("absent") && secret.contains("crypto.generate"), "{secret}");
    let pickle = error(&Settings::Pickle { path, key: PickleKey::new("k".into()) });
    assert!(pickle.contains("absent") && pickle.contains("crypto.pickle_path"), "{pickle}");
}

#[test]
fn generates_missing_key_once_with_mode_0600() {
    let dir = TestDir::new();
    let path = dir.0.path().join("new");
    let settings = Settings::RequestSecret { path: path.clone(), generate: true };
    assert!(RequestKey::load_existing(&settings).unwrap().is_none());
    assert!(!path.exists());

    let (generated, notices) = RequestKey::load(&settings).unwrap();
    assert_eq!(notices, [KeyNotice::Generated { path: path.clone() }]);
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o7777, 0o600);
    assert_eq!(fs::read_dir(dir.0.path()).unwrap().count(), 1, "no temporary file is left");

    assert_eq!(load(&settings).public_key(), generated.public_key());
}

#[test]
fn concurrent_starts_use_one_key() {
    let dir = TestDir::new();
    let settings = Settings::RequestSecret { path: dir.0.path().join("new"), generate: true };
    let barrier = std::sync::Barrier::new(8);
    let keys: std::collections::BTreeSet<String> = std::thread::scope(|scope| {
        let starts: Vec<_> = (0..8)
            .map(|_| {
                scope.spawn(|| {
                    barrier.wait();
                    RequestKey::load(&settings).unwrap().0.public_key()
                })
            })
            .collect();
        starts.into_iter().map(|start| start.join().unwrap()).collect()
    });
    assert_eq!(keys.len(), 1);
}

#[test]
fn never_replaces_existing_file() {
    let dir = TestDir::new();
    let path = dir.file("damaged", 0o600);
    let settings = Settings::RequestSecret { path: path.clone(), generate: true };
    assert!(RequestKey::load(&settings).is_err());
    assert_eq!(fs::read_to_string(path).unwrap(), "damaged");
}

#[test]
fn does_not_create_missing_folder() {
    let dir = TestDir::new();
    let path = dir.0.path().join("no/such/dir");
    let error = RequestKey::load(&Settings::RequestSecret { path, generate: true }).unwrap_err();
    assert!(matches!(error, KeyError::Write { .. }));
}

#[test]
fn reports_file_readable_by_others() {
    let dir = TestDir::new();
    for (mode, is_reported) in [(0o644, true), (0o604, true), (0o640, false), (0o400, false)] {
        let path = dir.file(libolm::SECRET, mode);
        let settings = Settings::RequestSecret { path: path.clone(), generate: false };
        let (_, notices) = RequestKey::load(&settings).unwrap();
        let expected = is_reported.then_some(KeyNotice::ReadableByOthers { path, mode });
        assert_eq!(notices, Vec::from_iter(expected));
    }
}

#[test]
fn rejects_invalid_key_content() {
    let dir = TestDir::new();
    for (content, found) in [
        ("", "nothing"),
        ("\n", "nothing"),
        ("AAAA", "a wrong number of bytes"),
        (libolm::PICKLE, "a wrong number of bytes"),
        ("not a key!", "other text"),
    ] {
        let error = error(&dir.secret(content));
        assert!(error.contains(found), "{error}");
    }
    let directory = Settings::RequestSecret { path: dir.0.path().into(), generate: true };
    assert!(error(&directory).contains("not a regular file"));
    assert!(error(&dir.secret(&"A".repeat(100_000))).contains("too large"));
}

#[test]
fn rejects_invalid_pickle() {
    let dir = TestDir::new();
    let error = error(&dir.pickle(libolm::PICKLE, "another key"));
    assert!(error.contains("crypto.pickle_key"), "{error}");
    for content in ["", libolm::SECRET, "not a pickle!"] {
        RequestKey::load(&dir.pickle(content, libolm::PICKLE_KEY)).unwrap_err();
    }
}

#[test]
fn debug_and_error_output_contain_no_secret() {
    let dir = TestDir::new();
    let settings = dir.pickle(libolm::PICKLE, libolm::PICKLE_KEY);
    assert_eq!(format!("{:?}", libolm_key()), "RequestKey(..)");
    let Settings::Pickle { path, key } = &settings else { unreachable!() };
    assert_eq!(format!("{key:?}"), "PickleKey(..)");
    assert_eq!(format!("{settings:?}"), format!("Pickle {{ path: {path:?}, key: PickleKey(..) }}"));

    // A single invalid character makes loading fail; the rest of the secret must not appear in the error.
    let damaged = libolm::SECRET.replace('+', "!");
    let pickle = libolm::PICKLE.replace('+', "!");
    for message in [error(&dir.secret(&damaged)), error(&dir.pickle(&pickle, "pickle key"))] {
        for secret in [&damaged[..4], &pickle[..4], "pickle key"] {
            assert!(!message.contains(secret), "{message}");
        }
    }
}
