//! Spool usage per file during a scan, compared with the table in docs/sizing.md.

use nix::unistd::geteuid;
use reqwest::Method;

use crate::{
    harness::{
        MockHomeserver, ScannerBuilder, attachment::Attachment, client::send, noise, wait_until,
    },
    operations::scrape_until,
};

/// File size in bytes; above the size that is kept in memory.
const SIZE: usize = 3 << 20;

#[tokio::test]
async fn spool_usage_matches_sizing_documentation() {
    let homeserver = MockHomeserver::start().await;
    let script = "echo begun >> $MARKS/begun\nread line < $MARKS/go";
    let scanner = ScannerBuilder::new(script).homeserver(&homeserver).start().await;
    scanner.dir.make_fifo("go");
    let operations = scanner.operations_client().await;
    let metrics = scrape_until(&operations, "mcs_spool_bytes 0").await;
    let namespaces = metrics.contains("mcs_sandbox_layer{layer=\"namespaces\"} 1");
    let sealed = Attachment::encrypt(&noise(3, SIZE), 3);
    let plain = homeserver.add_bytes("plain", noise(1, SIZE));
    let verdict_only = homeserver.add_bytes("scanned", noise(2, SIZE));
    let encrypted = homeserver.add_bytes("encrypted", sealed.ciphertext.clone());
    let body = sealed.body(&format!("mxc://{encrypted}")).to_string();
    let get = |path: String| scanner.client.request(Method::GET, &path);
    let post = |path: &str| scanner.client.request(Method::POST, path).body(body.clone());
    let copies_of_plain = if namespaces || geteuid().is_root() { 1 } else { 2 };
    let cases = [
        (get(format!("/download/{plain}")), copies_of_plain),
        (get(format!("/scan/{verdict_only}")), 1),
        (post("/download_encrypted"), 2),
    ];
    for (number, (request, copies)) in cases.into_iter().enumerate() {
        let response = tokio::spawn(send(request.bearer_auth("good-token")));
        wait_until("the script runs", || scanner.dir.mark_count("begun") == number + 1).await;
        scrape_until(&operations, &format!("mcs_spool_bytes {}", copies * SIZE)).await;
        scanner.dir.release_fifo("go").await;
        assert_eq!(response.await.unwrap().status, 200);
        scanner.wait_until_idle().await;
        scrape_until(&operations, "mcs_spool_bytes 0").await;
    }
}
