//! The work that is measured, part by part: each kind beside its limit, round by round and in turn, so that what else the
//! machine does strikes both.

mod cold;
mod growth;
mod large;
mod soak;
mod still;
mod warm;

use std::{
    fs::{self, Permissions},
    os::unix::fs::PermissionsExt,
    path::Path,
};

use crate::{
    files::{self, KIB, Media},
    load::Expect,
    place::Place,
    programs,
    report::Report,
};

/// In the order in which they are measured.
pub(crate) const PARTS: [&str; 6] = ["start", "memory", "warm", "cold", "large", "many"];
/// Measured on their own only.
pub(crate) const OTHERS: [&str; 1] = ["growth"];

/// What most media are like.
const SMALL: u64 = 100 * KIB;

const EMPTY_SCRIPT: &str = "#!/bin/sh\nexit 0\n";
const CLEAN: Expect = Expect::Text("\"clean\":true");
const API: &str = "/_matrix/media_proxy/unstable";

pub(crate) struct Bench {
    place: Place,
}

impl Bench {
    pub(crate) fn new() -> Self {
        let place = Place::new();
        for part in ["temp", "files", "jobs"] {
            let path = place.path().join(part);
            fs::create_dir(&path).unwrap();
            // Scripts run as another user where this is root.
            fs::set_permissions(&path, Permissions::from_mode(0o755)).unwrap();
        }
        Self { place }
    }

    fn place(&self) -> &Path {
        self.place.path()
    }

    async fn files(&self, prefix: &str, count: u64, size: u64) -> Vec<Media> {
        files::write(&self.place().join("files"), prefix, count, size).await
    }

    pub(crate) async fn measure(&self, part: &str, report: &mut Report) {
        programs::script(self.place(), EMPTY_SCRIPT);
        let nginx = programs::nginx(self.place()).await;
        match part {
            "start" => self.start(&nginx, report).await,
            "memory" => self.memory(&nginx, report).await,
            "warm" => self.warm(&nginx, report).await,
            "cold" => self.cold(&nginx, report).await,
            "large" => self.large(&nginx, report).await,
            "growth" => self.growth(&nginx, report).await,
            _ => self.many(&nginx, report).await,
        }
    }
}
