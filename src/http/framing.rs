//! Observes the bytes of requests before hyper parses them, and finds headers that a proxy in front of the service may
//! delimit differently: request smuggling, RFC 9112, sections 2.2, 6.1, 6.3 and 11.2.
//!
//! hyper accepts some of them (a `Content-Length` beside a `Transfer-Encoding`, a repeated `Content-Length`, lines that
//! end in LF alone) and leaves no trace of them in the parsed header. The observer changes no byte.

use axum::http::{HeaderMap, HeaderValue, header};

/// Property of a request after which the next request of the connection is not observed, so the connection is closed
/// after the response.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Framing {
    /// The body is chunked. Valid, but proxies and servers disagree about malformed chunks more than about any other
    /// framing.
    Chunked,
    /// Two parsers may disagree about the end of the request.
    Ambiguous(&'static str),
    /// The body has a transfer coding other than `chunked`.
    UnsupportedCoding,
}

/// What has been received of a request.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum ReceivedPart {
    Nothing,
    /// The beginning of the header.
    Beginning,
    /// The complete header.
    Header,
}

/// Parser of the framing of consecutive requests.
#[derive(Default)]
pub(super) struct FramingObserver {
    state: State,
    /// Number of complete headers.
    headers: u64,
    /// Beginning of a line whose end has not been received. hyper limits the size of a header.
    line: Vec<u8>,
    fields: FramingFields,
}

#[derive(Clone, Copy, Default)]
enum State {
    /// Before the request line.
    #[default]
    Start,
    /// Within the header fields.
    Fields,
    /// Within a body with this number of bytes left.
    Body(u64),
    /// After a finding.
    Stopped,
}

/// Framing fields of one header.
#[derive(Clone, Copy, Default)]
struct FramingFields {
    length: Option<u64>,
    coding: Option<Coding>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Coding {
    Chunked,
    Other,
}

impl FramingObserver {
    /// Observes received bytes. Returns the first finding, with the number of its request (from 0).
    pub(super) fn observe(&mut self, mut bytes: &[u8]) -> Option<(u64, Framing)> {
        while !bytes.is_empty() {
            match self.state {
                State::Stopped => return None,
                State::Body(left) => {
                    let length = usize::try_from(left).unwrap_or(usize::MAX).min(bytes.len());
                    bytes = bytes.get(length..).unwrap_or_default();
                    let left = left - length as u64;
                    self.state = if left == 0 { State::Start } else { State::Body(left) };
                }
                State::Start | State::Fields => {
                    let Some(end) = bytes.iter().position(|&byte| byte == b'\n') else {
                        self.line.extend_from_slice(bytes);
                        return None;
                    };
                    let (line, rest) = bytes.split_at_checked(end + 1).unwrap_or((bytes, &[]));
                    bytes = rest;
                    let number = self.headers;
                    if let Err(framing) = self.end_of_line(line) {
                        self.state = State::Stopped;
                        self.line = Vec::new();
                        return Some((number, framing));
                    }
                }
            }
        }
        None
    }

    /// Returns what has been received of the request with this number (from 0). After a finding, no part of a later
    /// request is observed.
    pub(super) fn received(&self, number: u64) -> ReceivedPart {
        let is_within_header = match self.state {
            State::Start => !self.line.is_empty(),
            State::Fields => true,
            State::Body(_) | State::Stopped => false,
        };
        if self.headers > number {
            ReceivedPart::Header
        } else if is_within_header {
            ReceivedPart::Beginning
        } else {
            ReceivedPart::Nothing
        }
    }

    /// Processes a line, of which `rest` is the part that was received last, with its LF.
    fn end_of_line(&mut self, rest: &[u8]) -> Result<(), Framing> {
        if self.line.is_empty() {
            return self.process(rest);
        }
        let mut line = std::mem::take(&mut self.line);
        line.extend_from_slice(rest);
        self.process(&line)
    }

