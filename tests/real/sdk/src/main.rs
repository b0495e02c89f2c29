//! Test client on the Rust SDK, as apps use it: logs in, then reads one command per line from stdin and writes one
//! response per line to stdout.
//!
//! Command: `{"command": "scan" | "media", "source": …}` with a media source as in events. Response: the result of the
//! SDK, or its error, parsed by the types of the SDK.

use std::{
    error::Error,
    io::{BufRead, Write},
    sync::Arc,
};

use matrix_sdk::{
    Client,
    media::{MediaFormat, MediaRequestParameters},
    ruma::{api::error::ErrorBody, events::room::MediaSource},
};
use matrix_sdk_contentscanner::{ContentScanner, ContentScannerError, ContentScannerMediaFetcher};
use serde::Deserialize;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

#[derive(Deserialize)]
struct Request {
    command: Command,
    source: MediaSource,
}

#[derive(Deserialize)]
#[serde(rename_all = "lowercase")]
enum Command {
    Scan,
    Media,
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<_> = std::env::args().skip(1).collect();
    let [homeserver, user, password, scanner] = &arguments[..] else {
        return Err("expected HOMESERVER USER PASSWORD SCANNER".into());
    };
    if rustls::crypto::ring::default_provider().install_default().is_err() {
        return Err("a TLS provider is already installed".into());
    }
    let scanner = Arc::new(ContentScanner::new(scanner));
    let fetcher = ContentScannerMediaFetcher::with_content_scanner(Arc::clone(&scanner));
    let client = Client::builder()
        .homeserver_url(homeserver)
        .media_fetcher(Arc::new(fetcher))
        .build()
        .await?;
    client.matrix_auth().login_username(user, password).send().await?;
    let mut out = std::io::stdout();
    for line in std::io::stdin().lock().lines() {
        let Request { command, source } = serde_json::from_str(&line?)?;
        let response = match command {
            Command::Scan => match scanner.scan(&client, &source).await {
                Ok(verdict) => json!({ "clean": verdict.clean, "info": verdict.info }),
                Err(error) => error_response(&error),
            },
            Command::Media => {
                let request = MediaRequestParameters { source, format: MediaFormat::File };
                match client.media().get_media_content(&request, false).await {
                    Ok(bytes) => {
                        json!({ "length": bytes.len(), "sha256": hex(&Sha256::digest(&bytes)) })
                    }
                    Err(error) => error_response(&error),
                }
            }
        };
        writeln!(out, "{response}")?;
        out.flush()?;
    }
    Ok(())
}

fn error_response(error: &matrix_sdk::Error) -> Value {
    let Some(error) = error.as_client_api_error() else {
        return json!({ "unreadable": error.to_string() });
    };
    let status = error.status_code.as_u16();
    match &error.body {
        ErrorBody::Json(body) => match ContentScannerError::deserialize(body) {
            Ok(body) => {
                json!({ "status": status, "reason": format!("{:?}", body.reason), "info": body.info })
            }
            Err(error) => json!({ "status": status, "unreadable": error.to_string() }),
        },
        body => json!({ "status": status, "unreadable": format!("{body:?}") }),
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
