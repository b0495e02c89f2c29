//! End of validity of the certificate of a homeserver.

use std::{
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use reqwest::Url;
use rustls::pki_types::ServerName;
use tokio::{net::TcpStream, time::timeout};
use tokio_rustls::TlsConnector;

use crate::{config::sections::download::Settings, media::tls};

/// Time limit for the connection and the handshake.
const TIME_LIMIT: Duration = Duration::from_secs(5);

/// Returns the end of validity of the certificate at an https URL. `None` for http, through a proxy, and without a trusted
/// certificate, which a request reports.
pub async fn certificate_end(settings: &Settings, url: &Url) -> Option<SystemTime> {
    if url.scheme() != "https" || settings.proxy.is_some() {
        return None;
    }
    let roots = tls::roots(settings.ca_certificates.as_deref()).ok()?;
    let connector = TlsConnector::from(Arc::new(tls::client_config(roots).ok()?));
    let host = url.host_str()?.trim_matches(['[', ']']);
    let name = ServerName::try_from(host.to_owned()).ok()?;
    let connect = async {
        let stream = TcpStream::connect((host, url.port_or_known_default()?)).await.ok()?;
        connector.connect(name, stream).await.ok()
    };
    let stream = timeout(TIME_LIMIT, connect).await.ok()??;
    let (_, connection) = stream.get_ref();
    end_of(connection.peer_certificates()?.first()?)
}

fn end_of(certificate: &[u8]) -> Option<SystemTime> {
    let (_, certificate) = x509_parser::parse_x509_certificate(certificate).ok()?;
    let seconds = u64::try_from(certificate.validity().not_after.timestamp()).ok()?;
    UNIX_EPOCH.checked_add(Duration::from_secs(seconds))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_end_of_validity() {
        let key = rcgen::KeyPair::generate().unwrap();
        let mut parameters = rcgen::CertificateParams::new(vec!["a.example".to_owned()]).unwrap();
        parameters.not_after = rcgen::date_time_ymd(2031, 5, 17);
        let certificate = parameters.self_signed(&key).unwrap();
        let end = end_of(certificate.der()).unwrap();
        assert_eq!(end.duration_since(UNIX_EPOCH).unwrap().as_secs(), 1_936_742_400);
        assert_eq!(end_of(b"none"), None);
    }
}
