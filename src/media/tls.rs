//! TLS for outbound connections. Trusts the system's root certificates, or those of `SSL_CERT_FILE`, and the operator's
//! own. The crypto provider (ring) is passed explicitly, so that no process-wide default decides which one is used.

use std::{path::Path, sync::Arc};

use rustls::{
    ClientConfig, RootCertStore,
    pki_types::{CertificateDer, pem::PemObject},
};
use rustls_native_certs::{CertificateResult, load_certs_from_paths};

use super::setup_error::OutboundSetupError;

/// Error text for a system without root certificates.
pub(crate) const NO_ROOTS: &str = "no root certificates were found: install the package ca-certificates, or name a file in SSL_CERT_FILE or ca_certificates";

/// Loads the system's root certificates and those of the PEM file `extra`. Blocking.
pub(crate) fn roots(extra: Option<&Path>) -> Result<RootCertStore, OutboundSetupError> {
    let mut roots = RootCertStore::empty();
    let system = match std::env::var_os("SSL_CERT_FILE").filter(|file| !file.is_empty()) {
        Some(file) => load_certs_from_paths(Some(file.as_ref()), None),
        None => system_certificates(),
    };
    for error in &system.errors {
        tracing::warn!(%error, "cannot read some of the system's root certificates");
    }
    // Skips certificates that webpki cannot parse; most systems have some.
    roots.add_parsable_certificates(system.certs);
    if let Some(path) = extra {
        let unusable = |source: Box<dyn std::error::Error + Send + Sync>| {
            OutboundSetupError::Certificates { path: path.to_owned(), source }
        };
        let mut found = false;
        for certificate in CertificateDer::pem_file_iter(path).map_err(|e| unusable(e.into()))? {
            roots
                .add(certificate.map_err(|e| unusable(e.into()))?)
                .map_err(|e| unusable(e.into()))?;
            found = true;
        }
        if !found {
            return Err(unusable("the file contains no certificate".into()));
        }
    }
    Ok(roots)
}

/// Loads certificates from the usual locations. `rustls_native_certs::load_native_certs` also reads `SSL_CERT_DIR`,
/// which is not a setting of this service.
fn system_certificates() -> CertificateResult {
    // Not the file of SSL_CERT_FILE, which is unset or empty here.
    let file = openssl_probe::probe().cert_file;
    let mut directories = openssl_probe::candidate_cert_dirs();
    let mut all = load_certs_from_paths(file.as_deref(), directories.next());
    for directory in directories {
        let more = load_certs_from_paths(None, Some(directory));
        all.certs.extend(more.certs);
        all.errors.extend(more.errors);
    }
    // The directories link to each other, so certificates occur more than once.
    all.certs.sort_unstable_by(|a, b| a.as_ref().cmp(b.as_ref()));
    all.certs.dedup();
    all
}

/// Creates a TLS client configuration that trusts `roots`.
pub(crate) fn client_config(roots: RootCertStore) -> Result<ClientConfig, OutboundSetupError> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    Ok(ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(OutboundSetupError::Tls)?
        .with_root_certificates(roots)
        .with_no_client_auth())
}
