//! Scans against fake ICAP servers on loopback, correct and faulty.

mod connections;
mod findings;
mod kinds;
mod requests;
mod sent_part;
mod trailers;
mod violations;

use std::{io, net::SocketAddr, sync::Arc};

use bytes::{Bytes, BytesMut};
use mcs_testing::{FakeServer, Fault, LONG_TIMEOUT, linger, respond};
use parking_lot::Mutex;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};

use crate::{
    Answer, Connect, Content, Finding, FindingKind, IcapClient, IcapError, IcapService, Method,
    Transport,
    message::{ChunkDecoder, Decoded, put_chunk},
};

const MEDIA: &[u8] = b"some media, not small and not large";

const UNMODIFIED: &str = "ICAP/1.0 204 No Content\r\nISTag: \"one\"\r\n\r\n";

/// Opens connections to a server on loopback.
struct Loopback(SocketAddr);

impl Connect for Loopback {
    async fn connect(&self) -> io::Result<Box<dyn Transport>> {
        Ok(Box::new(TcpStream::connect(self.0).await?))
    }
}

impl Content for Vec<u8> {
    fn len(&self) -> u64 {
        self.len() as u64
    }

    async fn read_chunk(&self, offset: u64, max: u64) -> io::Result<Bytes> {
        let start = usize::try_from(offset).unwrap().min(self.len());
        let length = usize::try_from(max).unwrap_or(usize::MAX).min(128 << 10);
        Ok(Bytes::copy_from_slice(&self[start..self.len().min(start.saturating_add(length))]))
    }
}

fn service(address: SocketAddr, method: Method) -> IcapService {
    let uri = format!("icap://{address}/avscan?x=y");
    IcapService { uri, authority: address.to_string(), method, user_agent: "test/1" }
}

fn client_by_method(server: &FakeServer, method: Method) -> IcapClient<Loopback> {
    IcapClient::new(service(server.address, method), true, Loopback(server.address))
}

fn client(server: &FakeServer) -> IcapClient<Loopback> {
    client_by_method(server, Method::Respmod)
}

/// Reads the options of a server and applies them.
async fn read_options(client: &IcapClient<Loopback>) {
    let options = client.read_options().await.unwrap();
    client.apply(options);
}

/// Scans a file within the time limit of a test. Returns the answer.
async fn answer(client: &IcapClient<Loopback>, media: &[u8]) -> Result<Answer, IcapError> {
    let reply = timeout(LONG_TIMEOUT, client.scan(&media.to_vec())).await.unwrap();
    reply.map(|reply| reply.answer)
}

/// A request as a server receives it.
#[derive(Debug)]
struct ReceivedRequest {
    head: String,
    http: String,
    body: Vec<u8>,
    /// Whether the body is complete, according to the client.
    is_whole: bool,
}

/// Reads a request, up to the end of its preview if it has one.
async fn read_request(stream: &mut TcpStream) -> Option<ReceivedRequest> {
    let head = read_head(stream).await?;
    let mut request =
        ReceivedRequest { head, http: String::new(), body: Vec::new(), is_whole: true };
    if request.head.starts_with("OPTIONS") {
        return Some(request);
    }
    request.http = read_head(stream).await?;
    if request.head.starts_with("RESPMOD") {
        request.http += &read_head(stream).await?;
    }
    let has_preview = request.head.contains("\r\nPreview: ");
    let raw = read_chunks(stream).await;
    request.is_whole = !has_preview || raw.ends_with(b"0; ieof\r\n\r\n");
    request.body = decode_chunks(&raw);
    Some(request)
}

/// Requests and reads the rest of the body after a preview.
async fn read_rest(stream: &mut TcpStream, request: &mut ReceivedRequest) {
    if !request.is_whole {
        stream.write_all(b"ICAP/1.0 100 Continue\r\n\r\n").await.unwrap();
        request.body.extend(decode_chunks(&read_chunks(stream).await));
    }
}

