//! Benchmark parts. Each workload and its limit alternate within a round, so that other activity on the machine affects
//! both.

mod attacks;
mod cold;
mod growth;
mod idle;
mod large;
mod soak;
mod store;
mod warm;

use std::{
    fs::{self, Permissions},
    os::unix::fs::PermissionsExt,
    path::Path,
};

use crate::{
    bench_dir::BenchDir,
    files::{self, KIB, MediaFile},
    load::ExpectedBody,
    programs,
    report::BenchReport,
};

/// Parts of the default run, in order.
pub(crate) const DEFAULT_PARTS: [&str; 6] = ["start", "memory", "warm", "cold", "large", "many"];
/// Parts that run only if requested.
pub(crate) const EXTRA_PARTS: [&str; 3] = ["attacks", "growth", "store"];

/// Typical file size, bytes.
const SMALL: u64 = 100 * KIB;

const EMPTY_SCRIPT: &str = "#!/bin/sh\nexit 0\n";
const CLEAN_VERDICT: ExpectedBody = ExpectedBody::Text("\"clean\":true");
const API: &str = "/_matrix/media_proxy/unstable";

pub(crate) struct BenchSuite {
    dir: BenchDir,
}

impl BenchSuite {
    pub(crate) fn new() -> Self {
        let dir = BenchDir::new();
        for name in ["temp", "files", "jobs"] {
            let path = dir.path().join(name);
            fs::create_dir(&path).unwrap();
            // Scripts run as another user if this process is root.
            fs::set_permissions(&path, Permissions::from_mode(0o755)).unwrap();
        }
        Self { dir }
    }

    fn dir(&self) -> &Path {
        self.dir.path()
    }

    async fn write_files(&self, prefix: &str, count: u64, size: u64) -> Vec<MediaFile> {
        files::write(&self.dir().join("files"), prefix, count, size).await
    }

    pub(crate) async fn measure(&self, part: &str, report: &mut BenchReport) {
        programs::write_script(self.dir(), EMPTY_SCRIPT);
        let nginx = programs::nginx(self.dir()).await;
        match part {
            "start" => self.start(&nginx, report).await,
            "memory" => self.memory(&nginx, report).await,
            "warm" => self.warm(&nginx, report).await,
            "cold" => self.cold(&nginx, report).await,
            "large" => self.large(&nginx, report).await,
            "attacks" => self.attacks(&nginx, report).await,
            "growth" => self.growth(&nginx, report).await,
            "store" => self.store(&nginx, report).await,
            _ => self.many(&nginx, report).await,
        }
    }
}
