//! ICAP's messages as bytes: heads, what they say is encapsulated, chunked bodies. Knows no
//! connection; whatever comes in, it costs bounded memory and no panic. RFC 3507 section 4, RFC 9112
//! section 7.1.

use bytes::{Buf, Bytes, BytesMut};

/// Bytes of a head, of ICAP or of the HTTP in it.
pub(super) const MAX_HEAD: usize = 64 * 1024;

/// Header lines of a head.
const MAX_HEADERS: usize = 128;

/// Bytes of a chunk's size line, and of all lines behind the last chunk.
const MAX_CHUNK_LINE: usize = 1024;
const MAX_TRAILER: usize = 16 * 1024;

/// A head, parsed.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub(super) struct Head {
    pub(super) status: u16,
    headers: Vec<(String, Vec<u8>)>,
}

/// Not a message of this protocol: what is wrong with it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Malformed(pub(super) &'static str);

/// What an ICAP message carries.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Encapsulated {
    /// Bytes of the HTTP heads.
    pub(super) heads: usize,
    /// Whether the first of them is a response's.
    pub(super) is_response: bool,
    /// Whether a body follows.
    pub(super) has_body: bool,
}

impl Head {
    /// The head at the beginning of `buffer`, which it is taken out of; none as long as it is not whole.
    pub(super) fn take(buffer: &mut BytesMut) -> Result<Option<Self>, Malformed> {
        let end = buffer.windows(4).position(|end| end == b"\r\n\r\n");
        match end.map(|end| end + 4) {
            Some(end) if end <= MAX_HEAD => Self::parse(&buffer.split_to(end)).map(Some),
            None if buffer.len() < MAX_HEAD => Ok(None),
            _ => Err(Malformed("a head without an end")),
        }
    }

    fn parse(bytes: &[u8]) -> Result<Self, Malformed> {
        // Apart from its name an ICAP head is one of HTTP.
        let mut bytes = bytes.to_vec();
        match bytes.first_chunk_mut::<5>() {
            Some(name) if name == b"ICAP/" => *name = *b"HTTP/",
            _ => return Err(Malformed("no answer of ICAP")),
        }
        Self::parse_http(&bytes)
    }

    /// The head of an HTTP response.
    pub(super) fn parse_http(bytes: &[u8]) -> Result<Self, Malformed> {
        let mut headers = [httparse::EMPTY_HEADER; MAX_HEADERS];
        let mut response = httparse::Response::new(&mut headers);
        let mut parser = httparse::ParserConfig::default();
        // X-Violations-Found has several lines.
        parser.allow_obsolete_multiline_headers_in_responses(true);
        match parser.parse_response(&mut response, bytes) {
            Ok(httparse::Status::Complete(length)) if length == bytes.len() => {}
            _ => return Err(Malformed("a head that is none")),
        }
        let status = response.code.ok_or(Malformed("a head without a status"))?;
        let headers = response.headers.iter().filter(|header| !header.name.is_empty());
        let headers =
            headers.map(|header| (header.name.to_ascii_lowercase(), header.value.to_vec()));
        Ok(Self { status, headers: headers.collect() })
    }

    /// The head of an HTTP request. Its first line is of no interest, and is not checked.
    pub(super) fn parse_request(bytes: &[u8]) -> Result<Self, Malformed> {
        let line = bytes.windows(2).position(|end| end == b"\r\n");
        let headers = line.and_then(|line| bytes.get(line + 2..));
        Self::parse_headers(headers.ok_or(Malformed("a head that is none"))?)
    }

    /// Headers without a first line, and the empty line behind them.
    fn parse_headers(bytes: &[u8]) -> Result<Self, Malformed> {
        Self::parse_http(&[b"HTTP/1.1 200 OK\r\n", bytes].concat())
    }

    /// A header's values, by its name in lower case.
    pub(super) fn all<'h>(&'h self, name: &'h str) -> impl Iterator<Item = String> + 'h {
        let named = self.headers.iter().filter(move |(header, _)| header == name);
        named.map(|(_, value)| String::from_utf8_lossy(value.trim_ascii()).into_owned())
    }

