//! The build id, by which a server recognises a helper that was built from the same sources.

/// Build id: package version and a hash of the sources.
pub(crate) const BUILD: &str = concat!(env!("CARGO_PKG_VERSION"), "-", env!("MCS_SANDBOX_BUILD"));
