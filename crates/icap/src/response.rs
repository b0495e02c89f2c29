//! Responses about a file. A file that is sent back is compared with the content as it arrives; neither is buffered as
//! a whole.

use bytes::BytesMut;
use tokio::io::{AsyncRead, AsyncReadExt};

use crate::{
    answer::{Answer, FindingKind, IcapReply},
    content::Content,
    error::IcapError,
    finding::Findings,
    message::{ChunkDecoder, Decoded, Encapsulated, IcapHead},
    request::{Method, read_chunk},
};

/// Free space in the buffer before each read, bytes.
const READ_SIZE: usize = 64 * 1024;

/// Maximum length of a body that is read only for its trailer, bytes beyond the length of the file. Such a body is the
/// file, or a page for users.
const MAX_PAGE: u64 = 1 << 20;

/// What was received on a connection.
#[derive(Default)]
pub(crate) struct Received {
    /// Bytes that are not parsed yet.
    pub(crate) buffer: BytesMut,
    /// Whether any byte of the response to the current request was received.
    pub(crate) any: bool,
}

/// The receiving side of a connection.
pub(crate) struct Incoming<'c, R> {
    pub(crate) reader: R,
    pub(crate) received: &'c mut Received,
}

/// Result of an exchange.
#[derive(Debug)]
pub(crate) struct Exchange<T> {
    pub(crate) result: T,
    /// Whether the connection can be used again.
    pub(crate) reusable: bool,
}

impl<R: AsyncRead + Unpin> Incoming<'_, R> {
    pub(crate) async fn fill(&mut self) -> Result<(), IcapError> {
        // Without this, the buffer would grow by a few bytes with each read.
        self.received.buffer.reserve(READ_SIZE);
        match self.reader.read_buf(&mut self.received.buffer).await {
            Ok(0) => Err(IcapError::ConnectionLost(None)),
            Ok(_) => {
                self.received.any = true;
                Ok(())
            }
            Err(error) => Err(IcapError::connection_lost(error)),
        }
    }

    pub(crate) async fn read_head(&mut self) -> Result<IcapHead, IcapError> {
        loop {
            if let Some(head) = IcapHead::take(&mut self.received.buffer)? {
                return Ok(head);
            }
            self.fill().await?;
        }
    }

    /// Reads the result of a scan from a response. Headers that report a finding override the status: some servers report
    /// findings with 204, or send the file back. Reads the response to its end unless the verdict is certain before.
    pub(crate) async fn read_reply(
        &mut self,
        head: &IcapHead,
        method: Method,
        content: &impl Content,
    ) -> Result<Exchange<IcapReply>, IcapError> {
        let mut findings = Findings::new(head);
        let mut meaning = Meaning::of_status(head.status);
        let read = if findings.is_final() {
            Ok(())
        } else {
            self.read_message(head, method, content, &mut findings, &mut meaning).await
        };
        let answer = match (findings.into_answer()?, read) {
            (Some(answer), _) if answer.is_valid_if_incomplete() => answer,
            // The response to "100 Continue" is another one.
            (Some(_), Ok(())) if head.status == 100 => return Err(unexpected_status(head)),
            (Some(answer), Ok(())) => answer,
            (Some(_), Err(error)) => return Err(error),
            (None, read) => meaning.into_answer(read)?,
        };
        if !answer.is_valid_if_incomplete() && !self.received.buffer.is_empty() {
            return Err(IcapError::bad_response("more than one response"));
        }
        let reusable = answer == Answer::Clean && stays_open(head);
        let reply = IcapReply { answer, istag: head.first("istag") };
        Ok(Exchange { result: reply, reusable })
    }

    /// Reads the message that the server sent in place of the file, up to its end or to the first part that makes the
    /// verdict certain. Adds the findings of its head and trailer to `findings`, and sets `meaning`.
    async fn read_message(
        &mut self,
        head: &IcapHead,
        method: Method,
        content: &impl Content,
        findings: &mut Findings,
        meaning: &mut Meaning,
    ) -> Result<(), IcapError> {
        let is_announced = head.all("encapsulated").next().is_some();
        let is_refused = findings.is_empty() && matches!(meaning, Meaning::Refused(_));
        let is_required = findings.is_empty() && head.status == 200;
        if is_refused || (!is_announced && !is_required) {
            return Ok(());
        }
        if head.status == 204 {
            return reject_body(head);
        }
        let encapsulated = head.encapsulated()?;
        let http = self.read_encapsulated_head(&encapsulated).await?;
        if let Some(http) = &http {
            findings.add_head(http);
        }
        if head.status == 200 {
            let http = http.filter(|_| encapsulated.is_response);
            *meaning = Meaning::of_http_status(method, http.map(|http| http.status));
        }
        if findings.is_final() || (findings.is_empty() && matches!(meaning, Meaning::Refused(_))) {
            return Ok(());
        }
        let is_compared = findings.is_empty() && matches!(meaning, Meaning::Unmodified);
        match self.read_body(encapsulated.has_body, content, is_compared).await? {
            Some(trailer) => findings.add_head(&trailer),
            None => *meaning = Meaning::Refused(REPLACED),
        }
        Ok(())
    }

    async fn read_encapsulated_head(
        &mut self,
        encapsulated: &Encapsulated,
    ) -> Result<Option<IcapHead>, IcapError> {
        while self.received.buffer.len() < encapsulated.heads {
            self.fill().await?;
        }
        let heads = self.received.buffer.split_to(encapsulated.heads);
        Ok(match (encapsulated.heads, encapsulated.is_response) {
            (0, _) => None,
            (_, true) => Some(IcapHead::parse_http(&heads)?),
            (_, false) => Some(IcapHead::parse_request(&heads)?),
        })
    }

    /// Reads a body and returns its trailer. With `is_compared`, reads up to the first difference from the file, and
    /// returns `None` if there is one.
    async fn read_body(
        &mut self,
        has_body: bool,
        content: &impl Content,
        is_compared: bool,
    ) -> Result<Option<IcapHead>, IcapError> {
        if !has_body {
            return Ok((!is_compared || content.is_empty()).then(IcapHead::default));
        }
        let (mut decoder, mut offset) = (ChunkDecoder::new(), 0);
        loop {
            match decoder.next(&mut self.received.buffer)? {
                Decoded::Incomplete => self.fill().await?,
                Decoded::End if is_compared && offset < content.len() => return Ok(None),
                Decoded::End => return Ok(Some(decoder.trailer()?)),
                Decoded::Data(data) if is_compared => {
                    if !is_at(content, offset, &data).await? {
                        return Ok(None);
                    }
                    offset += data.len() as u64;
                }
                Decoded::Data(data) => {
                    offset += data.len() as u64;
                    if offset > content.len().saturating_add(MAX_PAGE) {
                        return Err(IcapError::bad_response("body too long"));
                    }
                }
            }
        }
    }
}

