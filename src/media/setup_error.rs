//! Error of setting up outbound connections.

use std::path::PathBuf;

/// The configured outbound connections cannot be set up.
#[derive(Debug, thiserror::Error)]
pub enum OutboundSetupError {
    /// `download.ca_certificates`.
    #[error("the certificates in {path} cannot be used")]
    Certificates {
        path: PathBuf,
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// A configured URL is https, but there are no root certificates.
    #[error("https is configured, but {0}")]
    NoRoots(&'static str),
    /// A base URL with `user:password@`, which would replace the requesters' access tokens.
    #[error("the base URL of {0} has a user name or password; use download.additional_headers")]
    Credentials(String),
    /// rustls rejected its default protocol versions.
    #[error("TLS cannot be set up")]
    Tls(#[source] rustls::Error),
    /// reqwest rejected the settings, usually the proxy.
    #[error("the HTTP client cannot be set up")]
    Client(#[source] reqwest::Error),
}

impl OutboundSetupError {
    /// Removes the URL from the error: the proxy's may contain a password.
    pub(super) fn client(error: reqwest::Error) -> Self {
        Self::Client(error.without_url())
    }
}
