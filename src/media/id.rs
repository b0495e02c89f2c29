//! Media identifiers. Invalid names are rejected before they are used in URLs, files or cache keys. Matrix
//! specification: appendices, section "Server name"; client-server API, section "Matrix content (`mxc://`) URIs".

use std::{fmt, net::Ipv6Addr, sync::Arc};

/// Server name (Matrix grammar) and media id (`[A-Za-z0-9_-]`) of a file, at most 255 bytes each.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct MediaId {
    server_name: Arc<str>,
    media_id: Arc<str>,
}

/// The name is not a valid media identifier. The message does not repeat the name, which may contain any characters.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("invalid media identifier: {0}")]
pub struct InvalidMediaId(&'static str);

/// Maximum length of a server name and of a media id, in bytes.
const MAX_LEN: usize = 255;

impl MediaId {
    /// Parses two percent-decoded segments of a path.
    pub fn parse(server_name: &str, media_id: &str) -> Result<Self, InvalidMediaId> {
        if server_name.len() > MAX_LEN {
            return Err(InvalidMediaId("the server name is too long"));
        }
        if !is_server_name(server_name) {
            return Err(InvalidMediaId("the server name does not follow the grammar"));
        }
        if media_id.is_empty() || media_id.len() > MAX_LEN {
            return Err(InvalidMediaId("the media id is empty or too long"));
        }
        if !media_id.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'-') {
            return Err(InvalidMediaId("the media id has a character outside [A-Za-z0-9_-]"));
        }
        Ok(Self { server_name: server_name.into(), media_id: media_id.into() })
    }

    /// Parses `mxc://serverName/mediaId`, the form used in an `EncryptedFile`.
    pub fn from_mxc(uri: &str) -> Result<Self, InvalidMediaId> {
        let (server_name, media_id) = uri
            .strip_prefix("mxc://")
            .and_then(|rest| rest.split_once('/'))
            .ok_or(InvalidMediaId("not of the form mxc://serverName/mediaId"))?;
        Self::parse(server_name, media_id)
    }

    /// Returns the server name, including the port if it has one.
    #[must_use]
    pub fn server_name(&self) -> &str {
        &self.server_name
    }

    /// Returns the server name without the port. An IPv6 address keeps its brackets.
    #[must_use]
    pub fn host(&self) -> &str {
        split_port(&self.server_name).0
    }

    #[must_use]
    pub fn media_id(&self) -> &str {
        &self.media_id
    }
}

impl fmt::Display for MediaId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "mxc://{}/{}", self.server_name, self.media_id)
    }
}

/// Splits a `Host` or server name into host and port. The port is none if there is no colon.
pub(crate) fn split_port(name: &str) -> (&str, Option<&str>) {
    // The last colon, unless it is within the brackets of an IPv6 address.
    match name.rsplit_once(':') {
        Some((host, port)) if !port.contains(']') => (host, Some(port)),
        _ => (name, None),
    }
}

pub(super) fn is_server_name(name: &str) -> bool {
    let (host, port) = split_port(name);
    port.is_none_or(is_port) && (is_dns_name(host) || is_bracketed_v6(host))
}

fn is_port(port: &str) -> bool {
    (1..=5).contains(&port.len())
        && port.bytes().all(|b| b.is_ascii_digit())
        && port.parse::<u16>().is_ok()
}

/// Also accepts IPv4 addresses, which consist of the same characters.
fn is_dns_name(host: &str) -> bool {
    host.split('.').all(|label| {
        !label.is_empty() && label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
    })
}

