//! Parsing of ICAP messages: heads, the `Encapsulated` header and chunked bodies, without I/O. Any input needs
//! bounded memory. RFC 3507 section 4, RFC 9112 section 7.1.

use bytes::{Buf, Bytes, BytesMut};

/// Maximum length of an ICAP head, and of the encapsulated HTTP heads, bytes.
pub(crate) const MAX_HEAD: usize = 64 * 1024;

/// Maximum number of headers in a head.
const MAX_HEADERS: usize = 128;

/// Maximum length of a chunk's size line, and of the trailer after the last chunk, bytes.
const MAX_CHUNK_LINE: usize = 1024;
const MAX_TRAILER: usize = 16 * 1024;

/// A parsed head.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub(crate) struct IcapHead {
    pub(crate) status: u16,
    headers: Vec<(String, Vec<u8>)>,
}

/// Description of what makes a message invalid.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Malformed(pub(super) &'static str);

/// The encapsulated parts of an ICAP message.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Encapsulated {
    /// Length of the HTTP heads, bytes.
    pub(crate) heads: usize,
    /// Whether the encapsulated message is an HTTP response.
    pub(crate) is_response: bool,
    /// Whether a body follows.
    pub(crate) has_body: bool,
}

impl Encapsulated {
    /// Returns whether nothing is encapsulated.
    pub(crate) fn is_empty(self) -> bool {
        self.heads == 0 && !self.has_body
    }
}

impl IcapHead {
    /// Removes a head from the beginning of `buffer` and parses it. Returns `None` if the head is incomplete.
    pub(crate) fn take(buffer: &mut BytesMut) -> Result<Option<Self>, Malformed> {
        let end = buffer.windows(4).position(|end| end == b"\r\n\r\n");
        match end.map(|end| end + 4) {
            Some(end) if end <= MAX_HEAD => Self::parse(&buffer.split_to(end)).map(Some),
            None if buffer.len() < MAX_HEAD => Ok(None),
            _ => Err(Malformed("head too long")),
        }
    }

    fn parse(bytes: &[u8]) -> Result<Self, Malformed> {
        // Except for the protocol name, an ICAP head has the syntax of an HTTP head.
        let mut bytes = bytes.to_vec();
        match bytes.first_chunk_mut::<5>() {
            Some(name) if name == b"ICAP/" => *name = *b"HTTP/",
            _ => return Err(Malformed("not an ICAP response")),
        }
        Self::parse_http(&bytes)
    }

    /// Parses the head of an HTTP response.
    pub(crate) fn parse_http(bytes: &[u8]) -> Result<Self, Malformed> {
        let mut headers = [httparse::EMPTY_HEADER; MAX_HEADERS];
        let mut response = httparse::Response::new(&mut headers);
        let mut parser = httparse::ParserConfig::default();
        // X-Violations-Found spans several lines.
        parser.allow_obsolete_multiline_headers_in_responses(true);
        match parser.parse_response(&mut response, bytes) {
            Ok(httparse::Status::Complete(length)) if length == bytes.len() => {}
            _ => return Err(Malformed("invalid head")),
        }
        let status = response.code.ok_or(Malformed("head without a status"))?;
        let headers = response.headers.iter().filter(|header| !header.name.is_empty());
        let headers =
            headers.map(|header| (header.name.to_ascii_lowercase(), header.value.to_vec()));
        Ok(Self { status, headers: headers.collect() })
    }

    /// Parses the head of an HTTP request, except the request line.
    pub(crate) fn parse_request(bytes: &[u8]) -> Result<Self, Malformed> {
        let line = bytes.windows(2).position(|end| end == b"\r\n");
        let headers = line.and_then(|line| bytes.get(line + 2..));
        Self::parse_headers(headers.ok_or(Malformed("invalid head"))?)
    }

