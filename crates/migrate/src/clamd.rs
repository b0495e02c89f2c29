//! Recognizes scan scripts that pass files to clamd, and the address of clamd in them.

/// The port of clamd in all scripts that were found (`clamd.conf(5)`, `TCPSocket`).
const PORT: &str = "3310";

/// Words of scripts that speak clamd's protocol, or run its client.
const WORDS: [&str; 8] = [
    "INSTREAM",
    "clamdscan",
    "clamdtop",
    "pyclamd",
    "ClamdNetworkSocket",
    "ClamdUnixSocket",
    "clamd.ctl",
    "clamd.sock",
];

/// Default address of the engine.
pub(crate) const DEFAULT_ADDRESS: &str = "/run/clamav/clamd.ctl";

/// Number of words before the port in which a host is searched.
const MAX_DISTANCE: usize = 12;

/// Words before a port that are no hosts.
const NO_HOSTS: [&str; 16] = [
    "int", "str", "port", "host", "nc", "ncat", "netcat", "socat", "connect", "timeout", "get",
    "getenv", "if", "else", "exec", "default",
];

/// Address of clamd, as the engine's setting `clamd.addresses` contains it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct ClamdAddress {
    pub(crate) address: String,
    /// Whether the address is in the script, and not the default.
    pub(crate) is_found: bool,
}

/// A word of a script, without the punctuation around it.
struct Word<'a> {
    text: &'a str,
    is_quoted: bool,
}

/// Returns the address if the script passes files to clamd.
pub(crate) fn find(script: &str) -> Option<ClamdAddress> {
    let mentions_clamd = WORDS.iter().any(|word| script.contains(word));
    let connects = script.contains(PORT)
        && ["create_connection", ".connect(", "/dev/tcp/", "nc "]
            .iter()
            .any(|call| script.contains(call));
    if !mentions_clamd && !connects {
        return None;
    }
    let words = words(script);
    let is_tcp = !script.contains("clamdscan");
    let found = socket_path(&words)
        .or_else(|| tcp_address(&words).filter(|_| is_tcp || script.contains(PORT)));
    let is_found = found.is_some();
    Some(ClamdAddress { address: found.unwrap_or_else(|| DEFAULT_ADDRESS.to_owned()), is_found })
}

fn words(script: &str) -> Vec<Word<'_>> {
    let is_word = |c: char| c.is_ascii_alphanumeric() || "._/:-".contains(c);
    let mut words = Vec::new();
    for line in script.lines().filter(|line| !line.trim_start().starts_with('#')) {
        let mut start = None;
        for (at, c) in line.char_indices().chain([(line.len(), ' ')]) {
            match (start, is_word(c)) {
                (None, true) => start = Some(at),
                (Some(from), false) => {
                    let before = line.get(..from).and_then(|before| before.chars().last());
                    // `${HOST:-clamav}`
                    let text = line.get(from..at).unwrap_or_default();
                    let text = text.rsplit(":-").next().unwrap_or_default();
                    words.push(Word { text, is_quoted: matches!(before, Some('"' | '\'')) });
                    start = None;
                }
                _ => {}
            }
        }
    }
    words
}

