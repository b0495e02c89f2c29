//! Media, homeservers and engines that fail.

use super::*;

#[tokio::test(start_paused = true)]
async fn failures_of_others_do_not_use_up_the_list() {
    for (cause, least) in [
        (PauseCause::Token, 35),
        (PauseCause::Homeserver, 35),
        (PauseCause::Engines, 35),
        (PauseCause::Store, 35),
        (PauseCause::Busy, 7),
    ] {
        let (world, directory) = (World::new(1), StoreDirectory::new());
        let store = IncidentStore::File(directory.open());
        keep(&store, (0..3).map(media)).await;
        let ends: VecDeque<_> = std::iter::repeat_n(RescanEnd::pause(cause, "test"), 3).collect();
        // The one that was first seen last is the first.
        world.ends.lock().insert(media(2).mxc, ends);
        let _service = world.start(store, false);
        world.settle().await;
        assert_eq!(world.fetched(6).await, mxcs([2, 2, 2, 2, 1, 0]), "{cause:?}");
        let times = world.times();
        assert!(times[3] - times[0] >= Duration::from_secs(least), "{cause:?}");
        let pauses = format!("mcs_rescan_pauses_total{{cause=\"{}\"}} 3", cause.name());
        assert!(world.metric(&pauses), "{pauses}");
    }
}

#[tokio::test(start_paused = true)]
async fn homeserver_may_ask_to_wait() {
    let (world, directory) = (World::new(1), StoreDirectory::new());
    let store = IncidentStore::File(directory.open());
    keep(&store, [media(0)]).await;
    let delay = Some(Duration::from_secs(120));
    let end = RescanEnd::Pause { cause: PauseCause::RateLimit, detail: String::new(), delay };
    world.ends.lock().insert(media(0).mxc, [end].into());
    let _service = world.start(store, false);
    world.fetched(2).await;
    let times = world.times();
    assert!(times[1] - times[0] >= Duration::from_secs(120));
}

#[tokio::test(start_paused = true)]
async fn media_that_fails_is_tried_again_after_the_others() {
    let (world, directory) = (World::new(1), StoreDirectory::new());
    let store = IncidentStore::File(directory.open());
    keep(&store, (0..3).map(media)).await;
    let transient = || RescanEnd::Transient("test".into());
    let gone = RescanEnd::Done(RescanResult::Gone);
    world.ends.lock().insert(media(2).mxc, [transient(), transient(), transient()].into());
    world.ends.lock().insert(media(1).mxc, [transient()].into());
    world.ends.lock().insert(media(0).mxc, [gone].into());
    let _service = world.start(store, false);
    world.settle().await;
    assert_eq!(world.fetched(6).await, mxcs([2, 1, 0, 2, 1, 2]));
    for line in [
        "mcs_rescan_media_total{result=\"no_verdict\"} 1",
        "mcs_rescan_media_total{result=\"gone\"} 1",
        "mcs_rescan_media_total{result=\"clean\"} 1",
    ] {
        assert!(world.metric(line), "{line}");
    }
}

/// What happens to one media says nothing about others with the same content.
#[tokio::test(start_paused = true)]
async fn other_media_with_the_content_is_tried() {
    for end in [
        RescanEnd::Done(RescanResult::Gone),
        RescanEnd::Done(RescanResult::NoVerdict),
        RescanEnd::Verdict(RescanResult::Clean, [9; 32]),
        RescanEnd::Transient("test".into()),
    ] {
        let (world, directory) = (World::new(1), StoreDirectory::new());
        let store = IncidentStore::File(directory.open());
        let copy = |name: &str| SeenMedia { mxc: format!("mxc://example.org/{name}"), ..media(1) };
        keep(&store, ["one", "two"].map(copy)).await;
        let page = SeenIndex::new(store.clone(), KEEP).page(None).await.unwrap();
        let expected: Vec<_> = page.media.into_iter().map(|listed| listed.media.mxc).collect();
        world.ends.lock().insert(expected[0].clone(), [end.clone()].into());
        let _service = world.start(store, false);
        world.settle().await;
        assert_eq!(world.fetched(0).await, expected, "{end:?}");
        assert!(world.is_known(&[1; 32]), "{end:?}");
    }
}

/// Media that crashes an engine each time, which starts again, does not keep others from being scanned.
#[tokio::test(start_paused = true)]
async fn media_that_stops_the_engines_is_given_up() {
    let (world, directory) = (World::new(1), StoreDirectory::new());
    let store = IncidentStore::File(directory.open());
    keep(&store, (0..3).map(media)).await;
    let ends = std::iter::repeat_n(RescanEnd::EnginesFail("test".into()), 20);
    world.ends.lock().insert(media(2).mxc, ends.collect());
    let _service = world.start(store, false);
    world.settle().await;
    assert_eq!(world.fetched(5).await, mxcs([2, 2, 2, 1, 0]));
    assert!(world.metric("mcs_rescan_media_total{result=\"no_verdict\"} 1"));
    assert!(world.metric("mcs_rescan_pauses_total{cause=\"engines\"} 3"));
}

#[tokio::test(start_paused = true)]
async fn outage_of_the_engines_does_not_use_up_the_tries() {
    let (world, directory) = (World::new(1), StoreDirectory::new());
    let store = IncidentStore::File(directory.open());
    keep(&store, (0..2).map(media)).await;
    world.outage.store(10, Ordering::Relaxed);
    world.ends.lock().insert(media(1).mxc, [RescanEnd::EnginesFail("test".into())].into());
    let _service = world.start(store, false);
    world.settle().await;
    assert_eq!(world.fetched(3).await, mxcs([1, 1, 0]));
    assert!((0..2).all(|number| world.is_known(&[number; 32])));
    assert!(world.metric("mcs_rescan_pauses_total{cause=\"engines\"} 11"));
}

/// Reading the whole list of a slow store takes too long. What was read is examined all the same.
#[tokio::test(start_paused = true)]
async fn part_of_a_list_that_takes_too_long_is_used() {
    let server = SimulatedServer::new(1);
    let store = replica(&server, 1);
    tokio::time::sleep(Duration::from_secs(1)).await;
    let numbered = |number: u16| {
        let [first, second] = number.to_be_bytes();
        let mut content = [first; 32];
        content[31] = second;
        let mxc = format!("mxc://example.org/{number}");
        SeenMedia { mxc, content: Some(content), ..media(0) }
    };
    keep(&store, (0..600).map(numbered)).await;
    let index = SeenIndex::new(store, KEEP);
    assert!(!index.page(None).await.unwrap().is_truncated);
    // Each call takes 4.8 s.
    let delay = Duration::from_millis(2400);
    server.set_delay(delay, delay);
    let page = index.page(None).await.unwrap();
    assert!(page.is_truncated && page.next.is_none());
    assert!((100..600).contains(&page.media.len()), "{}", page.media.len());
}
