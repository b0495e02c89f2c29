//! Reuse of connections, and options.

use tokio::net::TcpSocket;

use super::*;

#[tokio::test]
async fn reuses_connection_and_replaces_closed_one() {
    let recording = RecordingServer::start("", false).await;
    let icap = client(&recording.server);
    read_options(&icap).await;
    for _ in 0..5 {
        assert_eq!(answer(&icap, MEDIA).await.unwrap(), Answer::Clean);
    }
    assert_eq!(recording.server.connections(), 1);
    let (_, reserved) = recording.server.stop().await;
    let restarted = restart(reserved);
    assert_eq!(answer(&icap, MEDIA).await.unwrap(), Answer::Clean);
    assert_eq!(restarted.connections(), 1);
}

/// Starts a server on the address of a stopped one.
fn restart(reserved: TcpSocket) -> FakeServer {
    FakeServer::from_listener(reserved.listen(16).unwrap(), |mut stream| async move {
        while read_request(&mut stream).await.is_some() {
            respond(&mut stream, UNMODIFIED.as_bytes(), Fault::None).await;
        }
    })
}

#[tokio::test]
async fn retries_when_idle_connection_is_closed_on_reuse() {
    // Closes after the head of the second request, without a response.
    let server = FakeServer::start(|mut stream| async move {
        let _ = read_request(&mut stream).await;
        respond(&mut stream, UNMODIFIED.as_bytes(), Fault::None).await;
        let _ = read_head(&mut stream).await;
    })
    .await;
    let icap = client(&server);
    for _ in 0..3 {
        assert_eq!(answer(&icap, MEDIA).await.unwrap(), Answer::Clean);
    }
    assert_eq!(server.connections(), 3);
}

#[tokio::test]
async fn does_not_reuse_connection_with_unsolicited_response() {
    // A second "unmodified", which would be taken for the response to the next file.
    let signals = Arc::new([tokio::sync::Notify::new(), tokio::sync::Notify::new()]);
    let server_signals = Arc::clone(&signals);
    let server = FakeServer::start(move |mut stream| {
        let signals = Arc::clone(&server_signals);
        async move {
            let [trigger, sent] = &*signals;
            let _ = read_request(&mut stream).await;
            respond(&mut stream, UNMODIFIED.as_bytes(), Fault::None).await;
            trigger.notified().await;
            respond(&mut stream, UNMODIFIED.as_bytes(), Fault::None).await;
            sent.notify_one();
            let _ = read_head(&mut stream).await;
        }
    })
    .await;
    let icap = client(&server);
    assert_eq!(answer(&icap, MEDIA).await.unwrap(), Answer::Clean);
    let [trigger, sent] = &*signals;
    trigger.notify_one();
    sent.notified().await;
    assert_eq!(answer(&icap, MEDIA).await.unwrap(), Answer::Clean);
    assert_eq!(server.connections(), 2, "the first connection must not be used again");
    // The next stray response may arrive after the check, therefore no connection is kept.
    assert_eq!(answer(&icap, MEDIA).await.unwrap(), Answer::Clean);
    assert_eq!(server.connections(), 3, "connections of this server must not be used again");
}

#[tokio::test]
async fn options_need_an_istag_and_the_method() {
    let recording = RecordingServer::start("Preview: 4\r\n", false).await;
    let options = client(&recording.server).read_options().await.unwrap();
    assert_eq!((options.istag.as_str(), options.preview), ("\"zero\"", Some(4)));
    for (response, reason) in [
        ("ICAP/1.0 404 Not found\r\n\r\n", "unknown service"),
        ("ICAP/1.0 200 OK\r\nMethods: RESPMOD\r\n\r\n", "no ISTag"),
        ("ICAP/1.0 200 OK\r\nMethods: REQMOD\r\nISTag: \"x\"\r\n\r\n", "unsupported method"),
    ] {
        let server = FakeServer::start(move |mut stream| async move {
            let _ = read_request(&mut stream).await;
            respond(&mut stream, response.as_bytes(), Fault::None).await;
        })
        .await;
        let options = client(&server).read_options().await;
        assert!(options.is_err(), "{reason}: {options:?}");
    }
}

#[tokio::test]
async fn message_in_response_without_one_is_a_bad_response() {
    for encapsulated in [
        "res-hdr=0, res-body=19",
        "res-hdr=0, null-body=19",
        "req-hdr=0, null-body=19",
        "res-body=0",
        "opt-body=0",
        "null-body=5",
        "strange",
    ] {
        let header = format!("Encapsulated: {encapsulated}\r\n\r\n");
        let response = format!("ICAP/1.0 204 No Content\r\n{header}");
        let result = scan(response, Fault::None).await;
        assert!(matches!(result, Err(IcapError::BadResponse(_))), "{encapsulated}: {result:?}");
        let response = format!("ICAP/1.0 100 Continue\r\n{header}");
        let preview = "ICAP/1.0 200 OK\r\nISTag: \"o\"\r\nPreview: 4\r\n\r\n";
        let server = FakeServer::start(move |mut stream| {
            let response = response.clone();
            async move {
                let request = read_request(&mut stream).await;
                let is_options = request.is_some_and(|request| request.head.starts_with("OPTIONS"));
                let response = if is_options { preview } else { &response };
                respond(&mut stream, response.as_bytes(), Fault::None).await;
                respond(&mut stream, UNMODIFIED.as_bytes(), Fault::None).await;
                linger(stream).await;
            }
        })
        .await;
        let icap = client(&server);
        read_options(&icap).await;
        let result = answer(&icap, MEDIA).await;
        assert!(matches!(result, Err(IcapError::BadResponse(_))), "{encapsulated}: {result:?}");
    }
    let response = "ICAP/1.0 204 No Content\r\nEncapsulated: null-body=0\r\n\r\n";
    assert_eq!(scan(response, Fault::None).await.unwrap(), Answer::Clean);
}

#[tokio::test]
async fn behaviour_is_what_options_say_about_files() {
    let behaviour = |headers: &'static str| async move {
        let server = FakeServer::start(move |mut stream| async move {
            let _ = read_request(&mut stream).await;
            let options = format!("ICAP/1.0 200 OK\r\n{headers}\r\n\r\n");
            respond(&mut stream, options.as_bytes(), Fault::None).await;
        })
        .await;
        client(&server).read_options().await.unwrap().behaviour
    };
    let first = behaviour("ISTag: \"a\"\r\nDate: x\r\nAllow: 204\r\nMax-Connections: 4").await;
    let same = behaviour("Max-Connections: 5\r\nAllow: 204\r\nISTag: \"b\"\r\nDate: y").await;
    assert_eq!(first, same);
    for header in [
        "Preview: 0",
        "Methods: RESPMOD",
        "Service: other",
        "Transfer-Preview: *",
        "Transfer-Ignore: exe",
        "Transfer-Complete: *",
        "Allow: 206",
    ] {
        let headers = format!("ISTag: \"a\"\r\nAllow: 204\r\n{header}").leak();
        assert_ne!(behaviour(headers).await, first, "{header}");
    }
}