    /// Parses headers without a start line, up to the empty line at their end.
    fn parse_headers(bytes: &[u8]) -> Result<Self, Malformed> {
        Self::parse_http(&[b"HTTP/1.1 200 OK\r\n", bytes].concat())
    }

    /// Returns all values of a header. `name` is in lower case.
    pub(crate) fn all<'h>(&'h self, name: &'h str) -> impl Iterator<Item = String> + 'h {
        let headers = self.headers.iter().filter(move |(header, _)| header == name);
        headers.map(|(_, value)| String::from_utf8_lossy(value.trim_ascii()).into_owned())
    }

    /// Returns the first value of a header that is not empty.
    pub(crate) fn first(&self, name: &str) -> Option<String> {
        self.all(name).find(|value| !value.is_empty())
    }

    /// Returns whether a header's comma-separated list contains `wanted`, ignoring case.
    pub(crate) fn lists(&self, name: &str, wanted: &str) -> bool {
        self.all(name)
            .any(|value| value.split(',').any(|item| item.trim().eq_ignore_ascii_case(wanted)))
    }

    /// Parses the `Encapsulated` header of a response to REQMOD or RESPMOD: at most one HTTP head, and its body.
    pub(crate) fn encapsulated(&self) -> Result<Encapsulated, Malformed> {
        const INVALID: Malformed = Malformed("invalid Encapsulated header");
        let mut values = self.all("encapsulated");
        let value = values.next().ok_or(Malformed("no Encapsulated header"))?;
        if values.next().is_some() {
            return Err(INVALID);
        }
        let part = |part: &str| -> Result<(String, usize), Malformed> {
            let (name, offset) = part.split_once('=').ok_or(INVALID)?;
            let offset = offset.trim();
            if offset.is_empty() || !offset.bytes().all(|byte| byte.is_ascii_digit()) {
                return Err(INVALID);
            }
            Ok((name.trim().to_ascii_lowercase(), offset.parse().map_err(|_| INVALID)?))
        };
        let parts: Vec<_> = value.split(',').map(part).collect::<Result<_, _>>()?;
        let (is_response, heads, body) = match parts.as_slice() {
            [(head, 0), (body, offset)] => (head == "res-hdr", *offset, body),
            [(body, 0)] => (body == "res-body", 0, body),
            _ => return Err(INVALID),
        };
        let [head_name, body_name] =
            if is_response { ["res-hdr", "res-body"] } else { ["req-hdr", "req-body"] };
        let has_body = body == body_name;
        let head_is_valid =
            parts.len() == 1 || parts.first().is_some_and(|(name, _)| name == head_name);
        if heads > MAX_HEAD || !head_is_valid || !(has_body || body == "null-body") {
            return Err(INVALID);
        }
        Ok(Encapsulated { heads, is_response, has_body })
    }
}

/// Incremental decoder of a chunked body.
#[derive(Debug)]
pub(crate) struct ChunkDecoder {
    state: ChunkState,
    /// The lines after the last chunk.
    trailer: Vec<u8>,
}

#[derive(Debug)]
enum ChunkState {
    Size,
    Data(u64),
    DataEnd,
    Trailer,
    Ended,
}

/// Next step of decoding.
#[derive(PartialEq, Eq, Debug)]
pub(crate) enum Decoded {
    Data(Bytes),
    End,
    /// More input is needed.
    Incomplete,
}

impl ChunkDecoder {
    pub(crate) fn new() -> Self {
        Self { state: ChunkState::Size, trailer: Vec::new() }
    }

    /// Parses the headers after the last chunk. Call this after [`Decoded::End`].
    pub(crate) fn trailer(&self) -> Result<IcapHead, Malformed> {
        IcapHead::parse_headers(&self.trailer)
    }

