//! What is said where both scanners differ from this one in the same way; and what a script seems to
//! need of the sandbox, by the words in it. Guesses are comments: what they open is the operator's to say.

use std::{collections::BTreeMap, fs::File, io::Read, path::Path};

use super::{
    Predecessor,
    draft::{Draft, Value},
    old::Found,
    places,
};
use crate::config::quoted;

/// The default of `operations.port`.
const OPERATIONS_PORT: u16 = 8081;

/// Enough of any script.
const MAX_SCRIPT: u64 = 64 * 1024;

/// Words in a script, what they tell, and what would allow it: a key and an element of its list.
type Sign = (&'static [&'static str], &'static str, &'static [(&'static str, &'static str)]);

const SIGNS: [Sign; 8] = [
    (
        &["clamdscan", "clamd.ctl", "clamd.sock"],
        "It names clamd, so it needs its socket and its configuration.",
        &[("unix_sockets", r#""/run/clamav/clamd.ctl""#), ("read_only_paths", r#""/etc/clamav""#)],
    ),
    (
        &["clamscan"],
        "It names clamscan, so it needs the signatures.",
        &[("read_only_paths", r#""/var/lib/clamav""#)],
    ),
    (&["icap"], "It names ICAP, so it needs that server's port.", &[("tcp_ports", "1344")]),
    (
        &["curl", "wget", "https://", "http://", "/dev/tcp/", "nc ", "ssh "],
        "It seems to use the network: list the ports, or allow all of it with network = \"host\".",
        &[("tcp_ports", "443")],
    ),
    (
        &["/tmp", "/var/tmp"],
        "It names /tmp or /var/tmp: it may write in $TMPDIR and beside the file that it is given, which only \
         this job has.",
        &[],
    ),
    (
        &["/proc", "/dev/stderr", "/dev/stdout", "/dev/fd"],
        "It names /proc or /dev/stderr, which are not there: write >&2 in place of >/dev/stderr.",
        &[],
    ),
    (
        &["setsid", "timeout "],
        "It names timeout or setsid: without namespaces no script can start a session; write \
         timeout --foreground.",
        &[],
    ),
    (
        &["sudo", "su -"],
        "It names sudo or su: nothing in the sandbox can become another user.",
        &[],
    ),
];

/// `[sandbox]`, for this script.
pub(super) fn sandbox(script: &Path, draft: &mut Draft) {
    draft.comment(
        "sandbox",
        "There a script ran as the scanner itself. Here it runs in a sandbox: it sees /usr, itself, what \
         libraries need of /etc, and read_only_paths; has no network but unix_sockets and tcp_ports, no /tmp (use \
         $TMPDIR) and no /proc; gets no variables but PATH, LANG, HOME, TMPDIR and `environment`. What it is \
         refused is told by: matrix-content-scanner -c THIS_FILE sandbox -- SCRIPT ANY_FILE",
    );
    let mut text = Vec::new();
    let read = File::open(script).and_then(|file| file.take(MAX_SCRIPT).read_to_end(&mut text));
    // A program or nothing at all tells nothing.
    let text = String::from_utf8(text).ok().filter(|text| read.is_ok() && text.starts_with("#!"));
    let Some(text) = text else { return };
    let interpreter = text.lines().next().unwrap_or_default().trim_start_matches("#!").trim();
    let interpreter = interpreter.split_whitespace().next().unwrap_or_default();
    let mut lists: BTreeMap<&str, Vec<String>> = BTreeMap::new();
    if !["/bin/", "/usr/", "/sbin/"].iter().any(|shown| interpreter.starts_with(shown)) {
        draft.comment("sandbox", "Its interpreter lies outside /usr, and has to be shown to it.");
        lists.entry("read_only_paths").or_default().push(quoted(interpreter));
    }
    for (words, means, allowed_by) in SIGNS {
        if words.iter().any(|word| text.contains(word)) {
            draft.comment("sandbox", means);
            for (key, element) in allowed_by {
                lists.entry(key).or_default().push((*element).into());
            }
        }
    }
    if !lists.is_empty() {
        draft.comment("sandbox", "Look what is right of this, and uncomment it:");
    }
    for (key, elements) in lists {
        draft.suggest("sandbox", format!("{key} = [{}]", elements.join(", ")));
    }
}

/// Where clients came in; metrics and health have a listener beside it, on a port that may be this one.
pub(super) fn port(port: &Found<String>, draft: &mut Draft) {
    draft.set("web", "port", number(port), port);
    if port.value.parse() == Ok(OPERATIONS_PORT) {
        draft.why("For metrics and health; 8081 is taken by the scanner itself.");
        draft.set_new("operations", "port", Value::One((OPERATIONS_PORT + 1).to_string()));
    }
}

/// A number as TOML, or what was there as text: `config` then says what is expected.
pub(super) fn number(found: &Found<String>) -> Value {
    Value::One(integer(&found.value))
}

/// With a leading zero it was an octal number to one scanner and a decimal to the other: text.
pub(super) fn integer(text: &str) -> String {
    let digits = text.trim_start_matches(['-', '+']);
    let is_decimal = digits == "0" || !digits.starts_with('0');
    match text.parse::<i64>() {
        Ok(number) if is_decimal => number.to_string(),
        _ => quoted(text),
    }
}

/// `[scan]`: how verdicts and times differ.
pub(super) fn scan(draft: &mut Draft) {
    draft.why(
        "As there, a script is asked, and nobody else. ClamAV's daemon and ICAP servers can be asked without one.",
    );
    draft.set_new("scan", "engines", Value::texts(["script"]));
    draft.comment(
        "scan",
        "There a script could run without end, and whatever was not exit code 0 was an infection, a killed or \
         missing program too. Here a script that is killed, runs into `timeout` or cannot start is a failure \
         (500), as are these codes, which are a shell's for a program that it cannot find or execute; none of \
         them is remembered as a verdict. clamdscan's 2, \"could not tell\", belongs here too.",
    );
    draft.suggest("scan", "failure_exit_codes = [126, 127]");
    draft.suggest("scan", r#"timeout = "60s""#);
    draft.comment(
        "scan",
        "The script is tried with a known-bad and a known-clean file, at start and every ten minutes; while it is \
         wrong about one, nothing is served. If it does not know the EICAR test file, name samples of your own, \
         or \"off\".",
    );
    draft.suggest("scan", r#"canary = "eicar""#);
}

pub(super) fn temp_directory(directory: Option<Found<String>>, draft: &mut Draft) {
    let Some(directory) = directory else { return };
    let path = places::path(&directory.value, &draft.base);
    draft.set("scan", "temp_directory", Value::path(&path), &directory);
}

/// `[download]`: whose media, and who may have it.
pub(super) fn homeserver(is_configured: bool, draft: &mut Draft) {
    if is_configured {
        draft.comment(
            "download",
            "There media in memory was given to anybody. Here the homeserver is asked for each requester, with \
             the requester's own token; its yes is good for authorisation_ttl (5s).",
        );
    } else {
        draft.comment(
            "download",
            "Without a homeserver, media is fetched from the server that its name names, without tokens, and from \
             globally reachable addresses only (allow_private_addresses). Current homeservers give out media \
             to tokens alone: set base_homeserver_url.",
        );
    }
}

pub(super) fn download_limits(draft: &mut Draft) {
    draft.comment(
        "download",
        "There media of any size was taken, and waited for without end. Here:",
    );
    draft.suggest("download", r#"max_size = "256MiB""#);
    draft.suggest("download", r#"total_timeout = "5m""#);
}

pub(super) fn kept_key(draft: &mut Draft, from: Predecessor) {
    draft.comment(
        "crypto",
        format!("The key of {from}, where it is: clients see the same public key. The service's user has to read it."),
    );
}

/// The key is kept, so it has to be there.
pub(super) fn missing_key(key: &Found<String>, path: &Path, draft: &mut Draft) {
    if !path.is_file() {
        let remark = key.mistake(format!(
            "{} is no file that can be seen from here; a relative path starts from the directory that the scanner \
             was started in (--base)",
            path.display()
        ));
        draft.remarks.push(remark);
    }
}

/// A libolm pickle and its key, of either scanner.
pub(super) fn pickle(
    path: Option<Found<String>>,
    key: Option<Found<String>>,
    draft: &mut Draft,
    from: Predecessor,
) {
    if path.is_some() || key.is_some() {
        kept_key(draft, from);
        draft.comment(
            "crypto",
            "A pickle that is gone is an error, and never made anew. Its key is better given in the \
             environment: MCS_CRYPTO__PICKLE_KEY.",
        );
    }
    if let Some(pickle) = path {
        let path = places::path(&pickle.value, &draft.base);
        missing_key(&pickle, &path, draft);
        draft.set("crypto", "pickle_path", Value::path(&path), &pickle);
    }
    if let Some(key) = key {
        draft.set("crypto", "pickle_key", Value::text(&key.value), &key);
    }
}
