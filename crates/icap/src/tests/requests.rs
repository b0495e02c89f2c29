//! Requests as servers receive them, with and without previews.

use super::*;

#[tokio::test]
async fn sends_requested_preview_and_the_rest_on_continue() {
    for (preview, media) in [(4, MEDIA), (0, MEDIA), (1000, MEDIA), (4, b"abcd"), (0, b"")] {
        let header = format!("Preview: {preview}\r\n").leak();
        for accepts_previews in [false, true] {
            let recording = RecordingServer::start(header, accepts_previews).await;
            let icap = client(&recording.server);
            read_options(&icap).await;
            assert_eq!(answer(&icap, media).await.unwrap(), Answer::Clean);
            let requests = recording.take_requests();
            let [options, scan] = requests.as_slice() else { panic!("{requests:?}") };
            assert!(options.head.starts_with("OPTIONS icap://127.0.0.1:"), "{options:?}");
            assert!(scan.head.contains(header.trim()), "{scan:?}");
            assert_eq!(scan.is_whole, preview >= media.len());
            let length = if accepts_previews { preview.min(media.len()) } else { media.len() };
            assert_eq!(scan.body, media[..length]);
        }
    }
}

#[tokio::test]
async fn sends_no_preview_when_disabled() {
    let recording = RecordingServer::start("Preview: 4\r\n", true).await;
    let address = recording.server.address;
    let icap = IcapClient::new(service(address, Method::Respmod), false, Loopback(address));
    read_options(&icap).await;
    assert_eq!(answer(&icap, MEDIA).await.unwrap(), Answer::Clean);
    let requests = recording.take_requests();
    let scan = requests.last().unwrap();
    assert!(!scan.head.contains("Preview"), "{scan:?}");
    assert_eq!(scan.body, MEDIA);
}

#[tokio::test]
async fn requests_follow_rfc_3507() {
    for (method, http) in [
        (
            Method::Respmod,
            "GET http://media.invalid/media HTTP/1.1\r\nHost: media.invalid\r\n\r\n\
             HTTP/1.1 200 OK\r\nContent-Type: application/octet-stream\r\nContent-Length: 35\r\n\r\n",
        ),
        (
            Method::Reqmod,
            "POST http://media.invalid/media HTTP/1.1\r\nHost: media.invalid\r\n\
             Content-Type: application/octet-stream\r\nContent-Length: 35\r\n\r\n",
        ),
    ] {
        let recording = RecordingServer::start("", false).await;
        let icap = client_by_method(&recording.server, method);
        assert_eq!(answer(&icap, MEDIA).await.unwrap(), Answer::Clean);
        let requests = recording.take_requests();
        let [scan] = requests.as_slice() else { panic!("{requests:?}") };
        assert_eq!(scan.http, http);
        assert_eq!(scan.body, MEDIA);
        let address = recording.server.address;
        let line = format!("{} icap://{address}/avscan?x=y ICAP/1.0", method.as_str());
        assert!(scan.head.starts_with(&line), "{}", scan.head);
        for header in [format!("Host: {address}"), "Allow: 204".into()] {
            assert!(scan.head.contains(&format!("\r\n{header}\r\n")), "{}", scan.head);
        }
        // The offsets of the encapsulated parts.
        let value = scan.head.lines().find_map(|line| line.strip_prefix("Encapsulated: ")).unwrap();
        let second = http.find("\r\n\r\n").unwrap() + 4;
        let expected = match method {
            Method::Respmod => {
                format!("req-hdr=0, res-hdr={second}, res-body={}", http.len())
            }
            Method::Reqmod => format!("req-hdr=0, req-body={}", http.len()),
        };
        assert_eq!(value, expected);
    }
}
