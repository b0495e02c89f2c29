//! Exchanges on one connection to an ICAP server. The file is sent while the response is received. A file that is
//! sent back is compared with the sample as it arrives; neither is buffered as a whole.

use std::io;

use bytes::BytesMut;
use futures_util::FutureExt;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadHalf, WriteHalf};

use super::{
    super::{error::EngineFailure, outcome::Finding, pool::send_and_receive, sample::Sample},
    finding::finding,
    message::{ChunkDecoder, Decoded, Encapsulated, IcapHead, Malformed, put_chunk},
};

/// Maximum length of a preview, bytes. If a server requests a larger preview, this size is used.
const MAX_PREVIEW: u64 = 64 * 1024;

/// Free space in the buffer before each read, bytes.
const READ_SIZE: usize = 64 * 1024;

/// URL and host sent to servers in place of the real ones, which would disclose what users share.
const URL: &str = "http://media.invalid/media";
const HOST: &str = "media.invalid";

const USER_AGENT: &str = concat!("matrix-content-scanner/", env!("CARGO_PKG_VERSION"));

/// How a file is presented to the server.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Method {
    /// As the body of an HTTP request: an upload.
    Reqmod,
    /// As the body of an HTTP response: a download.
    Respmod,
}

impl Method {
    /// Returns the method name of the protocol.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Reqmod => "REQMOD",
            Self::Respmod => "RESPMOD",
        }
    }
}

/// A TCP connection, or TLS over one.
pub(super) trait Transport: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Transport for T {}

/// A connection for one or more exchanges in sequence.
pub(super) struct Connection {
    incoming: Incoming,
    writer: WriteHalf<Box<dyn Transport>>,
}

struct Incoming {
    reader: ReadHalf<Box<dyn Transport>>,
    buffer: BytesMut,
    /// Whether any byte of the response to the current request was received.
    has_received: bool,
}

/// Options of a service, from its response to OPTIONS.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct ServiceOptions {
    /// Length of the requested preview, bytes; none if the server requests no preview.
    pub(super) preview: Option<u64>,
    pub(super) istag: String,
}

/// Result of a scan on a connection.
pub(super) struct ScanExchange {
    pub(super) finding: Finding,
    pub(super) istag: Option<String>,
    /// Whether the connection can be used again.
    pub(super) reusable: bool,
}

impl Connection {
    pub(super) fn new(transport: Box<dyn Transport>) -> Self {
        let (reader, writer) = tokio::io::split(transport);
        let incoming = Incoming { reader, buffer: BytesMut::new(), has_received: false };
        Self { incoming, writer }
    }

    /// Returns whether the server has neither sent unsolicited data nor closed the connection.
    pub(super) fn is_quiet(&mut self) -> bool {
        self.incoming.fill().now_or_never().is_none()
    }

    /// Returns whether the server sent any byte in the latest exchange. If not, it may have closed the idle
    /// connection before it received the request.
    pub(super) fn has_received(&self) -> bool {
        self.incoming.has_received
    }

    /// Reads the service's options. Also returns whether the connection can be used again.
    pub(super) async fn options(
        &mut self,
        uri: &str,
        host: &str,
        method: Method,
    ) -> Result<(ServiceOptions, bool), EngineFailure> {
        self.incoming.has_received = false;
        let request =
            format!("OPTIONS {uri} ICAP/1.0\r\nHost: {host}\r\nUser-Agent: {USER_AGENT}\r\n\r\n");
        self.writer.write_all(request.as_bytes()).await.map_err(connection_lost)?;
        self.writer.flush().await.map_err(connection_lost)?;
        let head = self.incoming.read_head().await?;
        if head.status != 200 {
            return Err(unexpected_status(&head));
        }
        let methods: Vec<_> = head.all("methods").collect();
        if !methods.is_empty() && !head.lists("methods", method.as_str()) {
            let methods = methods.join(", ");
            return Err(EngineFailure::Reported(format!("supported methods: {methods}")));
        }
        let preview = head.first("preview").and_then(|preview| preview.parse::<u64>().ok());
        let istag =
            head.first("istag").ok_or_else(|| bad_response("OPTIONS response without an ISTag"))?;
        let body = head.all("encapsulated").any(|value| !value.contains("null-body"));
        let reusable = !body && self.incoming.buffer.is_empty() && stays_open(&head);
        Ok((
            ServiceOptions { preview: preview.map(|preview| preview.min(MAX_PREVIEW)), istag },
            reusable,
        ))
    }

