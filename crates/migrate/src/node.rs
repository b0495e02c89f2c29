//! What the Node.js scanner's keys become.

use super::{
    Predecessor,
    draft::{Draft, Value},
    hints,
    old::{Found, Old},
    places, python,
};

/// All that it ever knew.
pub(super) const KEYS: [&str; 14] = [
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

/// What a shell would act on: a script of its own is the place for it.
const SHELL: &str = "|&;<>()$`\\\"'*?[]{}~#!=%";

pub(super) fn translate(old: &Old, draft: &mut Draft) {
    if let Some(host) = old.text("server.host", &mut draft.remarks) {
        draft.set("web", "host", Value::text(&host.value), &host);
    }
    if let Some(port) = old.text("server.port", &mut draft.remarks) {
        hints::port(&port, draft);
    }
    if let Some(script) = old.text("scan.script", &mut draft.remarks) {
        self::script(&script, draft);
    }
    hints::scan(draft);
    hints::temp_directory(old.text("scan.tempDirectory", &mut draft.remarks), draft);
    python::removal_command(old.text("altRemovalCmd", &mut draft.remarks), draft);
    if let Some(allowed) = old.list("acceptedMimeType", &mut draft.remarks) {
        draft.comment(
            "scan",
            "Here a file's type is found by its content alone, of an encrypted media in what was decrypted, \
             with the names that `file --mime-type` prints. There an encrypted one counted as what its sender \
             said, and text had no type.",
        );
        python::allowed_types(&allowed, draft);
    }
    download(old, draft);
    draft.comment(
        "result_cache",
        "There every verdict was remembered until the next start. Here ttl (a day) and max_size (100000) bound \
         that, and small clean media is kept in memory.",
    );
    let codes = old.list("scan.doNotCacheExitCodes", &mut draft.remarks);
    python::ignored_exit_codes(codes.as_ref(), draft);
    crypto(old, draft);
}

/// There a line for a shell; here a program and its arguments.
fn script(script: &Found<String>, draft: &mut Draft) {
    let words: Vec<_> = script.value.split_whitespace().collect();
    let Some((program, arguments)) = words.split_first() else {
        draft.remarks.push(script.mistake("found nothing in it; left out"));
        return;
    };
    if script.value.contains(|c| SHELL.contains(c)) {
        draft.remarks.push(script.mistake(
            "a line for a shell, which is not run by one here: put it into a script of its own (the file's path \
             is its last argument), and name that; only its words are taken over",
        ));
    }
    let program = places::program(program, &draft.base);
    draft.set("scan", "script", Value::path(&program), script);
    if !arguments.is_empty() {
        draft.set("scan", "script_args", Value::texts(arguments), script);
    }
    hints::sandbox(&program, draft);
}

fn download(old: &Old, draft: &mut Draft) {
    let base = old.text("scan.baseUrl", &mut draft.remarks);
    let direct = old.text("scan.directDownload", &mut draft.remarks);
    let is_direct = direct.as_ref().is_some_and(|it| it.value.eq_ignore_ascii_case("true"));
    hints::homeserver(!is_direct, draft);
    match (base, direct) {
        (Some(base), Some(direct)) if is_direct => {
            draft.remarks.push(base.no_counterpart(
                "scan.directDownload takes its place there, so it is left out; it is what authenticated media \
                 needs",
            ));
            draft
                .remarks
                .push(direct.no_counterpart(
                    "the same is said by leaving download.base_homeserver_url out",
                ));
        }
        (Some(base), _) => {
            draft.set("download", "base_homeserver_url", Value::text(&base.value), &base);
        }
        (None, _) => {}
    }
    if let Some(proxy) = old.text("proxy", &mut draft.remarks) {
        draft.set("download", "proxy", Value::text(&proxy.value), &proxy);
    }
    headers(old, draft);
    hints::download_limits(draft);
}

fn headers(old: &Old, draft: &mut Draft) {
    let mut forwarded = Vec::new();
    let agent = old.text("requestHeader.userAgent", &mut draft.remarks);
    if let Some(agent) = &agent {
        if agent.value == "origin" {
            forwarded.push((agent.with(()), "User-Agent"));
        } else {
            let header = [("User-Agent".to_owned(), agent.value.clone())];
            draft.set("download", "additional_headers", Value::table(&header), agent);
        }
    }
    let address = old.text("requestHeader.xForward", &mut draft.remarks);
    match address {
        Some(address) if address.value == "origin" => {
            draft.why("Behind a reverse proxy, list its network in trusted_proxies: then the client's address is \
                 taken from X-Forwarded-For.",
            );
            draft.set("download", "forward_client_address", Value::One("true".into()), &address);
        }
        Some(address) if address.value.eq_ignore_ascii_case("x-forwarded-for") => {
            draft.comment(
                "download",
                "X-Forwarded-For is passed on as it came, as there; any client can write it. Better: \
                 forward_client_address = true, and your reverse proxy in trusted_proxies.",
            );
            forwarded.push((address.with(()), "X-Forwarded-For"));
        }
        Some(address) => draft.remarks.push(address.no_counterpart(
            "a client's address from another header than X-Forwarded-For is not passed on: have your reverse \
             proxy write X-Forwarded-For, and set download.forward_client_address and \
             download.trusted_proxies",
        )),
        None => {}
    }
    if let Some((from, _)) = forwarded.first() {
        let names = Value::texts(forwarded.iter().map(|(_, name)| name));
        draft.set("download", "headers_to_forward", names, from);
    }
}

fn crypto(old: &Old, draft: &mut Draft) {
    let path = old.text("middleware.encryptedBody.picklePath", &mut draft.remarks);
    let key = old.text("middleware.encryptedBody.pickleKey", &mut draft.remarks);
    if path.is_some() || key.is_some() {
        hints::pickle(path, key, draft, Predecessor::Node);
        return;
    }
    draft.comment(
        "crypto",
        "There a new key was made at each start. Here it is made at the first one, in a directory that exists, \
         and kept: clients remember its public part.",
    );
    let place = Value::text("/var/lib/matrix-content-scanner/request_secret");
    draft.set_new("crypto", "request_secret_path", place);
    draft.set_new("crypto", "generate", Value::One("true".into()));
}
