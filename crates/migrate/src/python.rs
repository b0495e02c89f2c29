//! Translates the keys of the Python scanner.

use crate::{
    draft::{Draft, TomlValue},
    format, hints, paths,
    source::{Predecessor, Setting, SourceConfig},
    units,
};

/// All keys of all its versions; `crypto.pickle_…` until version 1.2.
pub(crate) const KEYS: [&str; 18] = [
    "web.host",
    "web.port",
    "scan.script",
    "scan.temp_directory",
    "scan.removal_command",
    "scan.allowed_mimetypes",
    "scan.blocked_mimetypes",
    "result_cache.max_size",
    "result_cache.ttl",
    "result_cache.max_file_size",
    "result_cache.exit_codes_to_ignore",
    "download.base_homeserver_url",
    "download.proxy",
    "download.additional_headers",
    "download.headers_to_forward",
    "crypto.request_secret_path",
    "crypto.pickle_path",
    "crypto.pickle_key",
];

/// Programs that only remove or overwrite their argument.
const REMOVERS: [&str; 9] =
    ["rm", "unlink", "true", "shred", "srm", "wipe", "scrub", "bcwipe", "secure-delete"];

pub(crate) fn translate(source: &SourceConfig, draft: &mut Draft) {
    web(source, draft);
    scan(source, draft);
    download(source, draft);
    result_cache(source, draft);
    crypto(source, draft);
}

fn web(source: &SourceConfig, draft: &mut Draft) {
    if let Some(host) = source.text("web.host", &mut draft.remarks) {
        draft.set("web", "host", TomlValue::text(&host.value), &host);
    }
    if let Some(port) = source.text("web.port", &mut draft.remarks) {
        hints::port(&port, draft);
    }
}

fn scan(source: &SourceConfig, draft: &mut Draft) {
    let script = source.text("scan.script", &mut draft.remarks);
    let clamd = script.as_ref().and_then(|script| {
        let program = paths::program(&script.value, &draft.base);
        draft.set("scan", "script", TomlValue::path(&program), script);
        hints::sandbox(&program, draft).map(|address| (script, address))
    });
    hints::scan(clamd, draft);
    hints::temp_directory(source.text("scan.temp_directory", &mut draft.remarks), draft);
    removal_command(source.text("scan.removal_command", &mut draft.remarks), draft);
    mime_types(source, draft);
}

/// Converts the removal command. Both scanners ran it with the path of each file, by default `rm`.
pub(crate) fn removal_command(command: Option<Setting<String>>, draft: &mut Draft) {
    let Some(command) = command else { return };
    let words: Vec<_> = command.value.split_whitespace().collect();
    let Some((program, arguments)) = words.split_first() else {
        draft.remarks.push(command.mistake("empty; omitted"));
        return;
    };
    if program.rsplit('/').next().is_some_and(|name| REMOVERS.contains(&name)) {
        draft.remarks.push(command.no_counterpart(
            "not needed: each file is always removed, with everything that the script wrote",
        ));
        return;
    }
    let program = paths::program(program, &draft.base);
    draft.comment_next_key(
        "Runs in the sandbox before a file is removed. With namespaces, the file is in memory and read-only: a \
         command that overwrites it fails and is not needed, so remove the key. The result of the command is \
         only logged.",
    );
    let words = [program.to_string_lossy().into_owned()].into_iter();
    let words = words.chain(arguments.iter().map(|&word| word.to_owned()));
    draft.set("scan", "removal_command", TomlValue::texts(words), &command);
}

fn mime_types(source: &SourceConfig, draft: &mut Draft) {
    let allowed = source.list("scan.allowed_mimetypes", &mut draft.remarks);
    let blocked = source.list("scan.blocked_mimetypes", &mut draft.remarks);
    if let (Some(_), Some(blocked)) = (&allowed, &blocked) {
        draft.remarks.push(blocked.mistake(
            "beside scan.allowed_mimetypes, a combination with which the old scanner does not start; the allowed \
             types are kept, this list is omitted",
        ));
    }
    if let Some(allowed) = allowed {
        allowed_types(&allowed, draft);
    } else if let Some(blocked) = blocked
        && !blocked.value.is_empty()
    {
        draft.set("scan", "blocked_mimetypes", TomlValue::texts(&blocked.value), &blocked);
    }
}

/// Converts the allowed types. An empty list rejected every file in both scanners, but was often meant
/// as "everything".
pub(crate) fn allowed_types(allowed: &Setting<Vec<String>>, draft: &mut Draft) {
    if allowed.value.is_empty() {
        draft.remarks.push(allowed.mistake(
            "an empty list rejects every file in the old scanner; omitted, so that every type is allowed. List \
             the allowed types, or remove the key",
        ));
        return;
    }
    if allowed.value.iter().any(|name| name.eq_ignore_ascii_case("image/jpg")) {
        draft.comment_next_key("image/jpg is never detected: the name is image/jpeg.");
    }
    draft.set("scan", "allowed_mimetypes", TomlValue::texts(&allowed.value), allowed);
}