    /// Scans a file.
    ///
    /// # Errors
    /// Everything other than a complete response with a verdict. The connection cannot be used again then.
    pub(super) async fn scan(
        &mut self,
        uri: &str,
        host: &str,
        method: Method,
        preview: Option<u64>,
        sample: &Sample,
    ) -> Result<ScanExchange, EngineFailure> {
        self.incoming.has_received = false;
        let mut buffer = request(uri, host, method, preview, sample.len());
        let mut offset = 0;
        if let Some(preview) = preview {
            while offset < preview.min(sample.len()) {
                let chunk = sample.read_chunk(offset, preview - offset).await;
                let chunk = chunk.map_err(EngineFailure::Media)?;
                offset += chunk.len() as u64;
                put_chunk(&mut buffer, &chunk);
            }
            let is_whole = offset == sample.len();
            let end = if is_whole { b"0; ieof\r\n\r\n".as_slice() } else { b"0\r\n\r\n" };
            buffer.extend_from_slice(end);
            // A server may respond and close before it has read the preview: writing fails then, but the response
            // is readable.
            let sending = async {
                self.writer.write_all(&buffer).await?;
                self.writer.flush().await
            };
            let sent = sending.await.map_err(connection_lost);
            buffer.clear();
            let head = self.incoming.read_head().await?;
            if is_whole || head.status != 100 || finding(&head).is_some() {
                let result = self.incoming.read_result(head, method, sample).await?;
                if result.finding == Finding::Clean {
                    sent?;
                }
                return Ok(result);
            }
        }
        let sending = send_rest(&mut self.writer, buffer, offset, sample);
        let receiving = async {
            let head = self.incoming.read_head().await?;
            self.incoming.read_result(head, method, sample).await
        };
        let (result, sent) = send_and_receive(sending, receiving).await?;
        if result.finding == Finding::Clean && !sent {
            return Err(EngineFailure::PrematureVerdict);
        }
        Ok(result)
    }
}