/// Reads a head byte by byte, so that no data after it is consumed.
async fn read_head(stream: &mut TcpStream) -> Option<String> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await.ok()?);
    }
    Some(String::from_utf8(head).unwrap())
}

async fn read_chunks(stream: &mut TcpStream) -> Vec<u8> {
    let mut raw = Vec::new();
    loop {
        let start = raw.len();
        while !raw[start..].ends_with(b"\r\n") {
            raw.push(stream.read_u8().await.unwrap());
        }
        let size = raw[start..].split(|byte| *byte == b';').next().unwrap().trim_ascii();
        let size = usize::from_str_radix(std::str::from_utf8(size).unwrap(), 16).unwrap();
        let mut data = vec![0; size + 2];
        stream.read_exact(&mut data).await.unwrap();
        raw.extend_from_slice(&data);
        if size == 0 {
            return raw;
        }
    }
}

fn decode_chunks(raw: &[u8]) -> Vec<u8> {
    let (mut decoder, mut raw, mut body) = (ChunkDecoder::new(), BytesMut::from(raw), Vec::new());
    loop {
        match decoder.next(&mut raw).unwrap() {
            Decoded::Data(data) => body.extend_from_slice(&data),
            Decoded::End => return body,
            Decoded::Incomplete => panic!("incomplete chunks"),
        }
    }
}

/// Builds a 200 response with this HTTP head and this body in two chunks.
fn modified(kind: &str, http: &str, body: &[u8]) -> Vec<u8> {
    let http = format!("{http}\r\nX: y\r\n\r\n");
    let mut response = format!(
        "ICAP/1.0 200 OK\r\nISTag: \"one\"\r\nEncapsulated: {kind}-hdr=0, {kind}-body={}\r\n\r\n{http}",
        http.len()
    )
    .into_bytes();
    let (first, second) = body.split_at(body.len() / 2);
    put_chunk(&mut response, first);
    put_chunk(&mut response, second);
    response.extend_from_slice(b"0\r\n\r\n");
    response
}

/// Builds a response that sends a file back as a download.
fn sent_back(body: &[u8]) -> Vec<u8> {
    modified("res", "HTTP/1.1 200 OK", body)
}

/// Starts a server that responds after the end of the file, once per connection.
async fn server(response: impl Into<Vec<u8>>, fault: Fault) -> FakeServer {
    let response: Arc<[u8]> = response.into().into();
    FakeServer::start(move |mut stream| {
        let response = Arc::clone(&response);
        async move {
            if let Some(mut request) = read_request(&mut stream).await {
                read_rest(&mut stream, &mut request).await;
                respond(&mut stream, &response, fault).await;
            }
            linger(stream).await;
        }
    })
    .await
}

/// Builds a head with this status and these headers, and no body.
fn head(status: u16, headers: &str) -> Vec<u8> {
    format!("ICAP/1.0 {status} x\r\n{headers}\r\n\r\n").into_bytes()
}

/// Adds headers to the ICAP head of a response.
fn with_header(header: &str, response: &[u8]) -> Vec<u8> {
    let line = response.windows(2).position(|end| end == b"\r\n").unwrap();
    [&response[..line], b"\r\n", header.as_bytes(), &response[line..]].concat()
}

/// Adds headers to the trailer of a response with a body.
fn with_trailer(header: &str, response: &[u8]) -> Vec<u8> {
    let end = response.strip_suffix(b"\r\n").unwrap();
    [end, header.as_bytes(), b"\r\n\r\n"].concat()
}

/// Scans with a server that sends this response.
async fn scan_by_method(
    method: Method,
    response: impl Into<Vec<u8>>,
    fault: Fault,
) -> Result<Answer, IcapError> {
    let server = server(response, fault).await;
    answer(&client_by_method(&server, method), MEDIA).await
}

