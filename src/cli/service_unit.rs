//! Whether the user of the systemd unit can read the files with secrets, for commands that root runs: root can read
//! everything, the service cannot.

use std::{
    ffi::OsStr,
    fs::{self, Metadata},
    io,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};

use nix::unistd::{Group, User};

use crate::config::{
    Config,
    sections::{crypto, store::Settings},
};

const UNIT: &str = "matrix-content-scanner.service";

/// Directories with units, in the order of precedence. systemd.unit(5), "Unit File Load Path".
const UNIT_DIRECTORIES: [&str; 5] = [
    "/etc/systemd/system",
    "/run/systemd/system",
    "/usr/local/lib/systemd/system",
    "/usr/lib/systemd/system",
    "/lib/systemd/system",
];

/// The options of a unit that decide which files it can read. systemd.exec(5).
#[derive(Clone, PartialEq, Eq, Debug, Default)]
struct UnitOptions {
    command: String,
    user: Option<String>,
    group: Option<String>,
    supplementary_groups: Vec<String>,
    is_dynamic: bool,
    /// Names of `StateDirectory=`, whose files systemd gives to the user.
    state_directories: Vec<String>,
}

/// User and groups of the service.
#[derive(Clone, PartialEq, Eq, Debug)]
struct UnitUser {
    /// `None` if systemd allocates an id at the start.
    uid: Option<u32>,
    gids: Vec<u32>,
}

/// Returns a note for each file that the unit's user cannot read. Returns none if the unit does not exist, uses another
/// configuration file, or runs as root. Access control lists are not examined.
pub(super) fn notes(file: &Path, config: &Config) -> Vec<String> {
    let Some(options) = UnitOptions::load(&UNIT_DIRECTORIES.map(Path::new)) else { return vec![] };
    let uses_file = options.command.split_whitespace().any(|word| Path::new(word) == file);
    let Some(user) = options.unit_user().filter(|_| uses_file) else { return vec![] };
    secret_files(file, config)
        .into_iter()
        .filter(|(_, path)| !options.owns(path))
        .filter_map(|(key, path)| {
            let obstacle = user.obstacle(&path).ok().flatten()?;
            Some(format!(
                "{key}: the user of {UNIT}{} cannot read {}: {obstacle}{}",
                options.user.as_ref().map(|name| format!(" ({name})")).unwrap_or_default(),
                path.display(),
                remedy(key),
            ))
        })
        .collect()
}

fn remedy(key: &str) -> &'static str {
    match key {
        "crypto.request_secret_path" => {
            "; move the key to /var/lib/matrix-content-scanner, or to \
             /etc/credstore/matrix-content-scanner.request_secret and remove the key from the configuration"
        }
        "configuration" => "; chmod 0644, with secrets in files of their own",
        _ => "; SupplementaryGroups= in a drop-in of the unit permits a group",
    }
}

/// Returns the files that the service reads, and that usually only some users may read.
fn secret_files(file: &Path, config: &Config) -> Vec<(&'static str, PathBuf)> {
    let key = match &config.crypto {
        crypto::Settings::RequestSecret { path, .. } => ("crypto.request_secret_path", path),
        crypto::Settings::Pickle { path, .. } => ("crypto.pickle_path", path),
    };
    let store = config.store.iter().flat_map(Settings::secret_files);
    let store = store.map(|(key, path)| match key {
        "password_path" => ("store.password_path", path),
        _ => ("store.secret_path", path),
    });
    let token = config.admin.iter().map(|admin| ("admin.token_path", &admin.token_path));
    let files = [key].into_iter().chain(store).chain(token);
    let files = files.map(|(key, path)| (key, path.clone()));
    [("configuration", file.to_owned())].into_iter().chain(files).collect()
}