    /// Decodes and removes the next piece of the body from the beginning of `buffer`.
    pub(crate) fn next(&mut self, buffer: &mut BytesMut) -> Result<Decoded, Malformed> {
        loop {
            match self.state {
                ChunkState::Size => {
                    let Some(line) = take_line(buffer)? else { return Ok(Decoded::Incomplete) };
                    let size = chunk_size(&line)?;
                    self.state =
                        if size == 0 { ChunkState::Trailer } else { ChunkState::Data(size) };
                }
                ChunkState::Data(left) => {
                    if buffer.is_empty() {
                        return Ok(Decoded::Incomplete);
                    }
                    let length = usize::try_from(left).unwrap_or(usize::MAX).min(buffer.len());
                    let data = buffer.split_to(length).freeze();
                    self.state = match left - length as u64 {
                        0 => ChunkState::DataEnd,
                        left => ChunkState::Data(left),
                    };
                    return Ok(Decoded::Data(data));
                }
                ChunkState::DataEnd => {
                    let Some(end) = buffer.first_chunk::<2>() else {
                        return Ok(Decoded::Incomplete);
                    };
                    if end != b"\r\n" {
                        return Err(Malformed("chunk without line end"));
                    }
                    buffer.advance(2);
                    self.state = ChunkState::Size;
                }
                ChunkState::Trailer => {
                    let Some(line) = take_line(buffer)? else { return Ok(Decoded::Incomplete) };
                    self.trailer.extend_from_slice(&line);
                    self.trailer.extend_from_slice(b"\r\n");
                    if self.trailer.len() > MAX_TRAILER {
                        return Err(Malformed("trailer too long"));
                    }
                    if line.is_empty() {
                        self.state = ChunkState::Ended;
                    }
                }
                ChunkState::Ended => return Ok(Decoded::End),
            }
        }
    }
}

/// Removes a line from the buffer and returns it without its end. Returns `None` if the line is incomplete.
fn take_line(buffer: &mut BytesMut) -> Result<Option<BytesMut>, Malformed> {
    let searched = buffer.get(..buffer.len().min(MAX_CHUNK_LINE)).unwrap_or_default();
    let Some(end) = searched.windows(2).position(|end| end == b"\r\n") else {
        return if buffer.len() < MAX_CHUNK_LINE {
            Ok(None)
        } else {
            Err(Malformed("chunk line too long"))
        };
    };
    let line = buffer.split_to(end);
    buffer.advance(2);
    Ok(Some(line))
}

fn chunk_size(line: &[u8]) -> Result<u64, Malformed> {
    const INVALID: Malformed = Malformed("invalid chunk size");
    let line = std::str::from_utf8(line).map_err(|_| INVALID)?;
    let digits = line.split(';').next().unwrap_or_default().trim_end_matches([' ', '\t']);
    // 15 digits exceed every real body and cannot overflow.
    let all_digits = digits.bytes().all(|byte| byte.is_ascii_hexdigit());
    if digits.is_empty() || digits.len() > 15 || !all_digits {
        return Err(INVALID);
    }
    u64::from_str_radix(digits, 16).map_err(|_| INVALID)
}

