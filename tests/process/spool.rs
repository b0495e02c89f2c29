//! What a media takes of the spool while it is scanned: the table of docs/sizing.md.

use nix::unistd::geteuid;
use reqwest::Method;

use crate::{
    harness::{Builder, Homeserver, attachment::Attachment, client::send, noise, until},
    operations::scraped,
};

/// Above what is kept in memory, bytes.
const SIZE: usize = 3 << 20;

#[tokio::test]
async fn a_media_takes_as_much_of_the_spool_as_the_page_on_sizing_says() {
    let homeserver = Homeserver::start().await;
    let script = "echo begun >> $MARKS/begun\nread line < $MARKS/go";
    let scanner = Builder::new(script).homeserver(&homeserver).start().await;
    scanner.place.make_fifo("go");
    let operations = scanner.operations().await;
    let metrics = scraped(&operations, "mcs_spool_bytes 0").await;
    let namespaces = metrics.contains("mcs_sandbox_layer{layer=\"namespaces\"} 1");
    let sealed = Attachment::encrypt(&noise(3, SIZE), 3);
    let plain = homeserver.has_bytes("plain", noise(1, SIZE));
    let judged = homeserver.has_bytes("judged", noise(2, SIZE));
    let encrypted = homeserver.has_bytes("encrypted", sealed.ciphertext.clone());
    let body = sealed.body(&format!("mxc://{encrypted}")).to_string();
    let get = |path: String| scanner.client.request(Method::GET, &path);
    let post = |path: &str| scanner.client.request(Method::POST, path).body(body.clone());
    let copies_of_plain = if namespaces || geteuid().is_root() { 1 } else { 2 };
    let asked = [
        (get(format!("/download/{plain}")), copies_of_plain),
        (get(format!("/scan/{judged}")), 1),
        (post("/download_encrypted"), 2),
    ];
    for (number, (request, copies)) in asked.into_iter().enumerate() {
        let answer = tokio::spawn(send(request.bearer_auth("good-token")));
        until("the script runs", || scanner.place.marks("begun") == number + 1).await;
        scraped(&operations, &format!("mcs_spool_bytes {}", copies * SIZE)).await;
        scanner.place.let_go("go").await;
        assert_eq!(answer.await.unwrap().status, 200);
        scanner.idle().await;
        scraped(&operations, "mcs_spool_bytes 0").await;
    }
}
