//! A media's name, parsed once. What is refused here never becomes a URL, a file or a cache entry;
//! knows no network. Matrix specification: appendices, "Server name"; client-server API, "Matrix
//! content (`mxc://`) URIs".

use std::{fmt, net::Ipv6Addr, sync::Arc};

/// A media's name: a server name of the Matrix grammar and a media id of `[A-Za-z0-9_-]`, at most
/// 255 bytes each.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct MediaId {
    server_name: Arc<str>,
    media_id: Arc<str>,
}

/// Why a name cannot be a media's. The name is not repeated: it may be anything.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("not a media's name: {0}")]
pub struct InvalidMediaId(&'static str);

/// Bytes, for a server name and a media id alike.
const MAX_LEN: usize = 255;

impl MediaId {
    /// From the two segments of a path, percent-decoded.
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

    /// From exactly `mxc://serverName/mediaId`, as an `EncryptedFile` has it.
    pub fn from_mxc(uri: &str) -> Result<Self, InvalidMediaId> {
        let (server_name, media_id) = uri
            .strip_prefix("mxc://")
            .and_then(|rest| rest.split_once('/'))
            .ok_or(InvalidMediaId("not of the form mxc://serverName/mediaId"))?;
        Self::parse(server_name, media_id)
    }

    /// The server name with its port, if it has one.
    #[must_use]
    pub fn server_name(&self) -> &str {
        &self.server_name
    }

    /// The server name without its port; an IPv6 address keeps its brackets.
    #[must_use]
    pub fn host(&self) -> &str {
        split_port(&self.server_name).0
    }

    /// The id on that server.
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

/// A Host or server name without its port, and the port where a colon announces one.
pub(super) fn split_port(name: &str) -> (&str, Option<&str>) {
    // The last colon that is not inside an IPv6 address' brackets.
    match name.rsplit_once(':') {
        Some((host, port)) if !port.contains(']') => (host, Some(port)),
        _ => (name, None),
    }
}

fn is_server_name(name: &str) -> bool {
    let (host, port) = split_port(name);
    port.is_none_or(is_port) && (is_dns_name(host) || is_bracketed_v6(host))
}

fn is_port(port: &str) -> bool {
    (1..=5).contains(&port.len())
        && port.bytes().all(|b| b.is_ascii_digit())
        && port.parse::<u16>().is_ok()
}

/// Covers IPv4 addresses too, which are made of the same characters.
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
    fn names_of_the_grammar_are_accepted() {
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

    /// Each stands for a way to leave a directory, a URL, a header or a shell word.
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
    fn two_hundred_hostile_names_are_refused() {
        let mut refused = 0;
        for server in HOSTILE.iter().chain(HOSTILE_SERVERS).copied().chain([&*"a".repeat(256)]) {
            assert!(MediaId::parse(server, "x").is_err(), "{server:?}");
            assert!(MediaId::from_mxc(&format!("mxc://{server}/x")).is_err(), "{server:?}");
            refused += 1;
        }
        for id in HOSTILE.iter().chain(HOSTILE_MEDIA_IDS).copied().chain([&*"x".repeat(256)]) {
            assert!(MediaId::parse("example.org", id).is_err(), "{id:?}");
            assert!(MediaId::from_mxc(&format!("mxc://example.org/{id}")).is_err(), "{id:?}");
            refused += 1;
        }
        assert!(refused >= 200, "{refused}");
    }

    #[test]
    fn only_the_exact_form_is_an_mxc_uri() {
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
        fn any_text_is_refused_or_survives_the_round_trip(
            server in "[a-zA-Z0-9.:\\[\\]%/@-]{0,40}|\\PC{0,20}",
            media in "[a-zA-Z0-9_-]{1,20}|\\PC{0,20}",
        ) {
            if let Ok(id) = MediaId::parse(&server, &media) {
                prop_assert_eq!(id.server_name(), &server);
                prop_assert_eq!(MediaId::from_mxc(&id.to_string()), Ok(id));
            }
        }

        #[test]
        fn any_text_is_taken_for_an_mxc_uri_without_panic(uri in "(mxc:/{0,3})?\\PC{0,40}") {
            if let Ok(id) = MediaId::from_mxc(&uri) {
                prop_assert_eq!(id.to_string(), uri);
            }
        }
    }
}
