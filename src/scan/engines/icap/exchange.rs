//! One connection to an ICAP server, and what is said on it: the media goes out while the answer comes
//! in, and what is sent back is held against the media as it comes. Nothing of either is kept.

use std::io;

use bytes::BytesMut;
use futures_util::FutureExt;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadHalf, WriteHalf};

use super::{
    super::{EngineFailure, Finding, servers::said_and_sent, specimen::Specimen},
    finding::finding,
    message::{Chunks, Encapsulated, Head, Malformed, Piece, put_chunk},
};

/// A larger preview than this is not sent, whatever a server asks for.
const MAX_PREVIEW: u64 = 64 * 1024;

/// What is read at a time, bytes.
const READ: usize = 64 * 1024;

/// The media's address, as the server gets it: the real one is nobody's business.
const URL: &str = "http://media.invalid/media";
const HOST: &str = "media.invalid";

const USER_AGENT: &str = concat!("matrix-content-scanner/", env!("CARGO_PKG_VERSION"));

/// What a media is presented as.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Method {
    /// A request that someone sends: an upload.
    Reqmod,
    /// An answer that someone gets: a download.
    Respmod,
}

impl Method {
    /// As it is on the wire.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Reqmod => "REQMOD",
            Self::Respmod => "RESPMOD",
        }
    }
}

/// What a connection is made of: TCP, or TLS on it.
pub(super) trait Transport: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Transport for T {}

/// A connection between two exchanges.
pub(super) struct Connection {
    incoming: Incoming,
    to: WriteHalf<Box<dyn Transport>>,
}

struct Incoming {
    from: ReadHalf<Box<dyn Transport>>,
    buffer: BytesMut,
    /// Whether anything has come since the exchange began.
    heard: bool,
}

/// What a server says of its service.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Options {
    /// Bytes of a media that it wants to see first; none where it wants all at once.
    pub(super) preview: Option<u64>,
    pub(super) istag: String,
}

/// What came of an exchange.
pub(super) struct Told {
    pub(super) finding: Finding,
    pub(super) istag: Option<String>,
    /// Whether the connection is good for another.
    pub(super) reusable: bool,
}

impl Connection {
    pub(super) fn new(transport: Box<dyn Transport>) -> Self {
        let (from, to) = tokio::io::split(transport);
        Self { incoming: Incoming { from, buffer: BytesMut::new(), heard: false }, to }
    }

    /// Whether the other side has said nothing unasked, nor closed.
    pub(super) fn is_quiet(&mut self) -> bool {
        self.incoming.fill().now_or_never().is_none()
    }

    /// Whether an exchange that failed may be tried on another connection: this one was of before, and
    /// the server may have closed it before it heard anything.
    pub(super) fn heard_nothing(&self) -> bool {
        !self.incoming.heard
    }

    /// Asks for the service's options; also whether the connection is good for more.
    pub(super) async fn options(
        &mut self,
        uri: &str,
        host: &str,
        method: Method,
    ) -> Result<(Options, bool), EngineFailure> {
        self.incoming.heard = false;
        let request =
            format!("OPTIONS {uri} ICAP/1.0\r\nHost: {host}\r\nUser-Agent: {USER_AGENT}\r\n\r\n");
        self.to.write_all(request.as_bytes()).await.map_err(cut_short)?;
        self.to.flush().await.map_err(cut_short)?;
        let head = self.incoming.head().await?;
        if head.status != 200 {
            return Err(said(&head));
        }
        let methods: Vec<_> = head.all("methods").collect();
        if !methods.is_empty() && !head.lists("methods", method.as_str()) {
            let methods = methods.join(", ");
            return Err(EngineFailure::Said(format!("its methods are {methods}")));
        }
        let preview = head.first("preview").and_then(|preview| preview.parse::<u64>().ok());
        let istag = head.first("istag").ok_or_else(|| no_sense("options without an ISTag"))?;
        let body = head.all("encapsulated").any(|value| !value.contains("null-body"));
        let reusable = !body && self.incoming.buffer.is_empty() && stays_open(&head);
        Ok((Options { preview: preview.map(|it| it.min(MAX_PREVIEW)), istag }, reusable))
    }