/// Scans by RESPMOD with a server that sends this response.
async fn scan(response: impl Into<Vec<u8>>, fault: Fault) -> Result<Answer, IcapError> {
    scan_by_method(Method::Respmod, response, fault).await
}

fn name(answer: Result<Answer, IcapError>) -> String {
    match answer.unwrap() {
        Answer::Found { first, .. } => first.name,
        Answer::Clean => panic!("clean"),
    }
}

/// Asserts that a server's response is a finding of this kind, with this name.
async fn assert_found(response: Vec<u8>, kind: FindingKind, name: &str) {
    let shown = String::from_utf8_lossy(&response).into_owned();
    match scan(response, Fault::None).await.unwrap() {
        Answer::Found { first, .. } => {
            assert_eq!((first.kind, first.name.as_str()), (kind, name), "{shown}");
        }
        Answer::Clean => panic!("clean: {shown}"),
    }
}

#[tokio::test]
async fn unmodified_or_identical_file_is_clean() {
    assert_eq!(scan(UNMODIFIED, Fault::None).await.unwrap(), Answer::Clean);
    assert_eq!(scan(sent_back(MEDIA), Fault::None).await.unwrap(), Answer::Clean);
    let response = modified("req", "POST http://x/ HTTP/1.1", MEDIA);
    let answer = scan_by_method(Method::Reqmod, response, Fault::None).await;
    assert_eq!(answer.unwrap(), Answer::Clean);
}

#[tokio::test]
async fn incomplete_or_invalid_response_is_a_failure() {
    let response = sent_back(MEDIA);
    let length = response.len();
    for end in [10, 40, 100, length - 30, length - 5, length - 1] {
        let answer = scan(&response[..end], Fault::None).await;
        assert!(matches!(answer, Err(IcapError::ConnectionLost(_))), "{end}: {answer:?}");
    }
    for (response, fault) in [
        (UNMODIFIED, Fault::Cut),
        (UNMODIFIED, Fault::Twice),
        ("", Fault::None),
        ("HTTP/1.1 204 No Content\r\n\r\n", Fault::None),
        ("stream: OK\0\r\n\r\n", Fault::None),
        ("ICAP/1.0 200 OK\r\n\r\n", Fault::None),
        ("ICAP/1.0 206 Partial\r\nEncapsulated: null-body=0\r\n\r\n", Fault::None),
        ("ICAP/1.0 100 Continue\r\n\r\n", Fault::None),
        ("ICAP/1.0 404 Service not found\r\n\r\n", Fault::None),
        ("ICAP/1.0 407 Authentication required\r\n\r\n", Fault::None),
        ("ICAP/1.0 408 Timeout\r\n\r\n", Fault::None),
        ("ICAP/1.0 500 Server error\r\n\r\n", Fault::None),
        ("ICAP/1.0 503 Overloaded\r\n\r\n", Fault::None),
        ("ICAP/1.0 204 No Content\r\n\r\nICAP/1.0 200 OK\r\nX-Virus-ID: a\r\n\r\n", Fault::None),
    ] {
        let answer = scan(response, fault).await;
        assert!(answer.is_err(), "{response:?} {fault:?}: {answer:?}");
    }
    let error = modified("res", "HTTP/1.1 500 Scan error", b"an error page");
    assert!(matches!(scan(error, Fault::None).await, Err(IcapError::Reported(_))));
}

#[tokio::test]
async fn rejects_head_above_limit() {
    let server = FakeServer::start(|mut stream| async move {
        let _ = read_request(&mut stream).await;
        let _ = stream.write_all(b"ICAP/1.0 204 No Content\r\n").await;
        while stream.write_all(b"X: some header line\r\n").await.is_ok() {}
    })
    .await;
    let icap = client(&server);
    let failure = answer(&icap, MEDIA).await.unwrap_err();
    assert!(matches!(failure, IcapError::BadResponse(_)), "{failure}");
}

