//! What has half a minute in the program as it is shipped: all of it at once, so that it takes one
//! half minute and not four.

use std::time::{Duration, Instant, UNIX_EPOCH};

use tokio::time::sleep;

use crate::{
    harness::{
        Builder, Homeserver, Media, Scanner, homeserver::TOKEN, noise, png, raw::Caller,
        scanner::entries, until,
    },
    signals::{STAYS, begin, nothing_survives},
};

/// That it took no less. More than [`PATIENCE`](crate::harness::PATIENCE), nothing here is waited for.
#[track_caller]
fn took_half_a_minute(took: Duration) {
    assert!(took.as_secs() >= 28, "{took:?}");
}

#[tokio::test]
async fn half_minutes_end() {
    tokio::join!(
        a_removal_command_that_hangs_is_killed(),
        a_scan_that_outlasts_the_grace_time_is_killed(),
        a_homeserver_below_the_least_rate_is_given_up(),
        a_client_below_the_least_rate_gives_its_share_of_the_disk_back(),
    );
}

async fn a_removal_command_that_hangs_is_killed() {
    let homeserver = Homeserver::start().await;
    let builder = Builder::new("exit 0").homeserver(&homeserver);
    let hangs = r#"trap '' TERM; date +%s >> "$MARKS/removals"; while :; do sleep 1000; done"#;
    let removal = builder.place().write_script("removal.sh", hangs);
    let config = format!("scan.removal_command = [\"{}\"]", removal.display());
    let scanner = builder.config(&config).start().await;
    let media = homeserver.has_bytes("abc", png());

    scanner.client.get(&format!("/download/{media}")).await.is_media(&png());
    until("it hangs", || scanner.place.marks("removals") == 1).await;
    scanner.idle().await;
    let begun = Duration::from_secs(scanner.place.mark("removals").trim().parse().unwrap());
    took_half_a_minute((UNIX_EPOCH + begun).elapsed().unwrap());
    scanner.logged("scan.removal_command failed", 1).await;
}

async fn a_scan_that_outlasts_the_grace_time_is_killed() {
    let homeserver = Homeserver::start().await;
    let mut scanner = Scanner::start(&homeserver, STAYS).await;
    begin(&scanner, &homeserver).await;
    let begun = Instant::now();
    scanner.signal(nix::sys::signal::Signal::SIGTERM);
    assert_eq!(scanner.ended().await.code(), Some(0));
    took_half_a_minute(begun.elapsed());
    assert!(scanner.log().contains("the grace time is over"));
    nothing_survives(&scanner.place).await;
    assert!(entries(&scanner.place.path("temp")).is_empty());
}

async fn a_homeserver_below_the_least_rate_is_given_up() {
    let homeserver = Homeserver::start().await;
    let scanner = Scanner::start(&homeserver, "exit 0").await;
    // A tenth of download.min_rate.
    let drips =
        Media::new("image/png", "").dripping(noise(1, 50), 10_000, Duration::from_millis(500));
    let media = homeserver.has("drips", drips);
    let begun = Instant::now();
    let reply = scanner.client.get(&format!("/scan/{media}")).await;
    reply.is_error(504, "MCS_MEDIA_REQUEST_FAILED");
    took_half_a_minute(begun.elapsed());
    scanner.idle().await;
}

async fn a_client_below_the_least_rate_gives_its_share_of_the_disk_back() {
    let homeserver = Homeserver::start().await;
    let scanner = Builder::new("exit 0")
        .homeserver(&homeserver)
        .config("download.max_size = 20000000\nscan.max_spool_size = 40000000")
        // In half a minute more than the media has; and no other limit ends it.
        .config("web.min_rate = \"1MiB\"\nweb.idle_timeout = \"1h\"")
        .start()
        .await;
    // More than sockets hold on their way.
    let large = noise(1, 19_000_000);
    let [slow, next] = ["slow", "next"].map(|id| homeserver.has_bytes(id, large.clone()));
    let begun = Instant::now();
    let mut caller =
        Caller::get_narrowly(&scanner.address, &format!("/download/{slow}"), TOKEN).await;
    caller.read(1).await;
    let path = format!("/download/{next}");
    scanner.client.get(&path).await.is_error(503, "M_UNKNOWN");
    let read_slowly = async {
        loop {
            // An eighth of what is due, and enough for the kernel to take more now and then.
            caller.read(64 * 1024).await;
            sleep(Duration::from_millis(500)).await;
        }
    };
    tokio::select! {
        () = read_slowly => {}
        () = scanner.logged("the client takes too few bytes", 1) => {}
    }
    took_half_a_minute(begun.elapsed());
    scanner.client.get(&path).await.is_media(&large);
}