    /// Has a media looked at.
    pub(super) async fn scan(
        &mut self,
        uri: &str,
        host: &str,
        method: Method,
        preview: Option<u64>,
        specimen: &Specimen,
    ) -> Result<Told, EngineFailure> {
        self.incoming.heard = false;
        let mut out = request(uri, host, method, preview, specimen.len());
        let mut at = 0;
        if let Some(preview) = preview {
            while at < preview.min(specimen.len()) {
                let piece = specimen.piece(at, preview - at).await.map_err(EngineFailure::Media)?;
                at += piece.len() as u64;
                put_chunk(&mut out, &piece);
            }
            let whole = at == specimen.len();
            out.extend_from_slice(if whole { b"0; ieof\r\n\r\n" } else { b"0\r\n\r\n" });
            // A refusal may come before the preview is out; then writing fails, and reading does not.
            let sent = async {
                self.to.write_all(&out).await?;
                self.to.flush().await
            };
            let sent = sent.await.map_err(cut_short);
            out.clear();
            let head = self.incoming.head().await?;
            if whole || head.status != 100 || finding(&head).is_some() {
                let told = self.incoming.answer(head, method, specimen).await?;
                if told.finding == Finding::Clean {
                    sent?;
                }
                return Ok(told);
            }
        }
        let sending = send(&mut self.to, out, at, specimen);
        let answer = async {
            let head = self.incoming.head().await?;
            self.incoming.answer(head, method, specimen).await
        };
        let (told, sent) = said_and_sent(sending, answer).await?;
        if told.finding == Finding::Clean && !sent {
            return Err(EngineFailure::Early);
        }
        Ok(told)
    }
}

/// The request's heads.
fn request(uri: &str, host: &str, method: Method, preview: Option<u64>, length: u64) -> Vec<u8> {
    let asked = match method {
        Method::Respmod => format!("GET {URL} HTTP/1.1\r\nHost: {HOST}\r\n\r\n"),
        Method::Reqmod => format!("POST {URL} HTTP/1.1\r\nHost: {HOST}\r\n"),
    };
    let described =
        format!("Content-Type: application/octet-stream\r\nContent-Length: {length}\r\n\r\n");
    let (heads, encapsulated) = match method {
        Method::Respmod => {
            let heads = format!("{asked}HTTP/1.1 200 OK\r\n{described}");
            let (answer, body) = (asked.len(), heads.len());
            (heads, format!("req-hdr=0, res-hdr={answer}, res-body={body}"))
        }
        Method::Reqmod => {
            let heads = asked + &described;
            let body = heads.len();
            (heads, format!("req-hdr=0, req-body={body}"))
        }
    };
    let method = method.as_str();
    let preview = preview.map_or_else(String::new, |preview| format!("Preview: {preview}\r\n"));
    format!(
        "{method} {uri} ICAP/1.0\r\nHost: {host}\r\nUser-Agent: {USER_AGENT}\r\nAllow: 204\r\n\
         {preview}Encapsulated: {encapsulated}\r\n\r\n{heads}"
    )
    .into()
}

/// The media from `at` on, and its end, behind what `out` holds already.
async fn send(
    to: &mut (impl AsyncWrite + Unpin),
    mut out: Vec<u8>,
    mut at: u64,
    specimen: &Specimen,
) -> Result<(), EngineFailure> {
    while at < specimen.len() {
        let piece = specimen.piece(at, u64::MAX).await.map_err(EngineFailure::Media)?;
        at += piece.len() as u64;
        put_chunk(&mut out, &piece);
        // The last one goes together with the end.
        if at < specimen.len() {
            to.write_all(&out).await.map_err(cut_short)?;
            out.clear();
        }
    }
    out.extend_from_slice(b"0\r\n\r\n");
    to.write_all(&out).await.map_err(cut_short)?;
    to.flush().await.map_err(cut_short)
}

impl Incoming {
    async fn fill(&mut self) -> Result<(), EngineFailure> {
        // By itself it would grow by a few bytes each time.
        self.buffer.reserve(READ);
        match self.from.read_buf(&mut self.buffer).await {
            Ok(0) => Err(EngineFailure::CutShort(None)),
            Ok(_) => {
                self.heard = true;
                Ok(())
            }
            Err(error) => Err(cut_short(error)),
        }
    }

    async fn head(&mut self) -> Result<Head, EngineFailure> {
        loop {
            if let Some(head) = Head::take(&mut self.buffer)? {
                return Ok(head);
            }
            self.fill().await?;
        }
    }

