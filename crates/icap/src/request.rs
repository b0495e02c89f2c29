//! Requests: their heads, and sending of the file.

use std::io;

use bytes::Bytes;
use tokio::io::{AsyncWrite, AsyncWriteExt};

use crate::{content::Content, error::IcapError, message::put_chunk};

/// URL and host sent to servers in place of the real ones, which would disclose what users share.
const URL: &str = "http://media.invalid/media";
const HOST: &str = "media.invalid";

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

/// A service of an ICAP server.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct IcapService {
    /// URI of the service, with the scheme `icap`.
    pub uri: String,
    /// Value of the `Host` header.
    pub authority: String,
    /// How files are presented.
    pub method: Method,
    /// Value of the `User-Agent` header.
    pub user_agent: &'static str,
}

impl IcapService {
    /// Returns a request for the options of the service.
    pub(crate) fn options_request(&self) -> String {
        let Self { uri, authority, user_agent, .. } = self;
        format!("OPTIONS {uri} ICAP/1.0\r\nHost: {authority}\r\nUser-Agent: {user_agent}\r\n\r\n")
    }

    /// Returns the ICAP head and the HTTP heads of a request for a file of `length` bytes.
    pub(crate) fn scan_request(&self, preview: Option<u64>, length: u64) -> Vec<u8> {
        let Self { uri, authority, method, user_agent } = self;
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
            "{method} {uri} ICAP/1.0\r\nHost: {authority}\r\nUser-Agent: {user_agent}\r\n\
             Allow: 204\r\n{preview}Encapsulated: {encapsulated}\r\n\r\n{heads}"
        )
        .into()
    }
}

/// Appends the first `preview` bytes of the file and their end marker to `buffer`. Returns the number of bytes.
pub(crate) async fn put_preview(
    buffer: &mut Vec<u8>,
    preview: u64,
    content: &impl Content,
) -> Result<u64, IcapError> {
    let mut offset = 0;
    while offset < preview.min(content.len()) {
        let chunk = read_chunk(content, offset, preview - offset).await?;
        offset += chunk.len() as u64;
        put_chunk(buffer, &chunk);
    }
    let is_whole = offset == content.len();
    let end = if is_whole { b"0; ieof\r\n\r\n".as_slice() } else { b"0\r\n\r\n" };
    buffer.extend_from_slice(end);
    Ok(offset)
}

/// Sends the contents of `buffer`, the file from `offset`, and the end marker.
pub(crate) async fn send_rest(
    writer: &mut (impl AsyncWrite + Unpin),
    mut buffer: Vec<u8>,
    mut offset: u64,
    content: &impl Content,
) -> Result<(), IcapError> {
    while offset < content.len() {
        let chunk = read_chunk(content, offset, u64::MAX).await?;
        offset += chunk.len() as u64;
        put_chunk(&mut buffer, &chunk);
        // The last chunk is sent together with the end marker.
        if offset < content.len() {
            writer.write_all(&buffer).await.map_err(IcapError::connection_lost)?;
            buffer.clear();
        }
    }
    buffer.extend_from_slice(b"0\r\n\r\n");
    writer.write_all(&buffer).await.map_err(IcapError::connection_lost)?;
    writer.flush().await.map_err(IcapError::connection_lost)
}

/// Reads a chunk before the end of the file: at least one byte, at most `max`.
pub(crate) async fn read_chunk(
    content: &impl Content,
    offset: u64,
    max: u64,
) -> Result<Bytes, IcapError> {
    let chunk = content.read_chunk(offset, max).await.map_err(IcapError::Content)?;
    if chunk.is_empty() {
        return Err(IcapError::Content(io::ErrorKind::UnexpectedEof.into()));
    }
    Ok(chunk)
}
