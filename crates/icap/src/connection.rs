//! One connection to a server, for one or more exchanges in sequence. The file is sent while the response is received.

use std::pin::pin;

use futures_util::FutureExt;
use tokio::io::{AsyncWriteExt, ReadHalf, WriteHalf};

use crate::{
    answer::{IcapReply, SentPart},
    content::Content,
    error::IcapError,
    finding::Findings,
    options::ServiceOptions,
    request::{IcapService, put_preview, send_rest},
    response::{Exchange, Incoming, Received, reject_body, stays_open, unexpected_status},
    transport::{Transport, Unread},
};

/// A connection for one or more exchanges in sequence.
pub(crate) struct Connection {
    transport: Box<dyn Transport>,
    received: Received,
}

type Halves<'c> =
    (Incoming<'c, ReadHalf<&'c mut Box<dyn Transport>>>, WriteHalf<&'c mut Box<dyn Transport>>);

impl Connection {
    pub(crate) fn new(transport: Box<dyn Transport>) -> Self {
        Self { transport, received: Received::default() }
    }

    /// Returns what the server has sent since the latest exchange.
    pub(crate) fn unread(&mut self) -> Unread {
        // TLS may have decrypted bytes that it has not delivered. Without a limit for the task, which would hide them.
        let mut incoming = Incoming { reader: &mut self.transport, received: &mut self.received };
        match tokio::task::unconstrained(incoming.fill()).now_or_never() {
            None => self.transport.unread(),
            Some(Ok(())) => Unread::Bytes,
            Some(Err(_)) => Unread::End,
        }
    }

    /// Returns whether the server sent any byte in the latest exchange. If not, it may have closed the idle
    /// connection before it received the request.
    pub(crate) fn has_received(&self) -> bool {
        self.received.any
    }

    /// Starts an exchange.
    fn start(&mut self) -> Halves<'_> {
        self.received.any = false;
        let (reader, writer) = tokio::io::split(&mut self.transport);
        (Incoming { reader, received: &mut self.received }, writer)
    }

    /// Reads the service's options.
    pub(crate) async fn options(
        &mut self,
        service: &IcapService,
    ) -> Result<Exchange<ServiceOptions>, IcapError> {
        let (mut incoming, mut writer) = self.start();
        let (request, method) = (service.options_request(), service.method.as_str());
        writer.write_all(request.as_bytes()).await.map_err(IcapError::connection_lost)?;
        writer.flush().await.map_err(IcapError::connection_lost)?;
        let head = incoming.read_head().await?;
        if head.status != 200 {
            return Err(unexpected_status(&head));
        }
        let options = ServiceOptions::parse(&head, method)?;
        let body = head.all("encapsulated").any(|value| !value.contains("null-body"));
        let reusable = !body && incoming.received.buffer.is_empty() && stays_open(&head);
        Ok(Exchange { result: options, reusable })
    }

    /// Scans a file.
    ///
    /// # Errors
    /// Everything other than a complete response with an answer. The connection cannot be used again then.
    pub(crate) async fn scan(
        &mut self,
        service: &IcapService,
        preview: Option<u64>,
        content: &impl Content,
    ) -> Result<Exchange<IcapReply>, IcapError> {
        let (mut incoming, mut writer) = self.start();
        let method = service.method;
        let mut buffer = service.scan_request(preview, content.len());
        let mut offset = 0;
        if let Some(preview) = preview {
            offset = put_preview(&mut buffer, preview, content).await?;
            let is_whole = offset == content.len();
            // A server may respond and close before it has read the preview: writing fails then, but the response
            // is readable.
            let sending = async {
                writer.write_all(&buffer).await?;
                writer.flush().await
            };
            let sent = match sending.await {
                Ok(()) if is_whole => SentPart::Whole,
                Ok(()) => SentPart::Preview,
                Err(_) => SentPart::Less,
            };
            buffer.clear();
            let head = incoming.read_head().await?;
            if is_whole || head.status != 100 || !Findings::new(&head).is_empty() {
                let exchange = incoming.read_reply(&head, method, content).await?;
                exchange.result.answer.require_sent(sent)?;
                return Ok(exchange);
            }
            reject_body(&head)?;
        }
        let sending = send_rest(&mut writer, buffer, offset, content);
        let receiving = async {
            let head = incoming.read_head().await?;
            incoming.read_reply(&head, method, content).await
        };
        let (exchange, sent) = send_while_receiving(sending, receiving).await?;
        exchange.result.answer.require_sent(sent)?;
        Ok(exchange)
    }
}

/// Sends a request and receives its response concurrently. Returns the response and the part of the file that was sent
/// before the response was complete.
async fn send_while_receiving<T>(
    sending: impl Future<Output = Result<(), IcapError>>,
    receiving: impl Future<Output = Result<T, IcapError>>,
) -> Result<(T, SentPart), IcapError> {
    let (mut sending, mut receiving) = (pin!(sending), pin!(receiving));
    let mut sent = None;
    loop {
        tokio::select! {
            biased;
            result = &mut sending, if sent.is_none() => sent = Some(match result {
                Ok(()) => SentPart::Whole,
                Err(error @ IcapError::Content(_)) => return Err(error),
                // A server that closes its receiving side early has usually sent the reason.
                Err(_) => SentPart::Less,
            }),
            response = &mut receiving => return Ok((response?, sent.unwrap_or(SentPart::Less))),
        }
    }
}