fn is_bracketed_v6(host: &str) -> bool {
    host.strip_prefix('[')
        .and_then(|rest| rest.strip_suffix(']'))
        .is_some_and(|inner| inner.parse::<Ipv6Addr>().is_ok())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn accepts_names_of_the_grammar() {
        for server in [
            "a",
            "example.org",
            "matrix.example.org:8448",
            "EXAMPLE.org",
            "1.2.3.4",
            "1.2.3.4:65535",
            "[::1]",
            "[2001:db8::1]:8448",
            "[::ffff:1.2.3.4]:1",
            "localhost:00080",
            "xn--bcher-kva.example",
            &"a".repeat(255),
        ] {
            let id = MediaId::parse(server, "aZ09_-").unwrap();
            assert_eq!(MediaId::from_mxc(&id.to_string()), Ok(id), "{server}");
        }
        let id = MediaId::parse("[::1]:8448", "x").unwrap();
        assert_eq!((id.server_name(), id.host(), id.media_id()), ("[::1]:8448", "[::1]", "x"));
        assert_eq!(MediaId::parse("a.b:1", "x").unwrap().host(), "a.b");
        assert_eq!(MediaId::parse("[::1]", "x").unwrap().host(), "[::1]");
        MediaId::parse("a", &"x".repeat(255)).unwrap();
    }

    /// Attempts to escape from a directory, a URL, a header or a shell word.
    const HOSTILE: &[&str] = &[
        "",
        ".",
        "..",
        "../",
        "../..",
        "/..",
        "..\\",
        "....//",
        "%2e%2e",
        "%2f",
        "%252f",
        "a/..",
        "a/b",
        "/",
        "//",
        "\\",
        "a\\b",
        "\0",
        "a\0b",
        "\n",
        "\r\n",
        "a\r\nHost: b",
        "\t",
        " ",
        " a",
        "a ",
        "a b",
        "\u{7f}",
        "\u{1b}[0m",
        "?",
        "a?b",
        "#",
        "a#b",
        "&",
        "a&b",
        "=",
        "a=b",
        ";",
        "a;b",
        "|",
        "`id`",
        "$(id)",
        "${IFS}",
        "$HOME",
        "~",
        "~root",
        "*",
        "a*",
        "{a,b}",
        "(a)",
        "<a>",
        "'",
        "\"",
        "a'b",
        "a\"b",
        "!",
        "^",
        ",",
        "+",
        "%",
        "%00",
        "%zz",
        "@",
        "a@b",
        "user:pass@host",
        "@host",
        "a@",
        "http://a",
        "https://a/",
        "file:///etc/passwd",
        "mxc://a/b",
        "//evil.example",
        "ä",
        "é.example",
        "münchen.de",
        "日本",
        "🦀",
        "\u{202e}a",
        "\u{feff}a",
        "a\u{200b}",
        "\u{2024}\u{2024}",
        "．．",
        "／",
        "ａ",
        "aͤ",
        "\u{ff0e}",
        "١",
    ];

    const HOSTILE_SERVERS: &[&str] = &[
        ".a",
        "a.",
        "a..b",
        "..a",
        "a...",
        "example.org.",
        "-.",
        ".:80",
        ":",
        ":80",
        "a:",
        "a:b",
        "a:-1",
        "a:+1",
        "a: 1",
        "a:1 ",
        "a:65536",
        "a:99999",
        "a:000080",
        "a:1:2",
        "a:80:",
        "a::80",
        "::1",
        "2001:db8::1",
        "fe80::1%1",
        "[",
        "]",
        "[]",
        "[:]",
        "[::1",
        "::1]",
        "[::1]a",
        "a[::1]",
        "[::1]]",
        "[[::1]]",
        "[::1]:",
        "[::1]:x",
        "[::1]:65536",
        "[::1]::1",
        "[::1].a",
        "[::1]@a",
        "[::g]",
        "[1]",
        "[1.2.3.4]",
        "[a.b]",
        "[fe80::1%eth0]",
        "[fe80::1%25eth0]",
        "[v1.a]",
        "[:::1]",
        "[1:2:3:4:5:6:7:8:9]",
        "[::1 ]",
        "[ ::1]",
        "[::ffff:1.2.3]",
        "[::ffff:1.2.3.256]",
        "a_b",
        "_matrix",
        "a_b.example",
        "a:80/b",
        "a:80?b",
        "a:80#b",
        "a:0x50",
        "a:８０",
        "127.0.0.1.",
        "127..1",
        "0x7f.1/",
        "1.2.3.4:",
        "1.2.3.4:x",
        "1.2.3.4:65536",
        "1.2.3.4@5.6.7.8",
        "localhost:",
        "localhost%00",
        "localhost\\@a",
        "a,b",
        "a;b:80",
        "a.b:80:90",
        "*.example",
        "a..",
        "..:80",
        "a.\u{3002}b",
        "ex ample.org",
    ];

    const HOSTILE_MEDIA_IDS: &[&str] = &[
        "a.b",
        "a.png",
        ".a",
        "a.",
        ".htaccess",
        "a:b",
        "[a]",
        "a~",
        "aÄ",
        "a+b",
        "a/",
        "a%2Fb",
        "a==",
        "con:",
        "a\u{0}",
        "a.b.c",
        "-.",
        "--a=/",
        "a\u{301}",
    ];

    #[test]
    fn rejects_hostile_names() {
        let mut rejected = 0;
        for server in HOSTILE.iter().chain(HOSTILE_SERVERS).copied().chain([&*"a".repeat(256)]) {
            assert!(MediaId::parse(server, "x").is_err(), "{server:?}");
            assert!(MediaId::from_mxc(&format!("mxc://{server}/x")).is_err(), "{server:?}");
            rejected += 1;
        }
        for id in HOSTILE.iter().chain(HOSTILE_MEDIA_IDS).copied().chain([&*"x".repeat(256)]) {
            assert!(MediaId::parse("example.org", id).is_err(), "{id:?}");
            assert!(MediaId::from_mxc(&format!("mxc://example.org/{id}")).is_err(), "{id:?}");
            rejected += 1;
        }
        assert!(rejected >= 200, "{rejected}");
    }

    #[test]
    fn rejects_other_forms_of_mxc_uris() {
        for uri in [
            "",
            "mxc",
            "mxc:",
            "mxc:/a/b",
            "mxc://",
            "mxc:///",
            "mxc://a",
            "mxc://a/",
            "mxc:///b",
            "MXC://a/b",
            " mxc://a/b",
            "mxc://a/b ",
            "mxc://a/b/c",
            "mxc://a/b?c",
            "mxc://a/b#c",
            "mxc://a//b",
            "http://a/b",
            "a/b",
            "mxc://u@a/b",
        ] {
            assert!(MediaId::from_mxc(uri).is_err(), "{uri:?}");
        }
    }

    proptest! {
        #[test]
        fn accepted_names_survive_round_trip(
            server in "[a-zA-Z0-9.:\\[\\]%/@-]{0,40}|\\PC{0,20}",
            media in "[a-zA-Z0-9_-]{1,20}|\\PC{0,20}",
        ) {
            if let Ok(id) = MediaId::parse(&server, &media) {
                prop_assert_eq!(id.server_name(), &server);
                prop_assert_eq!(MediaId::from_mxc(&id.to_string()), Ok(id));
            }
        }

        #[test]
        fn arbitrary_text_does_not_panic(uri in "(mxc:/{0,3})?\\PC{0,40}") {
            if let Ok(id) = MediaId::from_mxc(&uri) {
                prop_assert_eq!(id.to_string(), uri);
            }
        }
    }
}
