//! Rescans of served media by replicas with one store.

use std::{fs, os::unix::fs::PermissionsExt as _};

use tempfile::TempDir;

use super::group::ReplicaGroup;
use crate::harness::{MockMedia, homeserver::TOKEN};

/// End of a pass.
const PASS: &str = "served media was scanned again";

/// Media that one replica has served.
const MEDIA: usize = 12;

#[tokio::test]
async fn replicas_scan_served_media_again_once() {
    let secrets = TempDir::new().unwrap();
    let token = secrets.path().join("token");
    fs::write(&token, "syt_rescan_token_0123456789").unwrap();
    fs::set_permissions(&token, fs::Permissions::from_mode(0o600)).unwrap();
    let path = token.display();
    let lines = format!(
        "store.timeout = \"10s\"\n\
         incident = {{ rescan = \"recent\", rate = 100, rescan_delay = \"1s\", token_path = \"{path}\" }}"
    );
    let name = "replicas_scan_served_media_again_once";
    let Some(group) = ReplicaGroup::start(name, 3, &lines).await else { return };
    group.homeserver.add_token("syt_rescan_token_0123456789");
    let versions = MockMedia::new("application/json", "{}").served_before_authentication();
    group.homeserver.add_media("versions", versions);
    // The others find its end in the store.
    group.replicas[0].wait_for_log(PASS, 1).await;
    let media: Vec<_> = (0..MEDIA).map(|number| group.add("clean", number)).collect();
    for media in &media {
        group.check(0, media, true).await;
    }
    assert_eq!((group.scans(), group.homeserver.download_count()), (MEDIA, MEDIA));

    // Other scripts, which find all files infected.
    group.add_signature();
    for replica in &group.replicas {
        let script = replica.dir.path("script.sh");
        let text = fs::read_to_string(&script).unwrap();
        replica.dir.write_executable("script.sh", &format!("{text}\n# newer"));
    }
    // Ends when all contents have a verdict, whichever replica scans them.
    group.replicas[0].wait_for_log(PASS, 2).await;
    assert_eq!(group.scans(), 2 * MEDIA, "each content once");
    assert_eq!(group.homeserver.download_count(), 2 * MEDIA, "each media once");
    let of_clients = format!("Bearer {TOKEN}");
    let requests = group.homeserver.requests();
    let by_service = requests.iter().filter(|request| {
        request.headers.get("authorization").is_some_and(|value| *value != *of_clients)
    });
    assert_eq!(by_service.count(), MEDIA);
    for replica in 0..3 {
        group.check(replica, &media[0], false).await;
    }
    assert_eq!(group.scans(), 2 * MEDIA);
}
