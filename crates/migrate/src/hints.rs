//! Conversions and comments that apply to both scanners, and sandbox settings that a script probably
//! needs, by the words in it. Guesses are written as comments, since the operator has to approve access.

use std::{collections::BTreeMap, fs::File, io::Read, path::Path};

use crate::{
    clamd::{self, ClamdAddress},
    draft::{Draft, TomlValue},
    format::quoted,
    paths,
    source::{Predecessor, Setting},
};

/// The default of `operations.port`.
const OPERATIONS_PORT: u16 = 8081;

/// Maximum number of bytes of a script that are searched.
const MAX_SCRIPT: u64 = 64 * 1024;

/// Words in a script, the comment they cause, and the settings that would allow it: a key and an element
/// of its list.
type ScriptHint = (&'static [&'static str], &'static str, &'static [(&'static str, &'static str)]);

const SCRIPT_HINTS: [ScriptHint; 9] = [
    (
        &["3310"],
        "The script mentions port 3310, so it needs the port of clamd.",
        &[("tcp_ports", "3310")],
    ),
    (
        &["clamdscan", "clamd.ctl", "clamd.sock"],
        "The script mentions clamd, so it needs the socket and configuration of clamd.",
        &[("unix_sockets", r#""/run/clamav/clamd.ctl""#), ("read_only_paths", r#""/etc/clamav""#)],
    ),
    (
        &["clamscan"],
        "The script mentions clamscan, so it needs the signatures.",
        &[("read_only_paths", r#""/var/lib/clamav""#)],
    ),
    (
        &["icap"],
        "The script mentions ICAP, so it needs the port of the server.",
        &[("tcp_ports", "1344")],
    ),
    (
        &["curl", "wget", "https://", "http://", "/dev/tcp/", "nc ", "ssh "],
        "The script seems to use the network: list the ports, or allow all access with network = \"host\".",
        &[("tcp_ports", "443")],
    ),
    (
        &["/tmp", "/var/tmp"],
        "The script mentions /tmp or /var/tmp: it can write only to $TMPDIR and to the directory of the \
         file, which are private to each run.",
        &[],
    ),
    (
        &["/proc", "/dev/stderr", "/dev/stdout", "/dev/fd"],
        "The script mentions /proc or /dev/stderr, which do not exist in the sandbox: use >&2 instead of \
         >/dev/stderr.",
        &[],
    ),
    (
        &["setsid", "timeout "],
        "The script mentions timeout or setsid: without namespaces, scripts cannot start a session; use \
         timeout --foreground.",
        &[],
    ),
    (
        &["sudo", "su -"],
        "The script mentions sudo or su: scripts cannot change the user in the sandbox.",
        &[],
    ),
];

/// Adds comments and suggestions for `[sandbox]`, based on the script's text. Returns the address of clamd if the script passes files
/// to it.
pub(crate) fn sandbox(script: &Path, draft: &mut Draft) -> Option<ClamdAddress> {
    draft.comment(
        "sandbox",
        "The old scanner ran the script with its own permissions. This scanner runs it in a sandbox: it can read \
         /usr, the script, library configuration in /etc, and read_only_paths; it has no network except \
         unix_sockets and tcp_ports, no /tmp (use $TMPDIR) and no /proc; its environment is PATH, LANG, HOME, \
         TMPDIR and `environment`. To list denied accesses, run: matrix-content-scanner -c THIS_FILE sandbox -- \
         SCRIPT ANY_FILE",
    );
    let text = script_text(script, draft)?;
    let interpreter = text.lines().next().unwrap_or_default().trim_start_matches("#!").trim();
    let interpreter = interpreter.split_whitespace().next().unwrap_or_default();
    let mut lists: BTreeMap<&str, Vec<String>> = BTreeMap::new();
    if !["/bin/", "/usr/", "/sbin/"].iter().any(|visible| interpreter.starts_with(visible)) {
        draft.comment("sandbox", "The interpreter is outside /usr, so the sandbox must allow it.");
        lists.entry("read_only_paths").or_default().push(quoted(interpreter));
    }
    for (words, comment, settings) in SCRIPT_HINTS {
        if words.iter().any(|word| text.contains(word)) {
            draft.comment("sandbox", comment);
            for (key, element) in settings {
                lists.entry(key).or_default().push((*element).into());
            }
        }
    }
    if !lists.is_empty() {
        draft.comment("sandbox", "Uncomment the lines that are correct:");
    }
    for (key, elements) in lists {
        draft.suggest("sandbox", format!("{key} = [{}]", elements.join(", ")));
    }
    clamd::find(&text)
}

/// Returns the text of a script: of the file, or of the script with this name in the manifest. Binary programs and unreadable
/// files give no hints.
fn script_text(script: &Path, draft: &Draft) -> Option<String> {
    // Opening a named pipe or terminal could block.
    if !script.is_file() {
        return draft.scripts.get(script.file_name()?.to_str()?).cloned();
    }
    let mut text = Vec::new();
    File::open(script).ok()?.take(MAX_SCRIPT).read_to_end(&mut text).ok()?;
    String::from_utf8(text).ok().filter(|text| text.starts_with("#!"))
}

/// Offers the engine `clamd` in place of a script that passes files to clamd.
fn clamd_engine(script: &Setting<String>, found: &ClamdAddress, draft: &mut Draft) {
    let ClamdAddress { address, is_found } = found;
    let source = if *is_found {
        "found in the script"
    } else {
        "the default of Debian; see LocalSocket, TCPAddr and TCPSocket in clamd.conf"
    };
    draft.comment(
        "scan",
        "The script passes files to clamd. The engine clamd does that without a script and without permissions of the \
         sandbox, and distinguishes failures from infections. To use it, replace `script` and `engines` by this line, and \
         check [clamd] (docs/engines.md):",
    );
    draft.suggest("scan", r#"engines = ["clamd"]"#);
    draft.comment("clamd", format!("Address of clamd, {source}:"));
    draft.suggest("clamd", format!("addresses = [{}]", quoted(address)));
    draft.remarks.push(script.suggestion(format!(
        "passes files to clamd: the engine clamd does that without a script. To use it, follow the comments in [scan] and \
         [clamd] ({address})"
    )));
}

/// Converts the port, and moves the operations listener if its default port is the same.
pub(crate) fn port(port: &Setting<String>, draft: &mut Draft) {
    draft.set("web", "port", number(port), port);
    if port.value.parse() == Ok(OPERATIONS_PORT) {
        draft.comment_next_key("Port for metrics and health; the default, 8081, is used by [web].");
        draft.set_new("operations", "port", TomlValue::Scalar((OPERATIONS_PORT + 1).to_string()));
    }
}

/// Returns a number as TOML, or other text as a string, which the validation rejects with an explanation.
pub(crate) fn number(found: &Setting<String>) -> TomlValue {
    TomlValue::Scalar(integer(&found.value))
}

/// Formats an integer as TOML. A number with a leading zero becomes a string: the Python scanner read such a number as
/// octal (YAML 1.1), the Node scanner as decimal.
pub(crate) fn integer(text: &str) -> String {
    let digits = text.trim_start_matches(['-', '+']);
    let is_decimal = digits == "0" || !digits.starts_with('0');
    match text.parse::<i64>() {
        Ok(number) if is_decimal => number.to_string(),
        _ => quoted(text),
    }
}

/// Adds comments to `[scan]` on differences in verdicts and time limits.
pub(crate) fn scan(clamd: Option<(&Setting<String>, ClamdAddress)>, draft: &mut Draft) {
    draft.comment_next_key(
        "Only the script scans, as before. ClamAV's daemon and ICAP servers can be used without a script.",
    );
    draft.set_new("scan", "engines", TomlValue::texts(["script"]));
    if let Some((script, address)) = clamd {
        clamd_engine(script, &address, draft);
    }
    draft.comment(
        "scan",
        "The old scanner had no time limit, and took every exit code except 0 for an infection, even if the \
         script was killed or missing. Here, a script that is killed, exceeds `timeout` or cannot start is a \
         failure (500), as are these exit codes, which a shell returns if it cannot find or execute a program; \
         failures are not cached as verdicts. Add 2 for clamdscan, which means that the scan failed.",
    );
    draft.suggest("scan", "failure_exit_codes = [126, 127]");
    draft.suggest("scan", r#"timeout = "60s""#);
    draft.comment(
        "scan",
        "At startup and every ten minutes, the script scans an infected and a clean test file; while a result is \
         wrong, no media is served. If the script does not detect the EICAR test file, configure your own \
         samples, or \"off\".",
    );
    draft.suggest("scan", r#"canary = "eicar""#);
}

pub(crate) fn temp_directory(directory: Option<Setting<String>>, draft: &mut Draft) {
    let Some(directory) = directory else { return };
    let path = paths::path(&directory.value, &draft.base);
    draft.set("scan", "temp_directory", TomlValue::path(&path), &directory);
}

/// Adds a comment to `[download]` on the homeserver and on authorisation.
pub(crate) fn homeserver(is_configured: bool, draft: &mut Draft) {
    if is_configured {
        draft.comment(
            "download",
            "The old scanner served cached media to everybody. This scanner checks each requester's access with \
             the homeserver, using the requester's token; a permission is cached for authorisation_ttl (5s).",
        );
    } else {
        draft.comment(
            "download",
            "Without a homeserver, media is fetched without token from the server in its mxc URI, and only from \
             globally reachable addresses (allow_private_addresses). Current homeservers serve media only to \
             authenticated requests: set base_homeserver_url.",
        );
    }
}

pub(crate) fn download_limits(draft: &mut Draft) {
    draft.comment(
        "download",
        "The old scanner had no limits on size and time. The limits here are:",
    );
    draft.suggest("download", r#"max_size = "256MiB""#);
    draft.suggest("download", r#"total_timeout = "5m""#);
}

pub(crate) fn kept_key(draft: &mut Draft, from: Predecessor) {
    draft.comment(
        "crypto",
        format!("The key file of {from}; clients see the same public key. The service's user must be able to read it."),
    );
}

/// Adds a remark if the key file does not exist.
pub(crate) fn missing_key(key: &Setting<String>, path: &Path, draft: &mut Draft) {
    if !path.is_file() {
        let remark = key.mistake(format!(
            "{} does not exist; relative paths are resolved against the directory in which the scanner was \
             started (--base)",
            path.display()
        ));
        draft.remarks.push(remark);
    }
}

/// Converts a libolm pickle and its key, of either scanner.
pub(crate) fn pickle(
    path: Option<Setting<String>>,
    key: Option<Setting<String>>,
    draft: &mut Draft,
    from: Predecessor,
) {
    if path.is_some() || key.is_some() {
        kept_key(draft, from);
        draft.comment(
            "crypto",
            "A missing pickle is an error; none is generated. Better set its key in the environment: \
             MCS_CRYPTO__PICKLE_KEY.",
        );
    }
    if let Some(pickle) = path {
        let path = paths::path(&pickle.value, &draft.base);
        missing_key(&pickle, &path, draft);
        draft.set("crypto", "pickle_path", TomlValue::path(&path), &pickle);
    }
    if let Some(key) = key {
        draft.set("crypto", "pickle_key", TomlValue::text(&key.value), &key);
    }
}
