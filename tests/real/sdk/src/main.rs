//! The Rust SDK's client, as apps use it: logs in, then answers each line of standard input with a line.
//!
//! In: `{"do": "scan" | "media", "source": …}` with a media source as events hold it. Out: what the SDK
//! gave, or its error as an app sees it, read by the SDK's own types.

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
struct Question {
    r#do: What,
    source: MediaSource,
}

#[derive(Deserialize)]
#[serde(rename_all = "lowercase")]
enum What {
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
        return Err("there is a TLS provider already".into());
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
        let Question { r#do, source } = serde_json::from_str(&line?)?;
        let answer = match r#do {
            What::Scan => match scanner.scan(&client, &source).await {
                Ok(answer) => json!({ "clean": answer.clean, "info": answer.info }),
                Err(error) => refused(&error),
            },
            What::Media => {
                let request = MediaRequestParameters { source, format: MediaFormat::File };
                match client.media().get_media_content(&request, false).await {
                    Ok(bytes) => {
                        json!({ "length": bytes.len(), "sha256": hex(&Sha256::digest(&bytes)) })
                    }
                    Err(error) => refused(&error),
                }
            }
        };
        writeln!(out, "{answer}")?;
        out.flush()?;
    }
    Ok(())
}

fn refused(error: &matrix_sdk::Error) -> Value {
    let Some(error) = error.as_client_api_error() else {
        return json!({ "unreadable": error.to_string() });
    };
    let status = error.status_code.as_u16();
    match &error.body {
        ErrorBody::Json(body) => match ContentScannerError::deserialize(body) {
            Ok(said) => {
                json!({ "status": status, "reason": format!("{:?}", said.reason), "info": said.info })
            }
            Err(why) => json!({ "status": status, "unreadable": why.to_string() }),
        },
        body => json!({ "status": status, "unreadable": format!("{body:?}") }),
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