    fn process(&mut self, line: &[u8]) -> Result<(), Framing> {
        let line = line
            .strip_suffix(b"\r\n")
            .ok_or(Framing::Ambiguous("a line of the header ends in LF alone"))?;
        match self.state {
            // RFC 9112, section 2.2: empty lines before the request line are ignored.
            State::Start if line.is_empty() => Ok(()),
            State::Start => {
                self.state = State::Fields;
                Ok(())
            }
            _ if line.is_empty() => self.end_of_header(),
            _ => self.fields.add(line),
        }
    }

    fn end_of_header(&mut self) -> Result<(), Framing> {
        self.headers += 1;
        let FramingFields { length, coding } = std::mem::take(&mut self.fields);
        match (length, coding) {
            (Some(_), Some(_)) => {
                Err(Framing::Ambiguous("both Content-Length and Transfer-Encoding"))
            }
            (_, Some(Coding::Chunked)) => Err(Framing::Chunked),
            (_, Some(Coding::Other)) => Err(Framing::UnsupportedCoding),
            (None | Some(0), None) => {
                self.state = State::Start;
                Ok(())
            }
            (Some(length), None) => {
                self.state = State::Body(length);
                Ok(())
            }
        }
    }
}

impl FramingFields {
    fn add(&mut self, line: &[u8]) -> Result<(), Framing> {
        // Decides for almost all fields.
        if !matches!(line.first(), Some(b'C' | b'c' | b'T' | b't' | b' ' | b'\t')) {
            return Ok(());
        }
        if line.starts_with(b" ") || line.starts_with(b"\t") {
            return Err(Framing::Ambiguous("a header field is folded"));
        }
        let Some(colon) = line.iter().position(|&byte| byte == b':') else { return Ok(()) };
        let (name, value) = line.split_at_checked(colon).unwrap_or((line, &[]));
        let value = value.get(1..).unwrap_or_default().trim_ascii();
        if name.eq_ignore_ascii_case(b"content-length") {
            // Also two equal values: RFC 9112, section 6.3 permits both, and some proxies use only one of them.
            let length = parse_length(value).filter(|_| self.length.is_none());
            self.length =
                Some(length.ok_or(Framing::Ambiguous("Content-Length is not one number"))?);
        } else if name.eq_ignore_ascii_case(b"transfer-encoding") {
            let is_chunked = |coding: &[u8]| coding.trim_ascii().eq_ignore_ascii_case(b"chunked");
            let mut codings = value.split(|&byte| byte == b',');
            if self.coding == Some(Coding::Chunked)
                || (codings.clone().count() > 1 && codings.all(is_chunked))
            {
                return Err(Framing::Ambiguous("chunked is not the last and only transfer coding"));
            }
            let is_single_chunked = self.coding.is_none() && is_chunked(value);
            self.coding = Some(if is_single_chunked { Coding::Chunked } else { Coding::Other });
        }
        Ok(())
    }
}

/// Parses `1*DIGIT`; `u64::from_str` accepts a plus sign.
fn parse_length(value: &[u8]) -> Option<u64> {
    let digits = !value.is_empty() && value.iter().all(u8::is_ascii_digit);
    std::str::from_utf8(value).ok().filter(|_| digits)?.parse().ok()
}

/// Marks a response as the last one of its connection.
pub(super) fn close_after(headers: &mut HeaderMap) {
    headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
}

#[cfg(test)]
mod tests {
    use super::*;

    const NEXT: &str = "GET /next HTTP/1.1\r\nhost: x\r\ncontent-length: 1, 1\r\n\r\n";

    /// Observes the bytes in pieces of `size` bytes.
    fn observe(bytes: &str, size: usize) -> Option<(u64, Framing)> {
        let mut observer = FramingObserver::default();
        bytes.as_bytes().chunks(size).find_map(|piece| observer.observe(piece))
    }

    fn observe_fields(fields: &str, body: &str) -> Option<(u64, Framing)> {
        let bytes = format!("\r\nPOST /x HTTP/1.1\r\nhost: x\r\n{fields}\r\n{body}{NEXT}");
        let whole = observe(&bytes, usize::MAX);
        for size in 1..40 {
            assert_eq!(observe(&bytes, size), whole, "{bytes:?} in pieces of {size}");
        }
        whole
    }

