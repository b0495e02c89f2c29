//! Responses about a file. A file that is sent back is compared with the content as it arrives; neither is buffered as
//! a whole.

use bytes::BytesMut;
use tokio::io::{AsyncRead, AsyncReadExt};

use crate::{
    answer::{Answer, FindingKind, IcapReply},
    content::Content,
    error::IcapError,
    finding::finding,
    message::{ChunkDecoder, Decoded, Encapsulated, IcapHead},
    request::{Method, read_chunk},
};

/// Free space in the buffer before each read, bytes.
const READ_SIZE: usize = 64 * 1024;

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

    /// Reads the result of a scan from a response. Reads the body to its end only if the result depends on it.
    pub(crate) async fn read_reply(
        &mut self,
        head: IcapHead,
        method: Method,
        content: &impl Content,
    ) -> Result<Exchange<IcapReply>, IcapError> {
        let istag = head.first("istag");
        // Headers override the status: some servers report findings with 204, or send the file back.
        if let Some(answer) = finding(&head)? {
            let answer = self.add_encapsulated_finding(answer, &head).await?;
            // The body, a page for users, is not read; therefore the connection cannot be used again.
            return Ok(Exchange { result: IcapReply { answer, istag }, reusable: false });
        }
        let answer = match head.status {
            204 => {
                reject_body(&head)?;
                Answer::Clean
            }
            200 => {
                let encapsulated = head.encapsulated()?;
                self.read_modified(encapsulated, method, content).await?
            }
            403 => refused(REFUSED),
            413 => too_large(),
            _ => return Err(unexpected_status(&head)),
        };
        if answer == Answer::Clean && !self.received.buffer.is_empty() {
            return Err(IcapError::bad_response("more than one response"));
        }
        let reusable = answer == Answer::Clean && stays_open(&head);
        Ok(Exchange { result: IcapReply { answer, istag }, reusable })
    }

    /// Returns malware or a refusal that the encapsulated head of a response reports, where the ICAP head reports only
    /// encryption or a limit; otherwise `answer`.
    async fn add_encapsulated_finding(
        &mut self,
        answer: Answer,
        head: &IcapHead,
    ) -> Result<Answer, IcapError> {
        if answer.is_final() || head.status != 200 || head.first("encapsulated").is_none() {
            return Ok(answer);
        }
        let encapsulated = head.encapsulated()?;
        let found = match self.read_encapsulated_head(&encapsulated).await? {
            Some(head) => finding(&head)?,
            None => None,
        };
        Ok(found.filter(Answer::is_final).unwrap_or(answer))
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

    /// Reads the message that the server sent in place of the file. The result is "clean" if it contains the file.
    async fn read_modified(
        &mut self,
        encapsulated: Encapsulated,
        method: Method,
        content: &impl Content,
    ) -> Result<Answer, IcapError> {
        let head = self.read_encapsulated_head(&encapsulated).await?;
        // Some servers report findings in these headers, with any status.
        if let Some(head) = &head
            && let Some(answer) = finding(head)?
        {
            return Ok(answer);
        }
        let status = head.filter(|_| encapsulated.is_response).map(|head| head.status);
        let is_replaced = match (method, status) {
            // The original response, or a request: the result depends on the body.
            (Method::Respmod, Some(200)) | (_, None) => false,
            // A block page, a redirect to one, or any response to an upload.
            (_, Some(200..=399 | 403 | 406 | 451)) => true,
            (_, Some(413)) => return Ok(too_large()),
            (_, Some(status)) => {
                return Err(IcapError::Reported(format!("HTTP status {status}")));
            }
        };
        if is_replaced {
            return Ok(refused(REPLACED));
        }
        match self.compare_body(encapsulated.has_body, content).await? {
            Some(trailer) => Ok(finding(&trailer)?.unwrap_or(Answer::Clean)),
            None => Ok(refused(REPLACED)),
        }
    }

    /// Compares a body with the file, up to the first difference. Returns the body's trailer if both are equal.
    async fn compare_body(
        &mut self,
        has_body: bool,
        content: &impl Content,
    ) -> Result<Option<IcapHead>, IcapError> {
        if !has_body {
            return Ok(content.is_empty().then(IcapHead::default));
        }
        let (mut decoder, mut offset) = (ChunkDecoder::new(), 0);
        loop {
            match decoder.next(&mut self.received.buffer)? {
                Decoded::Incomplete => self.fill().await?,
                Decoded::End if offset < content.len() => return Ok(None),
                Decoded::End => return Ok(Some(decoder.trailer()?)),
                Decoded::Data(mut data) => {
                    while !data.is_empty() {
                        if offset >= content.len() {
                            return Ok(None);
                        }
                        let expected = read_chunk(content, offset, data.len() as u64).await?;
                        if data.split_to(expected.len()) != expected {
                            return Ok(None);
                        }
                        offset += expected.len() as u64;
                    }
                }
            }
        }
    }
}

/// Names of findings of servers that give no reason.
const REPLACED: &str = "replaced by the ICAP server";
const REFUSED: &str = "refused by the ICAP server";
const TOO_LARGE: &str = "too large for the ICAP server";

fn refused(name: &str) -> Answer {
    Answer::Found { kind: FindingKind::Refused, name: name.to_owned() }
}

fn too_large() -> Answer {
    Answer::Found { kind: FindingKind::Limit, name: TOO_LARGE.to_owned() }
}

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
