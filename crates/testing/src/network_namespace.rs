//! A network namespace with a link to that of the test, for faults of the network.

use std::{
    net::Ipv4Addr,
    process::Command,
    sync::atomic::{AtomicU8, Ordering},
};

use nix::unistd::geteuid;

use crate::report_skipped;

/// Number of namespaces that were created.
static CREATED: AtomicU8 = AtomicU8::new(0);

/// A network namespace with one link. Removed when dropped, also if the test panics.
#[derive(Debug)]
pub struct NetworkNamespace {
    name: String,
    /// The end of the link outside of the namespace.
    outer_link: String,
    /// Its address inside.
    pub address: Ipv4Addr,
}

/// Name of the end of the link inside.
const INNER_LINK: &str = "inside";

impl NetworkNamespace {
    /// Creates a namespace, or reports that a test is skipped.
    #[must_use]
    pub fn create(test: &str) -> Option<Self> {
        if !geteuid().is_root() || run(&["netns", "list"]).is_err() {
            report_skipped(test, "needs root and ip (package iproute2)");
            return None;
        }
        let (process, number) = (std::process::id(), CREATED.fetch_add(1, Ordering::Relaxed));
        // Of the networks for tests between devices (RFC 2544), one of four addresses.
        let [.., high, low] = process.to_be_bytes();
        let network = [198, 18 + (high & 1), low, number.wrapping_mul(4)];
        let address = |host: u8| {
            let [a, b, c, d] = network;
            Ipv4Addr::new(a, b, c, d + host)
        };
        let (name, outer_link) =
            (format!("mcs-test-{process}-{number}"), format!("mcs{process}-{number}"));
        let namespace = Self { name, outer_link, address: address(2) };
        let Self { name, outer_link, .. } = &namespace;
        if let Err(error) = run(&["netns", "add", name]) {
            report_skipped(test, &format!("needs network namespaces: {error}"));
            return None;
        }
        let [outer, inner] = [1, 2].map(|host| format!("{}/30", address(host)));
        for arguments in [
            &["link", "add", outer_link, "type", "veth", "peer", "name", INNER_LINK, "netns", name]
                [..],
            &["address", "add", &outer, "dev", outer_link],
            &["link", "set", outer_link, "up"],
            &["-n", name, "address", "add", &inner, "dev", INNER_LINK],
        ] {
            run(arguments).unwrap();
        }
        namespace.set_connected(true);
        Some(namespace)
    }

    /// Connects or cuts the link at its end inside: packets from outside are lost, as with a cut cable.
    pub fn set_connected(&self, is_connected: bool) {
        let state = if is_connected { "up" } else { "down" };
        run(&["-n", &self.name, "link", "set", INNER_LINK, state]).unwrap();
    }

    /// Returns the arguments before a program that is to run in the namespace.
    pub(crate) fn prefix(&self) -> Vec<String> {
        ["ip", "netns", "exec", &self.name].map(str::to_owned).to_vec()
    }
}

impl Drop for NetworkNamespace {
    fn drop(&mut self) {
        // The link first: a program inside keeps the namespace alive.
        let link = run(&["link", "delete", &self.outer_link]);
        let namespace = run(&["netns", "delete", &self.name]);
        for result in [link, namespace] {
            if let Err(error) = result {
                eprintln!("a network namespace of a test remains: {error}");
            }
        }
    }
}

/// Runs `ip`.
#[expect(clippy::disallowed_methods, reason = "not a program that the service starts")]
fn run(arguments: &[&str]) -> Result<(), String> {
    let output = Command::new("ip").args(arguments).output().map_err(|error| error.to_string())?;
    if output.status.success() {
        return Ok(());
    }
    Err(format!("ip {}: {}", arguments.join(" "), String::from_utf8_lossy(&output.stderr).trim()))
}
