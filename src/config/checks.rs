//! Checks that the keys of different sections fit together. A section with problems of its own is not checked.

use std::path::Path;

use mcs_sandbox::Policy;

use super::{
    problem::Warning,
    reader::Reader,
    sections::{
        admin,
        audit::{self, AuditDestination, UserRecord},
        bounds::OversizePolicy,
        crypto, download,
        engines::EngineSettings,
        incident,
        listen::Listen,
        notify, operations, quarantine, scan, store, web,
    },
};

/// Warns of sizes that are never reached, since another limit is smaller.
pub(super) fn sizes(
    reader: &mut Reader<'_>,
    scan: Option<&scan::Settings>,
    download: Option<&download::Settings>,
) {
    let (Some(scan), Some(download)) = (scan, download) else { return };
    let mut download_section = reader.section("download");
    if download.max_size > scan.max_spool_size {
        let (key, because) = ("download.max_size", "scan.max_spool_size");
        download_section.warn(Warning::NeverReached { key, because });
    } else if download.max_size.saturating_mul(2) > scan.max_spool_size {
        download_section.warn(Warning::TightSpool);
    }
    for engine in &scan.engines {
        let key = match engine {
            EngineSettings::Script(_) => "scan.script_max_size",
            EngineSettings::Rules(_) => "rules.max_size",
            // Examines files of any size.
            EngineSettings::Hashes(_) => continue,
            EngineSettings::Clamd(_) => "clamd.max_size",
            EngineSettings::Icap(_) => "icap.max_size",
        };
        let bounds = engine.bounds();
        let outcome = match bounds.on_oversize {
            OversizePolicy::Fail => "will be refused (413)",
            OversizePolicy::Refuse => "will be refused as not clean (403)",
            OversizePolicy::Skip => continue,
        };
        if let Some(limit) = bounds.max_size.filter(|limit| *limit < download.max_size) {
            download_section.warn(Warning::RejectedBySize { key, limit, outcome });
        }
    }
}

/// Rejects two listeners on one address.
pub(super) fn listeners(
    reader: &mut Reader<'_>,
    web: Option<&web::Settings>,
    operations: Option<&operations::Settings>,
    admin: Option<&admin::Settings>,
) {
    let listeners = [
        ("web", web.map(|web| &web.listen)),
        ("operations", operations.map(|operations| &operations.listen)),
        ("admin", admin.map(|admin| &admin.listen)),
    ];
    for (index, (section, listen)) in listeners.iter().enumerate() {
        for (other, taken) in listeners.iter().take(index) {
            if let (Some(listen), Some(taken)) = (listen, taken)
                && listen.conflicts_with(taken)
            {
                let key = if matches!(listen, Listen::Unix(_)) { "socket" } else { "port" };
                // The other address may be a default, which has no line.
                let is_default = !reader.section(section).has(key);
                let (section, other) = if is_default { (other, section) } else { (section, other) };
                let message = format!("found the address of [{other}], expected another address");
                reader.section(section).conflict(key, message);
            }
        }
    }
}

/// Rejects operators' changes that are not recorded.
pub(super) fn audit_of_changes(
    reader: &mut Reader<'_>,
    admin: Option<&admin::Settings>,
    audit: Option<&audit::Settings>,
) {
    if admin.is_some() && audit.is_some_and(|audit| audit.path.is_none()) {
        reader.section("audit").missing(
            "path",
            "a file or \"-\" (standard output), since admin.enabled is true: each change is recorded",
        );
    }
}

/// Warns if no homeserver can be asked for users.
pub(super) fn audit_of_users(
    reader: &mut Reader<'_>,
    audit: Option<&audit::Settings>,
    download: Option<&download::Settings>,
) {
    let (Some(audit), Some(download)) = (audit, download) else { return };
    let has_homeserver = download.base_homeserver_url.is_some() || !download.homeservers.is_empty();
    if audit.path.is_some() && audit.user != UserRecord::Off && !has_homeserver {
        reader.section("audit").warn(Warning::Unused {
            keys: vec!["audit.user".to_owned()],
            since: "no homeserver is configured, and discovered ones are not asked for users"
                .to_owned(),
        });
    }
}

/// Paths of files that scripts must not read.
pub(super) struct PrivateFiles<'a> {
    /// The directory of jobs, in which each job sees its own files only.
    pub(super) directory: Option<&'a Path>,
    pub(super) crypto: Option<&'a crypto::Settings>,
    pub(super) audit: Option<&'a audit::Settings>,
    pub(super) store: Option<&'a store::Settings>,
    pub(super) admin: Option<&'a admin::Settings>,
    pub(super) incident: Option<&'a incident::Settings>,
    pub(super) quarantine: Option<&'a quarantine::Settings>,
    pub(super) notify: Option<&'a notify::Settings>,
}

