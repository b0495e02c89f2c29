use std::{fs, os::unix::fs::PermissionsExt};

use vodozemac::pk_encryption::PkEncryption;

use super::*;

/// Made by libolm 3.2.15 (npm `@matrix-org/olm`): `PkDecryption.generate_key()`, then `.pickle()`.
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

struct Folder(tempfile::TempDir);

impl Folder {
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

/// The key whose secret is 32 of this byte.
pub(super) fn new_key(byte: u8) -> RequestKey {
    load(&Folder::new().secret(&STANDARD.encode([byte; 32])))
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
    load(&Folder::new().secret(libolm::SECRET))
}

/// Ciphertext, mac and ephemeral key, unpadded base64.
pub(super) fn seal(key: &RequestKey, plaintext: &[u8]) -> [String; 3] {
    let message = PkEncryption::from_key(key.decryption.public_key()).encrypt(plaintext).unwrap();
    [message.ciphertext, message.mac, message.ephemeral_key.to_vec()]
        .map(|part| STANDARD.encode(part))
}

#[test]
fn the_secret_of_the_python_scanner_gives_the_same_public_key() {
    let folder = Folder::new();
    let unpadded = libolm::SECRET.trim_end_matches('=');
    let url_safe = libolm::SECRET.replace('+', "-");
    for content in
        [libolm::SECRET, unpadded, &url_safe, &format!("{unpadded}\n"), &format!(" {unpadded}\r\n")]
    {
        assert_eq!(load(&folder.secret(content)).public_key(), libolm::PUBLIC);
    }
}

#[test]
fn a_pickle_of_libolm_gives_the_same_public_key() {
    let folder = Folder::new();
    let pickle = libolm::PICKLE;
    for content in [pickle.to_owned(), format!("{pickle}\n")] {
        let key = load(&folder.pickle(&content, libolm::PICKLE_KEY));
        assert_eq!(key.public_key(), libolm::PUBLIC);
    }
}

#[test]
fn what_libolm_sealed_opens() {
    let opened = libolm_key().open(libolm::CIPHERTEXT, libolm::MAC, libolm::EPHEMERAL).unwrap();
    assert_eq!(opened.as_slice(), libolm::PLAINTEXT.as_bytes());
}

#[test]
fn any_usual_base64_opens() {
    let key = libolm_key();
    // 0xfb bytes make `+` and `/` likely in all parts; several seals make them certain enough.
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
fn what_was_sealed_for_another_key_is_refused() {
    let other = RequestKey { decryption: PkDecryption::new() };
    let [ciphertext, mac, ephemeral] = seal(&other, b"{}");
    assert_eq!(libolm_key().open(&ciphertext, &mac, &ephemeral), Err(OpenError::Mac));
}

#[test]
fn tampered_parts_are_refused() {
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
    // The point of order one: every secret key leads to the same shared secret.
    assert_eq!(open(c, m, &"A".repeat(43)), OpenError::Ephemeral);
    assert_eq!(open("?", m, e), OpenError::Base64("ciphertext"));
    assert_eq!(open(c, "a19tHEBw 8KU", e), OpenError::Base64("mac"));
    assert_eq!(open(c, m, "é"), OpenError::Base64("ephemeral"));
}

#[test]
fn a_missing_file_is_told_with_its_remedy() {
    let folder = Folder::new();
    let path = folder.0.path().join("absent");
    let secret = error(&Settings::RequestSecret { path: path.clone(), generate: false });
    assert!(secret.contains("absent") && secret.contains("crypto.generate"), "{secret}");
    let pickle = error(&Settings::Pickle { path, key: PickleKey::new("k".into()) });
    assert!(pickle.contains("absent") && pickle.contains("crypto.pickle_path"), "{pickle}");
}

#[test]
fn a_missing_key_is_made_once_for_its_owner_alone() {
    let folder = Folder::new();
    let path = folder.0.path().join("new");
    let settings = Settings::RequestSecret { path: path.clone(), generate: true };
    assert!(RequestKey::load_existing(&settings).unwrap().is_none());
    assert!(!path.exists());

    let (made, notices) = RequestKey::load(&settings).unwrap();
    assert_eq!(notices, [KeyNotice::Generated { path: path.clone() }]);
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o7777, 0o600);
    assert_eq!(fs::read_dir(folder.0.path()).unwrap().count(), 1, "no temporary file is left");

    assert_eq!(load(&settings).public_key(), made.public_key());
}

#[test]
fn concurrent_starts_agree_on_one_key() {
    let folder = Folder::new();
    let settings = Settings::RequestSecret { path: folder.0.path().join("new"), generate: true };
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
fn a_key_is_never_replaced() {
    let folder = Folder::new();
    let path = folder.file("damaged", 0o600);
    let settings = Settings::RequestSecret { path: path.clone(), generate: true };
    assert!(RequestKey::load(&settings).is_err());
    assert_eq!(fs::read_to_string(path).unwrap(), "damaged");
}

#[test]
fn a_missing_folder_is_not_made() {
    let folder = Folder::new();
    let path = folder.0.path().join("no/such/folder");
    let error = RequestKey::load(&Settings::RequestSecret { path, generate: true }).unwrap_err();
    assert!(matches!(error, KeyError::Write { .. }));
}

#[test]
fn a_file_that_others_can_read_is_told() {
    let folder = Folder::new();
    for (mode, told) in [(0o644, true), (0o604, true), (0o640, false), (0o400, false)] {
        let path = folder.file(libolm::SECRET, mode);
        let settings = Settings::RequestSecret { path: path.clone(), generate: false };
        let (_, notices) = RequestKey::load(&settings).unwrap();
        let expected = told.then_some(KeyNotice::ReadableByOthers { path, mode });
        assert_eq!(notices, Vec::from_iter(expected));
    }
}

#[test]
fn what_is_no_key_is_refused() {
    let folder = Folder::new();
    for (content, found) in [
        ("", "nothing"),
        ("\n", "nothing"),
        ("AAAA", "another number of bytes"),
        (libolm::PICKLE, "another number of bytes"),
        ("not a key!", "other text"),
    ] {
        let told = error(&folder.secret(content));
        assert!(told.contains(found), "{told}");
    }
    let directory = Settings::RequestSecret { path: folder.0.path().into(), generate: true };
    assert!(error(&directory).contains("not a regular file"));
    assert!(error(&folder.secret(&"A".repeat(100_000))).contains("too large"));
}

#[test]
fn what_is_no_pickle_is_refused() {
    let folder = Folder::new();
    let told = error(&folder.pickle(libolm::PICKLE, "another key"));
    assert!(told.contains("crypto.pickle_key"), "{told}");
    for content in ["", libolm::SECRET, "not a pickle!"] {
        RequestKey::load(&folder.pickle(content, libolm::PICKLE_KEY)).unwrap_err();
    }
}

#[test]
fn no_secret_is_printed() {
    let folder = Folder::new();
    let settings = folder.pickle(libolm::PICKLE, libolm::PICKLE_KEY);
    assert_eq!(format!("{:?}", libolm_key()), "RequestKey(..)");
    let Settings::Pickle { path, key } = &settings else { unreachable!() };
    assert_eq!(format!("{key:?}"), "PickleKey(..)");
    assert_eq!(format!("{settings:?}"), format!("Pickle {{ path: {path:?}, key: PickleKey(..) }}"));

    // One character is wrong, so that nothing opens, and all the others must stay unsaid.
    let damaged = libolm::SECRET.replace('+', "!");
    let pickle = libolm::PICKLE.replace('+', "!");
    for told in [error(&folder.secret(&damaged)), error(&folder.pickle(&pickle, "pickle key"))] {
        for secret in [&damaged[..4], &pickle[..4], "pickle key"] {
            assert!(!told.contains(secret), "{told}");
        }
    }
}
