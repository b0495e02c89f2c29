//! TLS to the servers of the shared store, with ring, as in the service.

use std::sync::Arc;

use rustls::{
    ClientConfig, RootCertStore,
    pki_types::{CertificateDer, pem::PemObject as _},
};

/// Reason why TLS cannot be set up.
#[derive(Debug)]
pub(crate) enum TlsSetupError {
    /// Message about the operator's certificates.
    Certificates(String),
    NoRoots,
}

/// Returns a configuration that trusts these certificates, or else those of the system.
pub(crate) fn client_config(certificates: Option<&[u8]>) -> Result<ClientConfig, TlsSetupError> {
    let roots = match certificates {
        Some(pem) => operator_roots(pem)?,
        None => system_roots()?,
    };
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config =
        ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
    let config = config.map_err(|error| TlsSetupError::Certificates(error.to_string()))?;
    Ok(config.with_root_certificates(roots).with_no_client_auth())
}

fn operator_roots(pem: &[u8]) -> Result<RootCertStore, TlsSetupError> {
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(pem) {
        let certificate =
            certificate.map_err(|error| TlsSetupError::Certificates(error.to_string()))?;
        roots.add(certificate).map_err(|error| TlsSetupError::Certificates(error.to_string()))?;
    }
    if roots.is_empty() {
        return Err(TlsSetupError::Certificates("there is none in PEM format".to_owned()));
    }
    Ok(roots)
}

fn system_roots() -> Result<RootCertStore, TlsSetupError> {
    let mut roots = RootCertStore::empty();
    let system = rustls_native_certs::load_native_certs();
    for error in &system.errors {
        tracing::warn!(%error, "cannot read some of the system's root certificates");
    }
    // Skips certificates that webpki cannot parse; most systems have some.
    roots.add_parsable_certificates(system.certs);
    if roots.is_empty() { Err(TlsSetupError::NoRoots) } else { Ok(roots) }
}
