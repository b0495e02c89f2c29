//! One connection to a server, for one or more exchanges in sequence. The file is sent while the response is received.

use std::pin::pin;

use bytes::BytesMut;
use futures_util::FutureExt;
use tokio::io::{AsyncWriteExt, ReadHalf, WriteHalf};

use crate::{
    answer::{Answer, Reply},
    content::Content,
    error::IcapError,
    finding::finding,
    message::put_chunk,
    request::{IcapService, read_chunk, send_rest},
    response::{Exchange, Incoming, stays_open, unexpected_status},
    transport::Transport,
};

/// Maximum length of a preview, bytes. If a server requests a larger preview, this size is used.
const MAX_PREVIEW: u64 = 64 * 1024;

/// A connection for one or more exchanges in sequence.
pub(crate) struct Connection {
    incoming: Incoming<ReadHalf<Box<dyn Transport>>>,
    writer: WriteHalf<Box<dyn Transport>>,
}

/// Options of a service, from its response to OPTIONS.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ServiceOptions {
    /// Length of the requested preview, bytes; none if the server requests no preview.
    pub preview: Option<u64>,
    /// Version of the server.
    pub istag: String,
}

impl Connection {
    pub(crate) fn new(transport: Box<dyn Transport>) -> Self {
        let (reader, writer) = tokio::io::split(transport);
        let incoming = Incoming { reader, buffer: BytesMut::new(), has_received: false };
        Self { incoming, writer }
    }

    /// Returns whether the server has neither sent unsolicited data nor closed the connection.
    pub(crate) fn is_quiet(&mut self) -> bool {
        self.incoming.fill().now_or_never().is_none()
    }

    /// Returns whether the server sent any byte in the latest exchange. If not, it may have closed the idle
    /// connection before it received the request.
    pub(crate) fn has_received(&self) -> bool {
        self.incoming.has_received
    }

    /// Reads the service's options.
    pub(crate) async fn options(
        &mut self,
        service: &IcapService,
    ) -> Result<Exchange<ServiceOptions>, IcapError> {
        self.incoming.has_received = false;
        let (request, method) = (service.options_request(), service.method.as_str());
        self.writer.write_all(request.as_bytes()).await.map_err(IcapError::connection_lost)?;
        self.writer.flush().await.map_err(IcapError::connection_lost)?;
        let head = self.incoming.read_head().await?;
        if head.status != 200 {
            return Err(unexpected_status(&head));
        }
        let methods: Vec<_> = head.all("methods").collect();
        if !methods.is_empty() && !head.lists("methods", method) {
            let methods = methods.join(", ");
            return Err(IcapError::Reported(format!("supported methods: {methods}")));
        }
        let preview = head.first("preview").and_then(|preview| preview.parse::<u64>().ok());
        let no_istag = || IcapError::bad_response("OPTIONS response without an ISTag");
        let istag = head.first("istag").ok_or_else(no_istag)?;
        let body = head.all("encapsulated").any(|value| !value.contains("null-body"));
        let reusable = !body && self.incoming.buffer.is_empty() && stays_open(&head);
        let preview = preview.map(|preview| preview.min(MAX_PREVIEW));
        Ok(Exchange { result: ServiceOptions { preview, istag }, reusable })
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
    ) -> Result<Exchange<Reply>, IcapError> {
        self.incoming.has_received = false;
        let method = service.method;
        let mut buffer = service.scan_request(preview, content.len());
        let mut offset = 0;
        if let Some(preview) = preview {
            while offset < preview.min(content.len()) {
                let chunk = read_chunk(content, offset, preview - offset).await?;
                offset += chunk.len() as u64;
                put_chunk(&mut buffer, &chunk);
            }
            let is_whole = offset == content.len();
            let end = if is_whole { b"0; ieof\r\n\r\n".as_slice() } else { b"0\r\n\r\n" };
            buffer.extend_from_slice(end);
            // A server may respond and close before it has read the preview: writing fails then, but the response
            // is readable.
            let sending = async {
                self.writer.write_all(&buffer).await?;
                self.writer.flush().await
            };
            let sent = sending.await.map_err(IcapError::connection_lost);
            buffer.clear();
            let head = self.incoming.read_head().await?;
            if is_whole || head.status != 100 || !matches!(finding(&head), Ok(None)) {
                let exchange = self.incoming.read_reply(head, method, content).await?;
                if exchange.result.answer == Answer::Clean {
                    sent?;
                }
                return Ok(exchange);
            }
        }
        let sending = send_rest(&mut self.writer, buffer, offset, content);
        let receiving = async {
            let head = self.incoming.read_head().await?;
            self.incoming.read_reply(head, method, content).await
        };
        let (exchange, sent) = send_and_receive(sending, receiving).await?;
        if exchange.result.answer == Answer::Clean && !sent {
            return Err(IcapError::PrematureAnswer);
        }
        Ok(exchange)
    }
}

/// Sends a request and receives its response concurrently. Returns the response and whether the request was sent
/// completely before the response.
async fn send_and_receive<T>(
    sending: impl Future<Output = Result<(), IcapError>>,
    receiving: impl Future<Output = Result<T, IcapError>>,
) -> Result<(T, bool), IcapError> {
    let (mut sending, mut receiving) = (pin!(sending), pin!(receiving));
    let mut sent = None;
    loop {
        tokio::select! {
            biased;
            result = &mut sending, if sent.is_none() => sent = Some(match result {
                Ok(()) => true,
                Err(error @ IcapError::Content(_)) => return Err(error),
                // A server that closes its receiving side early has usually sent the reason.
                Err(_) => false,
            }),
            response = &mut receiving => return Ok((response?, sent == Some(true))),
        }
    }
}
