//! Translates the keys of the Node.js scanner.

use crate::{
    clamd::ClamdAddress,
    draft::{Draft, TomlValue},
    hints, paths, python,
    source::{Predecessor, Setting, SourceConfig},
};

/// All keys of all its versions.
pub(crate) const KEYS: [&str; 14] = [
    "server.host",
    "server.port",
    "scan.script",
    "scan.tempDirectory",
    "scan.baseUrl",
    "scan.directDownload",
    "scan.doNotCacheExitCodes",
    "altRemovalCmd",
    "proxy",
    "requestHeader.userAgent",
    "requestHeader.xForward",
    "middleware.encryptedBody.pickleKey",
    "middleware.encryptedBody.picklePath",
    "acceptedMimeType",
];

/// Characters that a shell interprets.
const SHELL_CHARACTERS: &str = "|&;<>()$`\\\"'*?[]{}~#!=%";

pub(crate) fn translate(source: &SourceConfig, draft: &mut Draft) {
    if let Some(host) = source.text("server.host", &mut draft.remarks) {
        draft.set("web", "host", TomlValue::text(&host.value), &host);
    }
    if let Some(port) = source.text("server.port", &mut draft.remarks) {
        hints::port(&port, draft);
    }
    let script = source.text("scan.script", &mut draft.remarks);
    let clamd = script
        .as_ref()
        .and_then(|script| self::script(script, draft).map(|address| (script, address)));
    hints::scan(clamd, draft);
    hints::temp_directory(source.text("scan.tempDirectory", &mut draft.remarks), draft);
    python::removal_command(source.text("altRemovalCmd", &mut draft.remarks), draft);
    if let Some(allowed) = source.list("acceptedMimeType", &mut draft.remarks) {
        draft.comment(
            "scan",
            "The type of a file is detected from its content (after decryption), with the names that \
             `file --mime-type` prints. The old scanner used the sender's type for encrypted files, and \
             detected no type for text.",
        );
        python::allowed_types(&allowed, draft);
    }
    download(source, draft);
    draft.comment(
        "result_cache",
        "The old scanner cached verdicts until the next start. Here, ttl (a day) and max_size (100000) limit the \
         cache, which also keeps small clean files in memory.",
    );
    let codes = source.list("scan.doNotCacheExitCodes", &mut draft.remarks);
    python::ignored_exit_codes(codes.as_ref(), draft);
    crypto(source, draft);
}

/// Converts a shell command line to a program and its arguments. Returns the address of clamd if the script passes files to it.
fn script(script: &Setting<String>, draft: &mut Draft) -> Option<ClamdAddress> {
    let words: Vec<_> = script.value.split_whitespace().collect();
    let Some((program, arguments)) = words.split_first() else {
        draft.remarks.push(script.mistake("empty; omitted"));
        return None;
    };
    if script.value.contains(|c| SHELL_CHARACTERS.contains(c)) {
        draft.remarks.push(script.mistake(
            "a shell command line, which this scanner does not support: move it to a script file, which gets \
             the path of the file as its last argument, and configure that; its words were converted without \
             interpretation",
        ));
    }
    let program = paths::program(program, &draft.base);
    draft.set("scan", "script", TomlValue::path(&program), script);
    if !arguments.is_empty() {
        draft.set("scan", "script_args", TomlValue::texts(arguments), script);
    }
    hints::sandbox(&program, draft)
}

fn download(source: &SourceConfig, draft: &mut Draft) {
    let base = source.text("scan.baseUrl", &mut draft.remarks);
    let direct = source.text("scan.directDownload", &mut draft.remarks);
    let is_direct = direct.as_ref().is_some_and(|direct| direct.value.eq_ignore_ascii_case("true"));
    hints::homeserver(!is_direct, draft);
    match (base, direct) {
        (Some(base), Some(direct)) if is_direct => {
            draft.remarks.push(base.no_counterpart(
                "overridden by scan.directDownload, hence omitted; authenticated media requires it",
            ));
            draft
                .remarks
                .push(direct.no_counterpart("expressed by omitting download.base_homeserver_url"));
        }
        (Some(base), _) => {
            draft.set("download", "base_homeserver_url", TomlValue::text(&base.value), &base);
        }
        (None, _) => {}
    }
    if let Some(proxy) = source.text("proxy", &mut draft.remarks) {
        draft.set("download", "proxy", TomlValue::text(&proxy.value), &proxy);
    }
    headers(source, draft);
    hints::download_limits(draft);
}

fn headers(source: &SourceConfig, draft: &mut Draft) {
    let mut forwarded = Vec::new();
    let agent = source.text("requestHeader.userAgent", &mut draft.remarks);
    if let Some(agent) = &agent {
        if agent.value == "origin" {
            forwarded.push((agent.with_value(()), "User-Agent"));
        } else {
            let header = [("User-Agent".to_owned(), agent.value.clone())];
            draft.set("download", "additional_headers", TomlValue::table(&header), agent);
        }
    }
    let address = source.text("requestHeader.xForward", &mut draft.remarks);
    match address {
        Some(address) if address.value == "origin" => {
            draft.comment_next_key(
                "Behind a reverse proxy, list its network in trusted_proxies; the client's address is then taken \
                 from X-Forwarded-For.",
            );
            draft.set("download", "forward_client_address", TomlValue::Scalar("true".into()), &address);
        }
        Some(address) if address.value.eq_ignore_ascii_case("x-forwarded-for") => {
            draft.comment(
                "download",
                "X-Forwarded-For is forwarded unchanged, as before; any client can set it. Better set \
                 forward_client_address = true, and list your reverse proxy in trusted_proxies.",
            );
            forwarded.push((address.with_value(()), "X-Forwarded-For"));
        }
        Some(address) => draft.remarks.push(address.no_counterpart(
            "client addresses in other headers than X-Forwarded-For are not supported: let your reverse proxy \
             set X-Forwarded-For, and set download.forward_client_address and download.trusted_proxies",
        )),
        None => {}
    }
    if let Some((origin, _)) = forwarded.first() {
        let names = TomlValue::texts(forwarded.iter().map(|(_, name)| name));
        draft.set("download", "headers_to_forward", names, origin);
    }
}

fn crypto(source: &SourceConfig, draft: &mut Draft) {
    let path = source.text("middleware.encryptedBody.picklePath", &mut draft.remarks);
    let key = source.text("middleware.encryptedBody.pickleKey", &mut draft.remarks);
    if path.is_some() || key.is_some() {
        hints::pickle(path, key, draft, Predecessor::Node);
        return;
    }
    draft.comment(
        "crypto",
        "The old scanner generated a new key at each start. This scanner generates it once, in an existing \
         directory, and keeps it, since clients cache the public key.",
    );
    let path = TomlValue::text("/var/lib/matrix-content-scanner/request_secret");
    draft.set_new("crypto", "request_secret_path", path);
    draft.set_new("crypto", "generate", TomlValue::Scalar("true".into()));
}
