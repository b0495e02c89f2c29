//! `[icap]`.

use std::{path::PathBuf, time::Duration};

use mcs_icap::Method;
use url::Url;

use super::{
    bounds::{Bounds, timeout},
    prelude::*,
};

settings! {
    /// `[icap]`, validated.
    #[derive(Clone, PartialEq, Eq, Debug)]
    pub struct Settings {
        /// URLs of services, `icap://` or `icaps://`; at least one.
        pub urls: Vec<Url> = list(Key::new(service, |url: &Url| format::quoted(url.as_str())))
            .filter(|urls| !urls.is_empty(), "at least one"),
        /// How files are presented.
        pub method: Method = choice([("respmod", Method::Respmod), ("reqmod", Method::Reqmod)]),
        /// Whether servers that request a preview get one. A server may give its verdict on the preview alone.
        pub preview: bool = choice([("server", true), ("off", false)]),
        /// PEM file with additional root certificates.
        pub ca_certificates: Option<PathBuf> = optional(paths::key(paths::file)),
        /// Time limit for one file, over all servers that are tried.
        pub timeout: Duration = timeout(),
        /// Size bound, and effect of failures.
        pub bounds: Bounds = group(),
    }
}

fn service(value: RawValue<'_>) -> ParseResult<Url> {
    const EXPECTED: &str =
        "a URL like \"icap://127.0.0.1:1344/avscan\" or \"icaps://…\", with a service";
    let url = value.text().and_then(|text| Url::parse(text).ok()).filter(|url| {
        ["icap", "icaps"].contains(&url.scheme())
            && url.host_str().is_some_and(|host| !host.is_empty())
            && url.path().len() > 1
            && url.fragment().is_none()
            && url.username().is_empty()
            && url.password().is_none()
            && url.port() != Some(0)
    });
    let Some(url) = url else {
        let plain = value.text().and_then(|text| text.split_once("://"));
        return match plain {
            Some(("tcp" | "http", rest)) if rest.contains('/') && !rest.contains('@') => {
                value.invalid(format!("\"icap://{rest}\"?"))
            }
            _ => value.invalid_url(EXPECTED),
        };
    };
    Ok(url)
}