    #[test]
    fn finds_ambiguous_framing_of_the_first_request() {
        for fields in [
            "content-length: 5\r\ntransfer-encoding: chunked\r\n",
            "Transfer-Encoding: chunked\r\nContent-Length: 5\r\n",
            "content-length: 5\r\ncontent-length: 5\r\n",
            "content-length: 5\r\nContent-Length: 6\r\n",
            "content-length: 5, 5\r\n",
            "content-length: +5\r\n",
            "content-length: -0\r\n",
            "content-length: 0x5\r\n",
            "content-length: 5 5\r\n",
            "content-length:\r\n",
            "content-length: 18446744073709551616\r\n",
            "transfer-encoding: chunked\r\ntransfer-encoding: chunked\r\n",
            "transfer-encoding: chunked, chunked\r\n",
            "transfer-encoding: chunked\r\ntransfer-encoding: identity\r\n",
            "x: y\ntransfer-encoding: chunked\r\n",
            "x: y\n",
            "x: y\r\n continued\r\n",
            "x: y\r\n\ttransfer-encoding: chunked\r\n",
        ] {
            let found = observe_fields(fields, "");
            assert!(matches!(found, Some((0, Framing::Ambiguous(_)))), "{fields:?}: {found:?}");
        }
    }

    #[test]
    fn distinguishes_chunked_from_other_codings() {
        for (value, framing) in [
            ("chunked", Framing::Chunked),
            ("CHUNKED\t", Framing::Chunked),
            ("gzip, chunked", Framing::UnsupportedCoding),
            ("gzip\r\ntransfer-encoding: chunked", Framing::UnsupportedCoding),
            ("identity", Framing::UnsupportedCoding),
            ("chunked, identity", Framing::UnsupportedCoding),
            ("xchunked", Framing::UnsupportedCoding),
            ("\"chunked\"", Framing::UnsupportedCoding),
            ("", Framing::UnsupportedCoding),
        ] {
            let found = observe_fields(&format!("transfer-encoding: {value}\r\n"), "0\r\n\r\n");
            assert_eq!(found, Some((0, framing)), "{value:?}");
        }
    }

    #[test]
    fn reports_the_received_part_of_each_request() {
        use ReceivedPart::{Beginning, Header, Nothing};
        let mut observer = FramingObserver::default();
        for (bytes, expected) in [
            ("", [Nothing, Nothing]),
            ("\r\n", [Nothing, Nothing]),
            ("P", [Beginning, Beginning]),
            ("OST / HTTP/1.1\r\n", [Beginning, Beginning]),
            ("content-length: 3\r\n\r", [Beginning, Beginning]),
            ("\n", [Header, Nothing]),
            ("abc", [Header, Nothing]),
            ("GET / HTTP/1.1\r\n", [Header, Beginning]),
            ("\r\n", [Header, Header]),
        ] {
            assert_eq!(observer.observe(bytes.as_bytes()), None);
            assert_eq!([0, 1].map(|number| observer.received(number)), expected, "{bytes:?}");
        }
        // Nothing after a chunked body is a request.
        let chunked = b"POST / HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\nGET /";
        assert_eq!(observer.observe(chunked), Some((2, Framing::Chunked)));
        assert_eq!([2, 3].map(|number| observer.received(number)), [Header, Nothing]);
    }

    #[test]
    fn follows_bodies_to_the_next_request() {
        // The bodies look like headers; the finding of `NEXT` shows where the next request begins.
        for (fields, body) in [
            ("", ""),
            ("content-length: 0\r\n", ""),
            ("content-length: 5\r\n", "a\nb\r\n"),
            ("Content-Length:\t0026  \r\n", "transfer-encoding: x\r\n\r\n\r\n"),
            ("content-type: a\r\ntransfer: b\r\nx-content-length: 99\r\n", ""),
        ] {
            let found = observe_fields(fields, body);
            assert!(matches!(found, Some((1, Framing::Ambiguous(_)))), "{fields:?}: {found:?}");
        }
    }
}