fn socket_path(words: &[Word<'_>]) -> Option<String> {
    let is_socket = |text: &&str| {
        let has_suffix = [".ctl", ".sock", ".socket"].iter().any(|suffix| text.ends_with(suffix));
        text.starts_with('/') && text.contains("clam") && has_suffix
    };
    words.iter().map(|word| word.text).find(is_socket).map(str::to_owned)
}

/// Returns the first `host:3310`, `/dev/tcp/host/3310`, or a host shortly before the port.
fn tcp_address(words: &[Word<'_>]) -> Option<String> {
    for (at, word) in words.iter().enumerate() {
        let host = match word.text.strip_suffix(PORT) {
            Some("") => {
                let before = words.get(at.saturating_sub(MAX_DISTANCE)..at).unwrap_or_default();
                let is_any_quoted = before.iter().any(|word| word.is_quoted && is_host(word.text));
                let candidates =
                    before.iter().rev().filter(|word| word.is_quoted || !is_any_quoted);
                candidates.map(|word| word.text).find(|text| is_host(text))
            }
            Some(rest) => {
                let host = rest
                    .strip_suffix([':', '/'])
                    .map(|host| host.rsplit('/').next().unwrap_or(host));
                host.filter(|host| is_host(host))
            }
            None => None,
        };
        if let Some(host) = host {
            return Some(format!("{host}:{PORT}"));
        }
    }
    None
}

/// Returns whether the word can be a host: a name in lower case, or an IPv4 address.
fn is_host(text: &str) -> bool {
    let is_character =
        |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b".-".contains(&byte);
    let is_number = text.bytes().all(|byte| byte.is_ascii_digit());
    // `socket.create_connection`, `sys.argv`
    let is_module = ["os.", "sys.", "socket.", "sock.", "s.", "self."]
        .iter()
        .any(|start| text.starts_with(start));
    text.starts_with(|c: char| c.is_ascii_alphanumeric())
        && text.ends_with(|c: char| c.is_ascii_alphanumeric())
        && text.bytes().all(is_character)
        && !is_number
        && !is_module
        && !NO_HOSTS.contains(&text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn address_is_found_in_scripts() {
        for (script, address) in [
            (
                "s = socket.create_connection((\"clamav\", 3310), timeout=30)\ns.sendall(b'zINSTREAM')",
                "clamav:3310",
            ),
            (
                "clamav_host = 'av.svc.cluster.local'\nclamav_port = 3310\nsock.send(b\"zINSTREAM\\0\")",
                "av.svc.cluster.local:3310",
            ),
            (
                "HOST = os.environ.get(\"CLAMD_HOST\", \"clamd-1\")\nPORT = int(os.getenv(\"CLAMD_PORT\", \"3310\"))\n# INSTREAM\ns.send(b'nINSTREAM')",
                "clamd-1:3310",
            ),
            ("exec 3<>/dev/tcp/10.0.0.7/3310\nprintf 'zINSTREAM\\0' >&3", "10.0.0.7:3310"),
            (
                "HOST=${CLAMD_HOST:-clamd}\nPORT=3310\n{ printf zINSTREAM; cat \"$1\"; } | nc \"$HOST\" $PORT",
                "clamd:3310",
            ),
            ("printf nINSTREAM | nc -w 5 clamav 3310", "clamav:3310"),
            ("curl -T - telnet://clamav:3310 # zINSTREAM\necho zINSTREAM", "clamav:3310"),
            ("cd = pyclamd.ClamdNetworkSocket(host='scanner', port=3310)", "scanner:3310"),
            (
                "clamdscan --fdpass /x --config-file=/etc/c.conf # /run/clam/other\nS=/var/run/clamav/clamd.sock",
                "/var/run/clamav/clamd.sock",
            ),
        ] {
            let found = find(script).unwrap_or_else(|| panic!("{script}"));
            assert_eq!((&*found.address, found.is_found), (address, true), "{script}");
        }
    }

    #[test]
    fn default_address_stands_for_a_missing_one() {
        for script in [
            "clamdscan --stream --no-summary \"$1\"",
            "send('INSTREAM'); connect(sys.argv[2], PORT)",
        ] {
            let found = find(script).unwrap_or_else(|| panic!("{script}"));
            assert_eq!((&*found.address, found.is_found), (DEFAULT_ADDRESS, false), "{script}");
        }
    }

    #[test]
    fn other_scripts_are_not_taken_for_clients_of_clamd() {
        for script in ["clamscan \"$1\"", "exit 0", "curl http://scanner:3311", "echo 3310", ""] {
            assert_eq!(find(script), None, "{script}");
        }
    }
}