/// Returns the ICAP head and the HTTP heads of a request.
fn request(uri: &str, host: &str, method: Method, preview: Option<u64>, length: u64) -> Vec<u8> {
    let http_request = match method {
        Method::Respmod => format!("GET {URL} HTTP/1.1\r\nHost: {HOST}\r\n\r\n"),
        Method::Reqmod => format!("POST {URL} HTTP/1.1\r\nHost: {HOST}\r\n"),
    };
    let entity_headers =
        format!("Content-Type: application/octet-stream\r\nContent-Length: {length}\r\n\r\n");
    let (heads, encapsulated) = match method {
        Method::Respmod => {
            let heads = format!("{http_request}HTTP/1.1 200 OK\r\n{entity_headers}");
            let (response, body) = (http_request.len(), heads.len());
            (heads, format!("req-hdr=0, res-hdr={response}, res-body={body}"))
        }
        Method::Reqmod => {
            let heads = http_request + &entity_headers;
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

/// Sends the contents of `buffer`, the file from `offset`, and the end marker.
async fn send_rest(
    writer: &mut (impl AsyncWrite + Unpin),
    mut buffer: Vec<u8>,
    mut offset: u64,
    sample: &Sample,
) -> Result<(), EngineFailure> {
    while offset < sample.len() {
        let chunk = sample.read_chunk(offset, u64::MAX).await.map_err(EngineFailure::Media)?;
        offset += chunk.len() as u64;
        put_chunk(&mut buffer, &chunk);
        // The last chunk is sent together with the end marker.
        if offset < sample.len() {
            writer.write_all(&buffer).await.map_err(connection_lost)?;
            buffer.clear();
        }
    }
    buffer.extend_from_slice(b"0\r\n\r\n");
    writer.write_all(&buffer).await.map_err(connection_lost)?;
    writer.flush().await.map_err(connection_lost)
}

impl Incoming {
    async fn fill(&mut self) -> Result<(), EngineFailure> {
        // Without this, the buffer would grow by a few bytes with each read.
        self.buffer.reserve(READ_SIZE);
        match self.reader.read_buf(&mut self.buffer).await {
            Ok(0) => Err(EngineFailure::ConnectionLost(None)),
            Ok(_) => {
                self.has_received = true;
                Ok(())
            }
            Err(error) => Err(connection_lost(error)),
        }
    }

    async fn read_head(&mut self) -> Result<IcapHead, EngineFailure> {
        loop {
            if let Some(head) = IcapHead::take(&mut self.buffer)? {
                return Ok(head);
            }
            self.fill().await?;
        }
    }

    /// Reads the result of a scan from a response. Reads the body to its end only if the result depends on it.
    async fn read_result(
        &mut self,
        head: IcapHead,
        method: Method,
        sample: &Sample,
    ) -> Result<ScanExchange, EngineFailure> {
        let istag = head.first("istag");
        // Headers override the status: some servers report findings with 204, or send the file back.
        if let Some(name) = finding(&head) {
            // The body, a page for users, is not read; therefore the connection cannot be used again.
            return Ok(ScanExchange {
                finding: Finding::NotClean { name },
                istag,
                reusable: false,
            });
        }
        let finding = match head.status {
            204 => Finding::Clean,
            200 => {
                let encapsulated = head.encapsulated()?;
                self.read_modified(encapsulated, method, sample).await?
            }
            _ => return Err(unexpected_status(&head)),
        };
        if finding == Finding::Clean && !self.buffer.is_empty() {
            return Err(bad_response("more than one response"));
        }
        let reusable = finding == Finding::Clean && stays_open(&head);
        Ok(ScanExchange { finding, istag, reusable })
    }

    /// Reads the message that the server sent in place of the file. The result is "clean" if it contains the file.
    async fn read_modified(
        &mut self,
        encapsulated: Encapsulated,
        method: Method,
        sample: &Sample,
    ) -> Result<Finding, EngineFailure> {
        while self.buffer.len() < encapsulated.heads {
            self.fill().await?;
        }
        let heads = self.buffer.split_to(encapsulated.heads);
        let head = match (encapsulated.heads, encapsulated.is_response) {
            (0, _) => None,
            (_, true) => Some(IcapHead::parse_http(&heads)?),
            (_, false) => Some(IcapHead::parse_request(&heads)?),
        };
        // Some servers report findings in these headers, with any status.
        if let Some(name) = head.as_ref().and_then(finding) {
            return Ok(Finding::NotClean { name });
        }
        let status = head.filter(|_| encapsulated.is_response).map(|head| head.status);
        let is_replaced = match (method, status) {
            // The original response, or a request: the result depends on the body.
            (Method::Respmod, Some(200)) | (_, None) => false,
            // A block page, a redirect to one, or any response to an upload.
            (_, Some(200..=399 | 403)) => true,
            (_, Some(status)) => {
                return Err(EngineFailure::Reported(format!("HTTP status {status}")));
            }
        };
        let replaced = Finding::NotClean { name: REPLACED.into() };
        if is_replaced {
            return Ok(replaced);
        }
        match self.compare_body(encapsulated.has_body, sample).await? {
            Some(trailer) => {
                Ok(finding(&trailer).map_or(Finding::Clean, |name| Finding::NotClean { name }))
            }
            None => Ok(replaced),
        }
    }

    /// Compares a body with the file, up to the first difference. Returns the body's trailer if both are equal.
    async fn compare_body(
        &mut self,
        has_body: bool,
        sample: &Sample,
    ) -> Result<Option<IcapHead>, EngineFailure> {
        if !has_body {
            return Ok(sample.is_empty().then(IcapHead::default));
        }
        let (mut decoder, mut offset) = (ChunkDecoder::new(), 0);
        loop {
            match decoder.next(&mut self.buffer)? {
                Decoded::Incomplete => self.fill().await?,
                Decoded::End if offset < sample.len() => return Ok(None),
                Decoded::End => return Ok(Some(decoder.trailer()?)),
                Decoded::Data(mut data) => {
                    while !data.is_empty() {
                        let expected = sample.read_chunk(offset, data.len() as u64).await;
                        let expected = expected.map_err(EngineFailure::Media)?;
                        if expected.is_empty() || data.split_to(expected.len()) != expected {
                            return Ok(None);
                        }
                        offset += expected.len() as u64;
                    }
                }
            }
        }
    }
}

/// Name of the finding when the server replaced the file and gave no reason.
const REPLACED: &str = "replaced by the ICAP server";

fn stays_open(head: &IcapHead) -> bool {
    !head.lists("connection", "close")
}

fn unexpected_status(head: &IcapHead) -> EngineFailure {
    EngineFailure::Reported(format!("ICAP status {}", head.status))
}

fn bad_response(reason: &str) -> EngineFailure {
    EngineFailure::BadResponse(reason.to_owned())
}

fn connection_lost(error: io::Error) -> EngineFailure {
    EngineFailure::ConnectionLost(Some(error))
}

impl From<Malformed> for EngineFailure {
    fn from(Malformed(reason): Malformed) -> Self {
        bad_response(reason)
    }
}