    /// The first of them that is not empty.
    pub(super) fn first(&self, name: &str) -> Option<String> {
        self.all(name).find(|value| !value.is_empty())
    }

    /// Whether one of a header's comma-separated values is this one.
    pub(super) fn lists(&self, name: &str, wanted: &str) -> bool {
        self.all(name)
            .any(|value| value.split(',').any(|word| word.trim().eq_ignore_ascii_case(wanted)))
    }

    /// What is encapsulated: of an answer to REQMOD or RESPMOD one head at the most, and its body.
    pub(super) fn encapsulated(&self) -> Result<Encapsulated, Malformed> {
        const WRONG: Malformed = Malformed("an impossible Encapsulated");
        let mut values = self.all("encapsulated");
        let value = values.next().ok_or(Malformed("no Encapsulated"))?;
        if values.next().is_some() {
            return Err(WRONG);
        }
        let part = |part: &str| -> Result<(String, usize), Malformed> {
            let (name, offset) = part.split_once('=').ok_or(WRONG)?;
            let offset = offset.trim();
            if offset.is_empty() || !offset.bytes().all(|it| it.is_ascii_digit()) {
                return Err(WRONG);
            }
            Ok((name.trim().to_ascii_lowercase(), offset.parse().map_err(|_| WRONG)?))
        };
        let parts: Vec<_> = value.split(',').map(part).collect::<Result<_, _>>()?;
        let (is_response, heads, body) = match parts.as_slice() {
            [(head, 0), (body, offset)] => (head == "res-hdr", *offset, body),
            [(body, 0)] => (body == "res-body", 0, body),
            _ => return Err(WRONG),
        };
        let kinds = if is_response { ["res-hdr", "res-body"] } else { ["req-hdr", "req-body"] };
        let [head_kind, body_kind] = kinds;
        let has_body = body == body_kind;
        let head_is_right =
            parts.len() == 1 || parts.first().is_some_and(|(it, _)| it == head_kind);
        if heads > MAX_HEAD || !head_is_right || !(has_body || body == "null-body") {
            return Err(WRONG);
        }
        Ok(Encapsulated { heads, is_response, has_body })
    }
}

/// A chunked body on its way in.
#[derive(Debug)]
pub(super) struct Chunks {
    state: ChunkState,
    /// The lines behind the last chunk.
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

/// What a body goes on with.
#[derive(PartialEq, Eq, Debug)]
pub(super) enum Piece {
    Data(Bytes),
    End,
    /// More bytes are needed to tell.
    Incomplete,
}

impl Chunks {
    pub(super) fn new() -> Self {
        Self { state: ChunkState::Size, trailer: Vec::new() }
    }

    /// The headers behind the last chunk, once the body has ended.
    pub(super) fn trailer(&self) -> Result<Head, Malformed> {
        Head::parse_headers(&self.trailer)
    }