impl<'a> PrivateFiles<'a> {
    /// Returns the files with secrets of incidents, with their sections and keys.
    fn secrets_of_incidents(&self) -> impl Iterator<Item = (&'static str, &'static str, &'a Path)> {
        let quarantine = self.quarantine.into_iter();
        let quarantine =
            quarantine.map(|settings| ("quarantine", "token_path", &*settings.token_path));
        let targets = self.notify.into_iter().flat_map(|notify| &notify.targets);
        let targets =
            targets.map(|target| ("notify", "targets", &**target.address.secret_file().1));
        let rescan = self.rescan().into_iter();
        let rescan = rescan.map(|rescan| ("incident", "token_path", &*rescan.token_path));
        quarantine.chain(targets).chain(rescan)
    }

    fn rescan(&self) -> Option<&'a incident::RescanSettings> {
        self.incident?.rescan.as_ref()
    }
}

/// Rejects rescans without a store, or without one homeserver.
pub(super) fn rescans(
    reader: &mut Reader<'_>,
    files: &PrivateFiles<'_>,
    store: Option<&Option<store::Settings>>,
    download: Option<&download::Settings>,
) {
    if files.rescan().is_none() {
        return;
    }
    if store.is_some_and(Option::is_none) {
        reader.section("store").missing(
            "kind",
            "\"file\" with a path or a state directory, or \"shared\", since incident.rescan needs a \
             store: it has the media to scan again",
        );
    }
    if download.is_some_and(|download| download.main_homeserver().is_none()) {
        reader.section("download").missing(
            "base_homeserver_url",
            "the homeserver whose media is scanned again (incident.rescan)",
        );
    }
}

/// Rejects incidents without a store, and a quarantine without one homeserver.
pub(super) fn incidents(
    reader: &mut Reader<'_>,
    files: &PrivateFiles<'_>,
    store: Option<&Option<store::Settings>>,
    download: Option<&download::Settings>,
) {
    let has_targets = files.notify.is_some_and(|notify| !notify.targets.is_empty());
    let section = match files.quarantine {
        Some(_) => "[quarantine]",
        None if has_targets => "[[notify]]",
        None => return,
    };
    if store == Some(&None) {
        let expected = format!(
            "\"file\" with a path or a state directory, or \"shared\", since {section} needs a store: \
             incidents must survive a restart"
        );
        reader.section("store").missing("kind", &expected);
    }
    if files.quarantine.is_some()
        && download.is_some_and(|download| download.main_homeserver().is_none())
    {
        reader.section("download").missing(
            "base_homeserver_url",
            "the homeserver whose media is quarantined ([quarantine])",
        );
    }
}

/// Rejects paths of private files that scripts can read, and a store in the directory of jobs, which a start empties.
pub(super) fn private_paths(
    reader: &mut Reader<'_>,
    sandbox: Option<&Policy>,
    files: &PrivateFiles<'_>,
) {
    let Some(sandbox) = sandbox else { return };
    let directory = files.directory.map(|path| ("scan", "temp_directory", path));
    let key = files.crypto.map(|crypto| match crypto {
        crypto::Settings::RequestSecret { path, .. } => ("crypto", "request_secret_path", &**path),
        crypto::Settings::Pickle { path, .. } => ("crypto", "pickle_path", &**path),
    });
    let log = files.audit.and_then(|audit| match &audit.path {
        Some(AuditDestination::File(path)) => Some(("audit", "path", &**path)),
        Some(AuditDestination::Stdout) | None => None,
    });
    let store = files.store.and_then(store::Settings::file).map(|file| &*file.path);
    let secrets = files.store.into_iter().flat_map(store::Settings::secret_files);
    let secrets = secrets.map(|(key, path)| ("store", key, &**path));
    let store_file = store.map(|path| ("store", "path", path));
    let token = files.admin.map(|admin| ("admin", "token_path", &*admin.token_path));
    let socket = files.admin.and_then(|admin| match &admin.listen {
        Listen::Unix(path) => Some(("admin", "socket", &**path)),
        Listen::Tcp { .. } => None,
    });
    let others = [directory, key, log, store_file, token, socket].into_iter().flatten();
    let secrets = secrets.chain(files.secrets_of_incidents());
    for (section, key, path) in others.chain(secrets) {
        let mut visible = sandbox.paths.read_only.iter().chain(&sandbox.paths.writable);
        if let Some(visible) = visible.find(|visible| path.starts_with(visible)) {
            let (path, visible) = (path.display(), visible.display());
            let message =
                format!("found {path}, expected a path outside {visible}, which scripts can read");
            reader.section(section).conflict(key, message);
        }
    }
    if let (Some(store), Some(directory)) = (store, files.directory)
        && store.starts_with(directory)
    {
        let (path, directory) = (store.display(), directory.display());
        let message =
            format!("found {path}, expected a path outside scan.temp_directory, {directory}");
        reader.section("store").conflict("path", message);
    }
}