    /// What an answer comes to, to the end of its body where that matters.
    async fn answer(
        &mut self,
        head: Head,
        method: Method,
        specimen: &Specimen,
    ) -> Result<Told, EngineFailure> {
        let istag = head.first("istag");
        // It outweighs the status: some servers send it with 204, or with the media unchanged.
        if let Some(name) = finding(&head) {
            // Told without the rest, which is a page for people: the connection goes with it.
            return Ok(Told { finding: Finding::NotClean { name }, istag, reusable: false });
        }
        let finding = match head.status {
            204 => Finding::Clean,
            200 => {
                let encapsulated = head.encapsulated()?;
                self.sent_back(encapsulated, method, specimen).await?
            }
            _ => return Err(said(&head)),
        };
        if finding == Finding::Clean && !self.buffer.is_empty() {
            return Err(no_sense("more than one answer"));
        }
        let reusable = finding == Finding::Clean && stays_open(&head);
        Ok(Told { finding, istag, reusable })
    }

    /// What was sent back in the media's place: clean if it is the media.
    async fn sent_back(
        &mut self,
        encapsulated: Encapsulated,
        method: Method,
        specimen: &Specimen,
    ) -> Result<Finding, EngineFailure> {
        while self.buffer.len() < encapsulated.heads {
            self.fill().await?;
        }
        let heads = self.buffer.split_to(encapsulated.heads);
        let head = match (encapsulated.heads, encapsulated.is_response) {
            (0, _) => None,
            (_, true) => Some(Head::parse_http(&heads)?),
            (_, false) => Some(Head::parse_request(&heads)?),
        };
        // Some servers say there what they found, whatever its status.
        if let Some(name) = head.as_ref().and_then(finding) {
            return Ok(Finding::NotClean { name });
        }
        let status = head.filter(|_| encapsulated.is_response).map(|head| head.status);
        let is_replaced = match (method, status) {
            // To a download another answer, and to an upload any answer, is given in its place.
            (Method::Respmod, Some(200)) | (_, None) => false,
            // A page that says why, or the way to one.
            (_, Some(200..=399 | 403)) => true,
            (_, Some(status)) => {
                return Err(EngineFailure::Said(format!("it answers with HTTP status {status}")));
            }
        };
        let replaced = Finding::NotClean { name: REPLACED.into() };
        if is_replaced {
            return Ok(replaced);
        }
        match self.compare_body(encapsulated.has_body, specimen).await? {
            Some(trailer) => {
                Ok(finding(&trailer).map_or(Finding::Clean, |name| Finding::NotClean { name }))
            }
            None => Ok(replaced),
        }
    }

    /// Compares a body with the media, to its end or to the first difference. Returns the body's trailer if the body
    /// is the media.
    async fn compare_body(
        &mut self,
        has_body: bool,
        specimen: &Specimen,
    ) -> Result<Option<Head>, EngineFailure> {
        if !has_body {
            return Ok(specimen.is_empty().then(Head::default));
        }
        let (mut chunks, mut at) = (Chunks::new(), 0);
        loop {
            match chunks.next(&mut self.buffer)? {
                Piece::Incomplete => self.fill().await?,
                Piece::End if at < specimen.len() => return Ok(None),
                Piece::End => return Ok(Some(chunks.trailer()?)),
                Piece::Data(mut data) => {
                    while !data.is_empty() {
                        let piece = specimen.piece(at, data.len() as u64).await;
                        let piece = piece.map_err(EngineFailure::Media)?;
                        if piece.is_empty() || data.split_to(piece.len()) != piece {
                            return Ok(None);
                        }
                        at += piece.len() as u64;
                    }
                }
            }
        }
    }
}

/// What a media is called that came back as another, without a word of why.
const REPLACED: &str = "replaced by the ICAP server";

fn stays_open(head: &Head) -> bool {
    !head.lists("connection", "close")
}

fn said(head: &Head) -> EngineFailure {
    EngineFailure::Said(format!("ICAP status {}", head.status))
}

fn no_sense(what: &str) -> EngineFailure {
    EngineFailure::NoSense(what.to_owned())
}

fn cut_short(error: io::Error) -> EngineFailure {
    EngineFailure::CutShort(Some(error))
}

impl From<Malformed> for EngineFailure {
    fn from(Malformed(what): Malformed) -> Self {
        no_sense(what)
    }
}
