//! Notifications by webhook: JSON with a signature.

use std::time::{SystemTime, UNIX_EPOCH};

use hmac::{Hmac, KeyInit as _, Mac as _};
use reqwest::{
    Method, Url,
    header::{HeaderMap, HeaderName, HeaderValue},
};
use sha2::Sha256;

use super::{message::Notice, secret_source::SecretSource, step::StepResult};
use crate::{
    chain::Chain,
    media::{
        hex,
        service_client::{ServiceClient, ServiceRequest},
    },
};

const TIMESTAMP: HeaderName = HeaderName::from_static("x-mcs-timestamp");
const SIGNATURE: HeaderName = HeaderName::from_static("x-mcs-signature");

/// A webhook.
#[derive(Clone, Debug)]
pub(super) struct Webhook {
    pub(super) url: Url,
    pub(super) secret: SecretSource,
    pub(super) client: ServiceClient,
}

impl Webhook {
    pub(super) async fn send(&self, notice: &Notice<'_>, personal_data: bool) -> StepResult {
        let secret = match self.secret.read().await {
            Ok(secret) => secret,
            Err(error) => return StepResult::Failed(error),
        };
        let body = notice.to_json(personal_data);
        let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let timestamp = since_epoch.as_secs().to_string();
        let signature = format!("sha256={}", sign(secret.as_bytes(), &timestamp, &body));
        let mut headers = HeaderMap::new();
        for (name, value) in [(TIMESTAMP, timestamp), (SIGNATURE, signature)] {
            // Digits and letters only.
            if let Ok(value) = HeaderValue::try_from(value) {
                headers.insert(name, value);
            }
        }
        let (method, url) = (Method::POST, self.url.clone());
        let request = ServiceRequest { method, url, headers, body: Some(body) };
        match self.client.send(request).await {
            Ok(response) => match (response.status, response.retry_after) {
                (200..300, _) => StepResult::Done,
                (429, Some(delay)) => StepResult::Wait(delay),
                (300..400, _) => StepResult::Failed("a redirect, which is not followed".to_owned()),
                (status, _) => StepResult::Failed(format!("status {status}")),
            },
            Err(error) => StepResult::Failed(Chain(&error).to_string()),
        }
    }
}

/// Returns the HMAC-SHA256 over the timestamp, a full stop and the body, in hexadecimal digits.
fn sign(secret: &[u8], timestamp: &str, body: &[u8]) -> String {
    let Ok(mut mac) = Hmac::<Sha256>::new_from_slice(secret) else {
        // HMAC accepts keys of any length.
        return String::new();
    };
    for part in [timestamp.as_bytes(), b".", body] {
        mac.update(part);
    }
    hex(&mac.finalize().into_bytes().into())
}

#[cfg(test)]
mod unit_tests {
    use super::*;

    /// `printf '1700000000.{}' | openssl dgst -sha256 -hmac key`
    #[test]
    fn signature_is_that_of_openssl() {
        let expected = "9d713ed406bb7076d4123f0dc2c39d2df5c654ed4b0cd56b52c8b4c940bd63ae";
        assert_eq!(sign(b"key", "1700000000", b"{}"), expected);
    }
}