/// Appends a chunk to `out`. Empty input appends nothing, because an empty chunk would end the body.
pub(crate) fn put_chunk(out: &mut Vec<u8>, bytes: &[u8]) {
    if !bytes.is_empty() {
        out.extend_from_slice(format!("{:x}\r\n", bytes.len()).as_bytes());
        out.extend_from_slice(bytes);
        out.extend_from_slice(b"\r\n");
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn head(text: &str) -> Result<Option<IcapHead>, Malformed> {
        IcapHead::take(&mut BytesMut::from(text))
    }

    fn valid_head(text: &str) -> IcapHead {
        head(text).unwrap().unwrap()
    }

    #[test]
    fn takes_head_only_when_complete() {
        let text = "ICAP/1.0 204 No Content\r\nISTag: \"a\"\r\nConnection: x, Close\r\n\r\n";
        for end in 0..text.len() {
            assert_eq!(head(&text[..end]), Ok(None));
        }
        let mut buffer = BytesMut::from(format!("{text}rest").as_str());
        let head = IcapHead::take(&mut buffer).unwrap().unwrap();
        assert_eq!(buffer, "rest");
        assert_eq!(head.status, 204);
        assert_eq!(head.first("istag").unwrap(), "\"a\"");
        assert!(head.lists("connection", "close") && !head.lists("connection", "clo"));
    }

    #[test]
    fn parses_header_with_several_lines() {
        let head = valid_head(
            "ICAP/1.0 200 OK\r\nX-Violations-Found: 1\r\n\tname\r\n\tEicar\r\n\t0\r\n\t0\r\nA: b\r\n\r\n",
        );
        let violations = head.first("x-violations-found").unwrap();
        assert_eq!(violations.lines().nth(2).unwrap().trim(), "Eicar", "{violations:?}");
        assert_eq!(head.first("a").unwrap(), "b");
    }

    #[test]
    fn rejects_invalid_heads() {
        for text in [
            "HTTP/1.1 200 OK\r\n\r\n",
            "220 mail.example ESMTP\r\n\r\n",
            "ICAP/1.0\r\n\r\n",
            "ICAP/1.0 abc\r\n\r\n",
            "ICAP/1.0 204 x\r\nno colon\r\n\r\n",
            "ICAP/1.0 204 x\r\na\0b: c\r\n\r\n",
            "\r\n\r\n",
        ] {
            assert!(head(text).is_err(), "{text:?}");
        }
        let endless = "ICAP/1.0 200 OK\r\n".to_owned() + &"A: b\r\n".repeat(MAX_HEAD / 6);
        assert!(head(&endless).is_err());
        let many = format!("ICAP/1.0 200 OK\r\n{}\r\n", "A: b\r\n".repeat(MAX_HEADERS + 1));
        assert!(head(&many).is_err());
    }

    #[test]
    fn parses_and_validates_encapsulated_header() {
        let encapsulated = |value: &str| {
            valid_head(&format!("ICAP/1.0 200 OK\r\nEncapsulated: {value}\r\n\r\n")).encapsulated()
        };
        let expected =
            |heads, is_response, has_body| Ok(Encapsulated { heads, is_response, has_body });
        assert_eq!(encapsulated("res-hdr=0, res-body=137"), expected(137, true, true));
        assert_eq!(encapsulated("req-hdr=0,req-body=12"), expected(12, false, true));
        assert_eq!(encapsulated("Res-Hdr=0, null-body=90"), expected(90, true, false));
        assert_eq!(encapsulated("res-body=0"), expected(0, true, true));
        assert_eq!(encapsulated("null-body=0"), expected(0, false, false));
        for invalid in [
            "",
            "res-hdr=0",
            "res-hdr=0, req-body=5",
            "req-hdr=0, res-body=5",
            "res-hdr=1, res-body=5",
            "res-hdr=0, res-body=-5",
            "res-hdr=0, res-body=+5",
            "res-hdr=0, res-body=99999999999999999999999",
            "res-hdr=0, res-body=70000",
            "req-hdr=0, res-hdr=5, res-body=9",
            "opt-body=0",
            "res-body=5, res-hdr=0",
            "res-hdr, res-body",
            "null-body=0, null-body=0",
        ] {
            assert!(encapsulated(invalid).is_err(), "{invalid}");
        }
        let twice =
            "ICAP/1.0 200 OK\r\nEncapsulated: null-body=0\r\nEncapsulated: res-body=0\r\n\r\n";
        assert!(valid_head(twice).encapsulated().is_err());
        assert!(valid_head("ICAP/1.0 200 OK\r\n\r\n").encapsulated().is_err());
    }

    /// Decodes a body that arrives in these pieces. Returns its data and the remaining input; `None` if the body is
    /// incomplete.
    fn decode<'p>(
        pieces: impl IntoIterator<Item = &'p [u8]>,
    ) -> Result<Option<(Vec<u8>, BytesMut)>, Malformed> {
        let (mut decoder, mut buffer, mut data) =
            (ChunkDecoder::new(), BytesMut::new(), Vec::new());
        let mut ended = false;
        for piece in pieces {
            buffer.extend_from_slice(piece);
            while !ended {
                match decoder.next(&mut buffer)? {
                    Decoded::Data(bytes) => data.extend_from_slice(&bytes),
                    Decoded::End => ended = true,
                    Decoded::Incomplete => break,
                }
            }
        }
        Ok(ended.then_some((data, buffer)))
    }

    #[test]
    fn decodes_and_validates_chunks() {
        let data = |text: &str| decode([text.as_bytes()]).unwrap().unwrap().0;
        assert_eq!(data("3\r\nabc\r\n0\r\n\r\n"), b"abc");
        assert_eq!(data("3;name=value\r\nabc\r\n0; ieof\r\n\r\n"), b"abc");
        assert_eq!(data("00A \r\n0123456789\r\n0\r\nTrailer: x\r\n\r\n"), b"0123456789");
        assert_eq!(data("0\r\n\r\n"), b"");
        for invalid in [
            "\r\n",
            "x\r\n",
            "-1\r\n",
            "+1\r\na",
            "0x1\r\na",
            "1\r\nab\r\n",
            "ffffffffffffffff\r\n",
            "1 1\r\na",
            "\u{e9}\r\n",
        ] {
            assert!(decode([invalid.as_bytes()]).is_err(), "{invalid:?}");
        }
        assert!(decode([[b'1'; MAX_CHUNK_LINE].as_slice()]).is_err());
        let trailer = format!("0\r\n{}", "A: b\r\n".repeat(MAX_TRAILER));
        assert!(decode([trailer.as_bytes()]).is_err());
        assert_eq!(decode(["5\r\nabc".as_bytes()]), Ok(None), "truncated bodies are incomplete");
    }

    proptest! {
        #[test]
        fn decoding_reverses_chunking_at_any_read_boundaries(
            parts in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..40), 0..10),
            cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..10),
            rest in prop::collection::vec(any::<u8>(), 0..20),
        ) {
            let mut sent = Vec::new();
            for part in &parts {
                put_chunk(&mut sent, part);
            }
            sent.extend_from_slice(b"0\r\n\r\n");
            sent.extend_from_slice(&rest);
            let mut cuts: Vec<_> = cuts.iter().map(|cut| cut.index(sent.len())).collect();
            cuts.extend([0, sent.len()]);
            cuts.sort_unstable();
            let pieces = cuts.windows(2).map(|cut| &sent[cut[0]..cut[1]]);
            let (data, left) = decode(pieces).unwrap().unwrap();
            prop_assert_eq!(data, parts.concat());
            prop_assert_eq!(&left[..], &rest[..]);
        }

        #[test]
        fn any_input_is_parsed_without_panic(
            bytes in prop::collection::vec(any::<u8>(), 0..400),
            beginning in prop::sample::select(vec![
                "", "ICAP/1.0 200 OK\r\n", "ICAP/1.0 200 OK\r\nEncapsulated: ",
                "ICAP/1.0 200 OK\r\nEncapsulated: res-hdr=0, res-body=", "5\r\n", "0\r\n",
            ]),
            end in prop::sample::select(vec!["", "\r\n\r\n"]),
        ) {
            let text = [beginning.as_bytes(), &bytes, end.as_bytes()].concat();
            let mut buffer = BytesMut::from(&text[..]);
            if let Ok(Some(head)) = IcapHead::take(&mut buffer) {
                prop_assert!(buffer.len() < text.len());
                let _ = (head.encapsulated(), head.first("x-infection-found"));
            }
            let _ = IcapHead::parse_http(&text);
            if let Ok(Some((data, left))) = decode([&text[..]]) {
                prop_assert!(data.len() + left.len() < text.len());
            }
        }
    }
}