impl UnitOptions {
    /// Reads the unit and its drop-ins.
    fn load(directories: &[&Path]) -> Option<Self> {
        let unit = directories.iter().find_map(|path| fs::read_to_string(path.join(UNIT)).ok())?;
        let mut options = Self::default();
        options.apply(&unit);
        let mut drop_ins: Vec<PathBuf> = Vec::new();
        for directory in directories {
            let entries = fs::read_dir(directory.join(format!("{UNIT}.d")));
            for path in entries.into_iter().flatten().flatten().map(|entry| entry.path()) {
                // A file replaces one of the same name in a directory of lower precedence.
                let is_new = drop_ins.iter().all(|other| other.file_name() != path.file_name());
                if is_new && path.extension() == Some(OsStr::new("conf")) {
                    drop_ins.push(path);
                }
            }
        }
        drop_ins.sort_by(|a, b| a.file_name().cmp(&b.file_name()));
        for path in drop_ins {
            options.apply(&fs::read_to_string(path).unwrap_or_default());
        }
        Some(options)
    }

    /// Applies the lines of a file. An empty value resets an option.
    fn apply(&mut self, text: &str) {
        let joined = text.replace("\\\n", " ");
        for line in joined.lines().filter(|line| !line.starts_with(['#', ';'])) {
            let Some((name, value)) = line.split_once('=') else { continue };
            let value = value.trim();
            let words = || value.split_whitespace().map(str::to_owned);
            let single = Some(value.to_owned()).filter(|value| !value.is_empty());
            let extend = |list: &mut Vec<String>| match value {
                "" => list.clear(),
                _ => list.extend(words()),
            };
            match name.trim() {
                "ExecStart" => value.clone_into(&mut self.command),
                "User" => self.user = single,
                "Group" => self.group = single,
                "DynamicUser" => self.is_dynamic = ["yes", "true", "on", "1"].contains(&value),
                "SupplementaryGroups" => extend(&mut self.supplementary_groups),
                "StateDirectory" => extend(&mut self.state_directories),
                _ => {}
            }
        }
    }

    /// Returns `None` if the unit runs as root, or as a user who does not exist.
    fn unit_user(&self) -> Option<UnitUser> {
        let account = self.user.as_ref().and_then(|name| User::from_name(name).ok().flatten());
        let groups = self.group.iter().chain(&self.supplementary_groups);
        let groups = groups.filter_map(|name| Group::from_name(name).ok().flatten());
        let mut gids: Vec<_> = groups.map(|group| group.gid.as_raw()).collect();
        match account {
            Some(account) => {
                gids.push(account.gid.as_raw());
                let uid = account.uid.as_raw();
                (uid != 0).then_some(UnitUser { uid: Some(uid), gids })
            }
            // Without an account of this name, systemd allocates one for the lifetime of the service.
            None => self.is_dynamic.then_some(UnitUser { uid: None, gids }),
        }
    }

    /// Whether systemd gives this file to the user at the start.
    fn owns(&self, path: &Path) -> bool {
        self.state_directories.iter().any(|name| {
            ["/var/lib", "/var/lib/private"]
                .iter()
                .any(|base| path.starts_with(Path::new(base).join(name)))
        })
    }
}

impl UnitUser {
    /// Returns why the user cannot read the file, by the modes of the file and of the directories above it.
    fn obstacle(&self, path: &Path) -> io::Result<Option<String>> {
        let path = path.canonicalize()?;
        for directory in path.ancestors().skip(1).collect::<Vec<_>>().into_iter().rev() {
            let metadata = fs::metadata(directory)?;
            if !self.has(&metadata, 0o1) {
                return Ok(Some(describe(directory, &metadata)));
            }
        }
        let metadata = fs::metadata(&path)?;
        Ok((!self.has(&metadata, 0o4)).then(|| describe(&path, &metadata)))
    }

    /// Whether the mode grants this permission (of `others`, like 0o4).
    fn has(&self, metadata: &Metadata, permission: u32) -> bool {
        let class = if self.uid == Some(metadata.uid()) {
            6
        } else if self.gids.contains(&metadata.gid()) {
            3
        } else {
            0
        };
        metadata.mode() >> class & permission != 0
    }
}