fn download(source: &SourceConfig, draft: &mut Draft) {
    let base = source.text("download.base_homeserver_url", &mut draft.remarks);
    hints::homeserver(base.is_some(), draft);
    if let Some(base) = base {
        draft.set("download", "base_homeserver_url", TomlValue::text(&base.value), &base);
    }
    if let Some(proxy) = source.text("download.proxy", &mut draft.remarks) {
        draft.set("download", "proxy", TomlValue::text(&proxy.value), &proxy);
    }
    if let Some(headers) = source.table("download.additional_headers", &mut draft.remarks) {
        draft.comment_next_key(
            "Sent only to configured homeservers, not to servers from mxc URIs or .well-known.",
        );
        draft.set("download", "additional_headers", TomlValue::table(&headers.value), &headers);
    }
    if let Some(names) = source.list("download.headers_to_forward", &mut draft.remarks) {
        draft.comment(
            "download",
            "Authorization is always forwarded. A header that a request lacks is no longer an error.",
        );
        if names.value.iter().any(|name| name.eq_ignore_ascii_case("x-forwarded-for")) {
            draft.comment(
                "download",
                "Any client can set X-Forwarded-For. To let this service set it, remove it from the list, and \
                 set forward_client_address and trusted_proxies.",
            );
        }
        draft.set("download", "headers_to_forward", TomlValue::texts(&names.value), &names);
    }
    hints::download_limits(draft);
}

fn result_cache(source: &SourceConfig, draft: &mut Draft) {
    match source.text("result_cache.max_size", &mut draft.remarks) {
        Some(size) => {
            draft.comment_next_key(
                "Number of results; the memory for media is limited by max_total_size.",
            );
            draft.set("result_cache", "max_size", hints::number(&size), &size);
        }
        None => draft.comment(
            "result_cache",
            "The default of max_size was 1024 in the old scanner, and is 100000 here.",
        ),
    }
    match source.text("result_cache.ttl", &mut draft.remarks) {
        Some(ttl) => match units::parse_time(&ttl.value) {
            Some(time) => {
                draft.set("result_cache", "ttl", TomlValue::text(units::format_time(time)), &ttl);
            }
            None => draft.remarks.push(ttl.mistake("not a valid time; omitted")),
        },
        None => draft.comment(
            "result_cache",
            "The default of ttl was a week in the old scanner, and is a day here.",
        ),
    }
    match source.text("result_cache.max_file_size", &mut draft.remarks) {
        Some(size) => match units::parse_size(&size.value) {
            Some(bytes) => {
                draft.comment_next_key(
                    "max_total_size (64MiB) limits the size of all cached media. Media that is not cached is \
                     fetched again, but not scanned again.",
                );
                let bytes = TomlValue::text(format::size(bytes));
                draft.set("result_cache", "max_file_size", bytes, &size);
            }
            None => draft.remarks.push(size.mistake("not a valid size; omitted")),
        },
        None => draft.comment(
            "result_cache",
            "The default of max_file_size was unlimited in the old scanner, and is 1MiB here: larger media is \
             fetched again, but not scanned again.",
        ),
    }
    ignored_exit_codes(
        source.list("result_cache.exit_codes_to_ignore", &mut draft.remarks).as_ref(),
        draft,
    );
}

pub(crate) fn ignored_exit_codes(codes: Option<&Setting<Vec<String>>>, draft: &mut Draft) {
    let Some(codes) = codes else { return };
    draft.comment_next_key(
        "Verdicts by these exit codes are \"not clean\" and are not cached. Move codes by which the script reports \
         a failed scan to scan.failure_exit_codes: they cause an error (500) instead of reporting an infection.",
    );
    let is_signal = |code: &&String| code.parse::<i64>().is_ok_and(|code| code < 0);
    if let Some(signal) = codes.value.iter().find(is_signal) {
        draft.remarks.push(codes.no_counterpart(format!(
            "{signal} means termination by a signal, which is a failure (500) and is never cached; omitted"
        )));
    }
    let numbers = codes.value.iter().filter(|code| !is_signal(code));
    let numbers = numbers.map(|code| hints::integer(code)).collect();
    draft.set("result_cache", "exit_codes_to_ignore", TomlValue::List(numbers), codes);
}

fn crypto(source: &SourceConfig, draft: &mut Draft) {
    let secret = source.text("crypto.request_secret_path", &mut draft.remarks);
    let pickle = source.text("crypto.pickle_path", &mut draft.remarks);
    let pickle_key = source.text("crypto.pickle_key", &mut draft.remarks);
    if let Some(secret) = secret {
        hints::kept_key(draft, Predecessor::Python);
        let path = paths::path(&secret.value, &draft.base);
        hints::missing_key(&secret, &path, draft);
        draft.set("crypto", "request_secret_path", TomlValue::path(&path), &secret);
        draft.comment("crypto", "A missing key is an error; none is generated.");
        draft.set_new("crypto", "generate", TomlValue::Scalar("false".into()));
        for other in [pickle, pickle_key].into_iter().flatten() {
            draft.remarks.push(other.mistake("beside crypto.request_secret_path; omitted"));
        }
    } else {
        hints::pickle(pickle, pickle_key, draft, Predecessor::Python);
    }
}
