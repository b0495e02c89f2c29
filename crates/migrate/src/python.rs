//! What the Python scanner's keys become.

use super::{
    Predecessor,
    draft::{Draft, Value},
    hints, measures,
    old::{Found, Old},
    places,
};
use crate::config;

/// All that it ever knew; `crypto.pickle_…` before version 1.3.
pub(super) const KEYS: [&str; 18] = [
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

pub(super) fn translate(old: &Old, draft: &mut Draft) {
    web(old, draft);
    scan(old, draft);
    download(old, draft);
    result_cache(old, draft);
    crypto(old, draft);
}

fn web(old: &Old, draft: &mut Draft) {
    if let Some(host) = old.text("web.host", &mut draft.remarks) {
        draft.set("web", "host", Value::text(&host.value), &host);
    }
    if let Some(port) = old.text("web.port", &mut draft.remarks) {
        hints::port(&port, draft);
    }
}

fn scan(old: &Old, draft: &mut Draft) {
    if let Some(script) = old.text("scan.script", &mut draft.remarks) {
        let program = places::program(&script.value, &draft.base);
        draft.set("scan", "script", Value::path(&program), &script);
        hints::sandbox(&program, draft);
    }
    hints::scan(draft);
    hints::temp_directory(old.text("scan.temp_directory", &mut draft.remarks), draft);
    removal_command(old.text("scan.removal_command", &mut draft.remarks), draft);
    mime_types(old, draft);
}

/// Both scanners ran a command with the path of each file, `rm` where none was written.
pub(super) fn removal_command(command: Option<Found<String>>, draft: &mut Draft) {
    let Some(command) = command else { return };
    let words: Vec<_> = command.value.split_whitespace().collect();
    let Some((program, arguments)) = words.split_first() else {
        draft.remarks.push(command.mistake("found nothing in it; left out"));
        return;
    };
    if matches!(program.rsplit('/').next(), Some("rm" | "unlink" | "true")) {
        draft.remarks.push(command.no_counterpart(
            "not needed: each media is removed in any case, with everything that the script wrote",
        ));
        return;
    }
    let program = places::program(program, &draft.base);
    draft.why("Runs before a media is removed, in the script's sandbox. With namespaces the media lies in memory \
         and cannot be written, so a command that overwrites it fails, and need not run: leave the key out. \
         What it says changes nothing but the log.",
    );
    let words = [program.to_string_lossy().into_owned()].into_iter();
    let words = words.chain(arguments.iter().map(|&word| word.to_owned()));
    draft.set("scan", "removal_command", Value::texts(words), &command);
}

fn mime_types(old: &Old, draft: &mut Draft) {
    let allowed = old.list("scan.allowed_mimetypes", &mut draft.remarks);
    let blocked = old.list("scan.blocked_mimetypes", &mut draft.remarks);
    if let (Some(_), Some(blocked)) = (&allowed, &blocked) {
        draft.remarks.push(blocked.mistake(
            "beside scan.allowed_mimetypes, which that scanner does not start with; the list of what is \
             allowed is kept, this one is left out",
        ));
    }
    if let Some(allowed) = allowed {
        allowed_types(&allowed, draft);
    } else if let Some(blocked) = blocked
        && !blocked.value.is_empty()
    {
        draft.set("scan", "blocked_mimetypes", Value::texts(&blocked.value), &blocked);
    }
}

/// An empty list let nothing pass with both scanners, and has been meant as "everything".
pub(super) fn allowed_types(allowed: &Found<Vec<String>>, draft: &mut Draft) {
    if allowed.value.is_empty() {
        draft.remarks.push(allowed.mistake(
            "an empty list refuses every file there; left out, so that every type passes. List the types \
             that may pass, or nothing",
        ));
        return;
    }
    if allowed.value.iter().any(|name| name.eq_ignore_ascii_case("image/jpg")) {
        draft.why("No file is ever found to be image/jpg: the name is image/jpeg.");
    }
    draft.set("scan", "allowed_mimetypes", Value::texts(&allowed.value), allowed);
}

fn download(old: &Old, draft: &mut Draft) {
    let base = old.text("download.base_homeserver_url", &mut draft.remarks);
    hints::homeserver(base.is_some(), draft);
    if let Some(base) = base {
        draft.set("download", "base_homeserver_url", Value::text(&base.value), &base);
    }
    if let Some(proxy) = old.text("download.proxy", &mut draft.remarks) {
        draft.set("download", "proxy", Value::text(&proxy.value), &proxy);
    }
    if let Some(headers) = old.table("download.additional_headers", &mut draft.remarks) {
        draft.why("Sent to configured homeservers alone, not to servers that a media or .well-known names.",
        );
        draft.set("download", "additional_headers", Value::table(&headers.value), &headers);
    }
    if let Some(names) = old.list("download.headers_to_forward", &mut draft.remarks) {
        draft.comment(
            "download",
            "Authorization always is. A header that a request does not have is no error any more.",
        );
        if names.value.iter().any(|name| name.eq_ignore_ascii_case("x-forwarded-for")) {
            draft.comment(
                "download",
                "Any client can write X-Forwarded-For. To have this service write it, take it out of the \
                 list, and set forward_client_address and trusted_proxies.",
            );
        }
        draft.set("download", "headers_to_forward", Value::texts(&names.value), &names);
    }
    hints::download_limits(draft);
}

fn result_cache(old: &Old, draft: &mut Draft) {
    match old.text("result_cache.max_size", &mut draft.remarks) {
        Some(size) => {
            draft.why("Results alone: memory for media has a bound of its own, max_total_size.");
            draft.set("result_cache", "max_size", hints::number(&size), &size);
        }
        None => draft.comment("result_cache", "max_size was 1024 there, and is 100000 here."),
    }
    match old.text("result_cache.ttl", &mut draft.remarks) {
        Some(ttl) => match measures::time(&ttl.value) {
            Some(time) => {
                draft.set("result_cache", "ttl", Value::text(measures::written(time)), &ttl);
            }
            None => draft.remarks.push(ttl.mistake("no time that is known; left out")),
        },
        None => draft.comment("result_cache", "ttl was a week there, and is a day here."),
    }
    match old.text("result_cache.max_file_size", &mut draft.remarks) {
        Some(size) => match measures::size(&size.value) {
            Some(bytes) => {
                draft.why("All media that is kept has max_total_size (64MiB) together. What is not kept is fetched \
                     again, and not scanned again.",
                );
                let bytes = Value::text(config::written_size(bytes));
                draft.set("result_cache", "max_file_size", bytes, &size);
            }
            None => draft.remarks.push(size.mistake("no size that is known; left out")),
        },
        None => draft.comment(
            "result_cache",
            "max_file_size had no bound there, and is 1MiB here: larger media is fetched again, and not \
             scanned again.",
        ),
    }
    ignored_exit_codes(
        old.list("result_cache.exit_codes_to_ignore", &mut draft.remarks).as_ref(),
        draft,
    );
}

pub(super) fn ignored_exit_codes(codes: Option<&Found<Vec<String>>>, draft: &mut Draft) {
    let Some(codes) = codes else { return };
    draft.why("Verdicts by these are \"not clean\", and are not remembered. A code by which the script says that it \
         could not tell belongs into scan.failure_exit_codes: that is an error (500), and nobody is told of \
         an infection.",
    );
    let is_signal = |code: &&String| code.parse::<i64>().is_ok_and(|code| code < 0);
    if let Some(signal) = codes.value.iter().find(is_signal) {
        draft.remarks.push(codes.no_counterpart(format!(
            "{signal} stands for an end by a signal, which is a failure (500) and never remembered; left out"
        )));
    }
    let numbers = codes.value.iter().filter(|code| !is_signal(code));
    let numbers = numbers.map(|code| hints::integer(code)).collect();
    draft.set("result_cache", "exit_codes_to_ignore", Value::List(numbers), codes);
}

fn crypto(old: &Old, draft: &mut Draft) {
    let secret = old.text("crypto.request_secret_path", &mut draft.remarks);
    let pickle = old.text("crypto.pickle_path", &mut draft.remarks);
    let pickle_key = old.text("crypto.pickle_key", &mut draft.remarks);
    if let Some(secret) = secret {
        hints::kept_key(draft, Predecessor::Python);
        let path = places::path(&secret.value, &draft.base);
        hints::missing_key(&secret, &path, draft);
        draft.set("crypto", "request_secret_path", Value::path(&path), &secret);
        draft.comment("crypto", "A key that is gone is an error, and is not made anew.");
        draft.set_new("crypto", "generate", Value::One("false".into()));
        for other in [pickle, pickle_key].into_iter().flatten() {
            draft.remarks.push(other.mistake("beside crypto.request_secret_path; left out"));
        }
    } else {
        hints::pickle(pickle, pickle_key, draft, Predecessor::Python);
    }
}