/// Returns whether the file contains these bytes at `offset`.
async fn is_at(
    content: &impl Content,
    mut offset: u64,
    mut data: &[u8],
) -> Result<bool, IcapError> {
    while !data.is_empty() {
        if offset >= content.len() {
            return Ok(false);
        }
        let expected = read_chunk(content, offset, data.len() as u64).await?;
        match data.strip_prefix(&*expected) {
            Some(rest) => data = rest,
            None => return Ok(false),
        }
        offset += expected.len() as u64;
    }
    Ok(true)
}

/// Meaning of a response without headers that report a finding.
#[derive(Debug)]
enum Meaning {
    /// Nothing found.
    Unmodified,
    Refused(&'static str),
    TooLarge,
    /// The server failed.
    Failed(String),
}

impl Meaning {
    /// Returns the meaning of an ICAP status. That of 200 depends on the message that follows.
    fn of_status(status: u16) -> Self {
        match status {
            200 | 204 => Self::Unmodified,
            403 => Self::Refused(REFUSED),
            413 => Self::TooLarge,
            status => Self::Failed(format!("ICAP status {status}")),
        }
    }

    /// Returns the meaning of a message with an HTTP response of this status, or with a request. That of the original
    /// response, or of a request, depends on the body that follows.
    fn of_http_status(method: Method, status: Option<u16>) -> Self {
        match (method, status) {
            (Method::Respmod, Some(200)) | (_, None) => Self::Unmodified,
            // A block page, a redirect to one, or any response to an upload.
            (_, Some(200..=399 | 403 | 406 | 451)) => Self::Refused(REPLACED),
            (_, Some(413)) => Self::TooLarge,
            (_, Some(status)) => Self::Failed(format!("HTTP status {status}")),
        }
    }

    /// Returns the answer of a response of which the rest was read with this result.
    fn into_answer(self, read: Result<(), IcapError>) -> Result<Answer, IcapError> {
        match self {
            Self::Refused(name) => Ok(Answer::found(FindingKind::Refused, name)),
            Self::TooLarge => Ok(Answer::found(FindingKind::TooLarge, TOO_LARGE)),
            Self::Failed(reason) => Err(IcapError::Reported(reason)),
            Self::Unmodified => read.map(|()| Answer::Clean),
        }
    }
}

/// Names of findings of servers that give no reason.
const REPLACED: &str = "replaced by the ICAP server";
const REFUSED: &str = "refused by the ICAP server";
const TOO_LARGE: &str = "too large for the ICAP server";

/// Rejects a response that announces an HTTP message although its status forbids one: the bytes of the message could be
/// taken for the next response.
pub(crate) fn reject_body(head: &IcapHead) -> Result<(), IcapError> {
    if head.all("encapsulated").next().is_some() && !head.encapsulated()?.is_empty() {
        return Err(IcapError::bad_response("message in a response without one"));
    }
    Ok(())
}

pub(crate) fn stays_open(head: &IcapHead) -> bool {
    !head.lists("connection", "close")
}

pub(crate) fn unexpected_status(head: &IcapHead) -> IcapError {
    IcapError::Reported(format!("ICAP status {}", head.status))
}