    /// The next piece at the beginning of `buffer`, which it is taken out of.
    pub(super) fn next(&mut self, buffer: &mut BytesMut) -> Result<Piece, Malformed> {
        loop {
            match self.state {
                ChunkState::Size => {
                    let Some(line) = take_line(buffer)? else { return Ok(Piece::Incomplete) };
                    let size = chunk_size(&line)?;
                    self.state =
                        if size == 0 { ChunkState::Trailer } else { ChunkState::Data(size) };
                }
                ChunkState::Data(left) => {
                    if buffer.is_empty() {
                        return Ok(Piece::Incomplete);
                    }
                    let here = usize::try_from(left).unwrap_or(usize::MAX).min(buffer.len());
                    let data = buffer.split_to(here).freeze();
                    self.state = match left - here as u64 {
                        0 => ChunkState::DataEnd,
                        left => ChunkState::Data(left),
                    };
                    return Ok(Piece::Data(data));
                }
                ChunkState::DataEnd => {
                    let Some(end) = buffer.first_chunk::<2>() else { return Ok(Piece::Incomplete) };
                    if end != b"\r\n" {
                        return Err(Malformed("a chunk that does not end"));
                    }
                    buffer.advance(2);
                    self.state = ChunkState::Size;
                }
                ChunkState::Trailer => {
                    let Some(line) = take_line(buffer)? else { return Ok(Piece::Incomplete) };
                    self.trailer.extend_from_slice(&line);
                    self.trailer.extend_from_slice(b"\r\n");
                    if self.trailer.len() > MAX_TRAILER {
                        return Err(Malformed("a trailer without an end"));
                    }
                    if line.is_empty() {
                        self.state = ChunkState::Ended;
                    }
                }
                ChunkState::Ended => return Ok(Piece::End),
            }
        }
    }
}

/// A line without its end; none as long as it is not whole.
fn take_line(buffer: &mut BytesMut) -> Result<Option<BytesMut>, Malformed> {
    let within = buffer.get(..buffer.len().min(MAX_CHUNK_LINE)).unwrap_or_default();
    let Some(end) = within.windows(2).position(|end| end == b"\r\n") else {
        return if buffer.len() < MAX_CHUNK_LINE {
            Ok(None)
        } else {
            Err(Malformed("a line without an end"))
        };
    };
    let line = buffer.split_to(end);
    buffer.advance(2);
    Ok(Some(line))
}

fn chunk_size(line: &[u8]) -> Result<u64, Malformed> {
    const WRONG: Malformed = Malformed("an impossible size of a chunk");
    let line = std::str::from_utf8(line).map_err(|_| WRONG)?;
    let digits = line.split(';').next().unwrap_or_default().trim_end_matches([' ', '\t']);
    // Fifteen are far more than any body has, and no overflow.
    if digits.is_empty() || digits.len() > 15 || !digits.bytes().all(|it| it.is_ascii_hexdigit()) {
        return Err(WRONG);
    }
    u64::from_str_radix(digits, 16).map_err(|_| WRONG)
}

/// Writes a chunk; an empty one would be the end, so none is written for no bytes.
pub(super) fn put_chunk(out: &mut Vec<u8>, bytes: &[u8]) {
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

    fn head(text: &str) -> Result<Option<Head>, Malformed> {
        Head::take(&mut BytesMut::from(text))
    }

    fn good(text: &str) -> Head {
        head(text).unwrap().unwrap()
    }

    #[test]
    fn a_head_is_taken_when_it_is_whole() {
        let text = "ICAP/1.0 204 No Content\r\nISTag: \"a\"\r\nConnection: x, Close\r\n\r\n";
        for end in 0..text.len() {
            assert_eq!(head(&text[..end]), Ok(None));
        }
        let mut buffer = BytesMut::from(format!("{text}rest").as_str());
        let head = Head::take(&mut buffer).unwrap().unwrap();
        assert_eq!(buffer, "rest");
        assert_eq!(head.status, 204);
        assert_eq!(head.first("istag").unwrap(), "\"a\"");
        assert!(head.lists("connection", "close") && !head.lists("connection", "clo"));
    }

    #[test]
    fn a_header_may_have_several_lines() {
        let head = good(
            "ICAP/1.0 200 OK\r\nX-Violations-Found: 1\r\n\tname\r\n\tEicar\r\n\t0\r\n\t0\r\nA: b\r\n\r\n",
        );
        let violations = head.first("x-violations-found").unwrap();
        assert_eq!(violations.lines().nth(2).unwrap().trim(), "Eicar", "{violations:?}");
        assert_eq!(head.first("a").unwrap(), "b");
    }

    #[test]
    fn what_is_no_head_is_refused() {
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
    fn what_is_encapsulated_has_to_make_sense() {
        let encapsulated = |value: &str| {
            good(&format!("ICAP/1.0 200 OK\r\nEncapsulated: {value}\r\n\r\n")).encapsulated()
        };
        let is = |heads, is_response, has_body| Ok(Encapsulated { heads, is_response, has_body });
        assert_eq!(encapsulated("res-hdr=0, res-body=137"), is(137, true, true));
        assert_eq!(encapsulated("req-hdr=0,req-body=12"), is(12, false, true));
        assert_eq!(encapsulated("Res-Hdr=0, null-body=90"), is(90, true, false));
        assert_eq!(encapsulated("res-body=0"), is(0, true, true));
        assert_eq!(encapsulated("null-body=0"), is(0, false, false));
        for wrong in [
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
            assert!(encapsulated(wrong).is_err(), "{wrong}");
        }
        let twice =
            "ICAP/1.0 200 OK\r\nEncapsulated: null-body=0\r\nEncapsulated: res-body=0\r\n\r\n";
        assert!(good(twice).encapsulated().is_err());
        assert!(good("ICAP/1.0 200 OK\r\n\r\n").encapsulated().is_err());
    }

    /// All data of a body that comes in these pieces, and what is left; none if it is not whole.
    fn body<'p>(
        pieces: impl IntoIterator<Item = &'p [u8]>,
    ) -> Result<Option<(Vec<u8>, BytesMut)>, Malformed> {
        let (mut chunks, mut buffer, mut data) = (Chunks::new(), BytesMut::new(), Vec::new());
        let mut ended = false;
        for piece in pieces {
            buffer.extend_from_slice(piece);
            while !ended {
                match chunks.next(&mut buffer)? {
                    Piece::Data(bytes) => data.extend_from_slice(&bytes),
                    Piece::End => ended = true,
                    Piece::Incomplete => break,
                }
            }
        }
        Ok(ended.then_some((data, buffer)))
    }

    #[test]
    fn chunks_are_what_the_specification_says() {
        let whole = |text: &str| body([text.as_bytes()]).unwrap().unwrap().0;
        assert_eq!(whole("3\r\nabc\r\n0\r\n\r\n"), b"abc");
        assert_eq!(whole("3;name=value\r\nabc\r\n0; ieof\r\n\r\n"), b"abc");
        assert_eq!(whole("00A \r\n0123456789\r\n0\r\nTrailer: x\r\n\r\n"), b"0123456789");
        assert_eq!(whole("0\r\n\r\n"), b"");
        for wrong in [
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
            assert!(body([wrong.as_bytes()]).is_err(), "{wrong:?}");
        }
        assert!(body([[b'1'; MAX_CHUNK_LINE].as_slice()]).is_err());
        let trailer = format!("0\r\n{}", "A: b\r\n".repeat(MAX_TRAILER));
        assert!(body([trailer.as_bytes()]).is_err());
        assert_eq!(body(["5\r\nabc".as_bytes()]), Ok(None), "cut short is not ended");
    }

    proptest! {
        #[test]
        fn what_was_chunked_comes_out_again_wherever_it_was_cut(
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
            let (data, left) = body(pieces).unwrap().unwrap();
            prop_assert_eq!(data, parts.concat());
            prop_assert_eq!(&left[..], &rest[..]);
        }

        #[test]
        fn any_bytes_are_an_answer_or_none_and_never_a_panic(
            bytes in prop::collection::vec(any::<u8>(), 0..400),
            beginning in prop::sample::select(vec![
                "", "ICAP/1.0 200 OK\r\n", "ICAP/1.0 200 OK\r\nEncapsulated: ",
                "ICAP/1.0 200 OK\r\nEncapsulated: res-hdr=0, res-body=", "5\r\n", "0\r\n",
            ]),
            end in prop::sample::select(vec!["", "\r\n\r\n"]),
        ) {
            let text = [beginning.as_bytes(), &bytes, end.as_bytes()].concat();
            let mut buffer = BytesMut::from(&text[..]);
            if let Ok(Some(head)) = Head::take(&mut buffer) {
                prop_assert!(buffer.len() < text.len());
                let _ = (head.encapsulated(), head.first("x-infection-found"));
            }
            let _ = Head::parse_http(&text);
            if let Ok(Some((data, left))) = body([&text[..]]) {
                prop_assert!(data.len() + left.len() < text.len());
            }
        }
    }
}