#[tokio::test]
async fn replaced_file_is_not_clean() {
    let page = b"<html>Blocked</html>";
    for response in [
        modified("res", "HTTP/1.1 403 Forbidden", page),
        modified("res", "HTTP/1.1 403 Forbidden", MEDIA),
        modified("res", "HTTP/1.1 302 Found", b""),
        sent_back(page),
        sent_back(&MEDIA[1..]),
        sent_back(&MEDIA[..MEDIA.len() - 1]),
        sent_back(&[MEDIA, b"x"].concat()),
        sent_back(b""),
        "ICAP/1.0 200 OK\r\nEncapsulated: res-hdr=0, null-body=19\r\n\r\nHTTP/1.1 200 OK\r\n\r\n"
            .into(),
    ] {
        let shown = String::from_utf8_lossy(&response).into_owned();
        let name = name(scan(response, Fault::None).await);
        assert_eq!(name, "replaced by the ICAP server", "{shown}");
    }
    // A response to an upload replaces it, whatever its body.
    let answer = scan_by_method(Method::Reqmod, sent_back(MEDIA), Fault::None).await;
    assert_eq!(name(answer), "replaced by the ICAP server");
}

#[tokio::test]
async fn scans_empty_file() {
    for response in [UNMODIFIED.as_bytes().to_vec(), sent_back(b"")] {
        let server = server(response, Fault::None).await;
        let icap = client(&server);
        assert_eq!(answer(&icap, b"").await.unwrap(), Answer::Clean);
    }
}

#[tokio::test]
async fn receives_large_file_while_sending_it() {
    let server = FakeServer::start(|mut stream| async move {
        for _ in 0..2 {
            read_head(&mut stream).await.unwrap();
        }
        let http = read_head(&mut stream).await.unwrap();
        let length = http.len();
        let head =
            format!("ICAP/1.0 200 OK\r\nEncapsulated: res-hdr=0, res-body={length}\r\n\r\n{http}");
        stream.write_all(head.as_bytes()).await.unwrap();
        let (mut reader, mut writer) = stream.split();
        // Sends the chunks back without decoding.
        let _ = tokio::io::copy(&mut reader, &mut writer).await;
    })
    .await;
    let icap = client(&server);
    let media: Vec<u8> = (0..=250).cycle().take(20_000_000).collect();
    assert_eq!(answer(&icap, &media).await.unwrap(), Answer::Clean);
}

/// A server that records requests. It keeps connections open. Its OPTIONS response contains the header line
/// `preview`. With `accepts_previews`, it responds "unmodified" to a preview without requesting the rest.
struct RecordingServer {
    server: FakeServer,
    requests: Arc<Mutex<Vec<ReceivedRequest>>>,
}

impl RecordingServer {
    async fn start(preview: &'static str, accepts_previews: bool) -> Self {
        let requests = Arc::new(Mutex::new(Vec::new()));
        let record = Arc::clone(&requests);
        let server = FakeServer::start(move |mut stream| {
            let record = Arc::clone(&record);
            async move {
                while let Some(mut request) = read_request(&mut stream).await {
                    let is_options = request.head.starts_with("OPTIONS");
                    if !accepts_previews {
                        read_rest(&mut stream, &mut request).await;
                    }
                    record.lock().push(request);
                    let response = if is_options {
                        format!(
                            "ICAP/1.0 200 OK\r\nMethods: RESPMOD, REQMOD\r\nISTag: \"zero\"\r\n\
                             {preview}Allow: 204\r\nEncapsulated: null-body=0\r\n\r\n"
                        )
                    } else {
                        UNMODIFIED.to_owned()
                    };
                    respond(&mut stream, response.as_bytes(), Fault::None).await;
                }
            }
        })
        .await;
        Self { server, requests }
    }

    /// Removes and returns the recorded requests.
    fn take_requests(&self) -> Vec<ReceivedRequest> {
        std::mem::take(&mut self.requests.lock())
    }
}