fn describe(path: &Path, metadata: &Metadata) -> String {
    let owner = User::from_uid(metadata.uid().into()).ok().flatten();
    let owner = owner.map_or_else(|| metadata.uid().to_string(), |user| user.name);
    format!("{} has mode {:04o} and belongs to {owner}", path.display(), metadata.mode() & 0o7777)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    const SHIPPED: &str = include_str!("../../systemd/matrix-content-scanner.service");

    #[test]
    fn reads_shipped_unit_and_drop_ins() {
        let [etc, usr] = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
        let directories = [etc.path(), usr.path()];
        assert_eq!(UnitOptions::load(&directories), None);
        fs::write(usr.path().join(UNIT), SHIPPED).unwrap();
        let shipped = UnitOptions::load(&directories).unwrap();
        assert!(shipped.is_dynamic && shipped.user.is_none());
        assert!(shipped.command.ends_with("-c /etc/matrix-content-scanner/config.toml"));
        assert_eq!(shipped.state_directories, ["matrix-content-scanner"]);
        assert!(shipped.owns(Path::new("/var/lib/matrix-content-scanner/request_secret")));
        assert!(!shipped.owns(Path::new("/etc/matrix-content-scanner/request_secret")));

        let drop_in = |directory: &Path, name: &str, text: &str| {
            let directory = directory.join(format!("{UNIT}.d"));
            fs::create_dir_all(&directory).unwrap();
            fs::write(directory.join(name), text).unwrap();
        };
        drop_in(usr.path(), "10-user.conf", "[Service]\nUser=replaced\n");
        drop_in(etc.path(), "10-user.conf", "[Service]\nUser=daemon\nDynamicUser=no\n");
        drop_in(etc.path(), "20-more.conf", "[Service]\nSupplementaryGroups=\\\n a b\n");
        drop_in(etc.path(), "README", "User=mail");
        let changed = UnitOptions::load(&directories).unwrap();
        assert_eq!(changed.user.as_deref(), Some("daemon"));
        assert!(!changed.is_dynamic);
        assert_eq!(changed.supplementary_groups, ["a", "b"]);
        assert!(changed.unit_user().is_some_and(|user| user.uid.is_some()));
        drop_in(etc.path(), "30-root.conf", "[Service]\nUser=root\n");
        assert_eq!(UnitOptions::load(&directories).unwrap().unit_user(), None);
    }

    #[test]
    fn mode_decides_who_can_read_a_file() {
        let directory = tempfile::tempdir().unwrap();
        let set_mode = |path: &Path, mode| {
            fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
        };
        let key = directory.path().join("key");
        fs::write(&key, "").unwrap();
        let metadata = fs::metadata(&key).unwrap();
        let owner = UnitUser { uid: Some(metadata.uid()), gids: vec![] };
        let member = UnitUser { uid: None, gids: vec![metadata.gid()] };
        let other = UnitUser { uid: None, gids: vec![] };
        set_mode(directory.path(), 0o755);
        for (mode, readers) in [
            (0o600, [true, false, false]),
            (0o640, [true, true, false]),
            (0o644, [true, true, true]),
            (0o044, [false, true, true]),
            (0o604, [true, false, true]),
        ] {
            set_mode(&key, mode);
            let found =
                [&owner, &member, &other].map(|user| user.obstacle(&key).unwrap().is_none());
            assert_eq!(found, readers, "{mode:04o}");
        }
        set_mode(&key, 0o644);
        set_mode(directory.path(), 0o750);
        let obstacle = other.obstacle(&key).unwrap().unwrap();
        let directory = directory.path().canonicalize().unwrap();
        assert!(
            obstacle.starts_with(&format!("{} has mode 0750", directory.display())),
            "{obstacle}"
        );
        assert!(other.obstacle(&directory.join("absent")).is_err());
    }
}
