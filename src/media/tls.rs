//! Whom we believe to be an https host: the system's roots (or those of `SSL_CERT_FILE`) and the
//! operator's own. Knows no requests. The provider is ring and is handed over, not installed: no
//! global of the process decides what TLS we speak.

use std::{path::Path, sync::Arc};

use rustls::{
    ClientConfig, RootCertStore,
    pki_types::{CertificateDer, pem::PemObject},
};
use rustls_native_certs::{CertificateResult, load_certs_from_paths};

use super::homeserver::SetupError;

/// What to install where there is no root certificate at all.
pub(crate) const NO_ROOTS: &str = "no root certificates were found: install the package ca-certificates, or name a file in SSL_CERT_FILE or ca_certificates";

/// The system's roots and those of `extra`, a PEM file. Blocking: for the start only.
pub(crate) fn roots(extra: Option<&Path>) -> Result<RootCertStore, SetupError> {
    let mut roots = RootCertStore::empty();
    let system = match std::env::var_os("SSL_CERT_FILE").filter(|file| !file.is_empty()) {
        Some(file) => load_certs_from_paths(Some(file.as_ref()), None),
        None => of_the_system(),
    };
    for error in &system.errors {
        tracing::warn!(%error, "some of the system's root certificates could not be read");
    }
    // Systems carry roots that webpki cannot parse; the others count.
    roots.add_parsable_certificates(system.certs);
    if let Some(path) = extra {
        let bad = |source: Box<dyn std::error::Error + Send + Sync>| SetupError::Certificates {
            path: path.to_owned(),
            source,
        };
        let mut found = false;
        for certificate in CertificateDer::pem_file_iter(path).map_err(|e| bad(e.into()))? {
            roots.add(certificate.map_err(|e| bad(e.into()))?).map_err(|e| bad(e.into()))?;
            found = true;
        }
        if !found {
            return Err(bad("no certificate in it".into()));
        }
    }
    Ok(roots)
}

/// From where systems keep them, and from nowhere else: the library's own way takes `SSL_CERT_DIR` into account.
fn of_the_system() -> CertificateResult {
    // SSL_CERT_FILE is not set here, so that this file is the system's.
    let file = openssl_probe::probe().cert_file;
    let mut directories = openssl_probe::candidate_cert_dirs();
    let mut all = load_certs_from_paths(file.as_deref(), directories.next());
    for directory in directories {
        let more = load_certs_from_paths(None, Some(directory));
        all.certs.extend(more.certs);
        all.errors.extend(more.errors);
    }
    // Some of them are links to others.
    all.certs.sort_unstable_by(|a, b| a.as_ref().cmp(b.as_ref()));
    all.certs.dedup();
    all
}

/// A client's side of TLS that trusts these roots.
pub(crate) fn client_config(roots: RootCertStore) -> Result<ClientConfig, SetupError> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    Ok(ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(SetupError::Tls)?
        .with_root_certificates(roots)
        .with_no_client_auth())
}
