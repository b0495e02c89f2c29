//! Writes the configuration in force as equivalent TOML. Secrets are written as `..`: header values,
//! values of the scripts' environment, the proxy password and the pickle key.

use std::{
    fmt::{self, Display},
    time::Duration,
};

use mcs_sandbox::{self as scripts, Mode};
use reqwest::Url;

use super::{
    choices,
    format::{self, os_string, path, quoted},
    mime,
    settings::{Config, LogFormat},
};
use crate::{
    audit,
    http::{Listen, TrustedNetwork},
    keys,
    scan::{engines::EngineSettings, settings::CanarySamples},
};

const SECRET: &str = "..";

impl Display for Config {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.write_web(f)?;
        self.write_scan(f)?;
        self.write_engines(f)?;
        self.write_sandbox(f)?;
        self.write_download(f)?;
        self.show_result_cache(f)?;
        self.write_crypto(f)?;
        let format = match self.log.format {
            LogFormat::Human => "human",
            LogFormat::Json => "json",
        };
        let mut log = SectionWriter::new(f, "\n[log]")?;
        log.line("level", quoted(&self.log.level))?;
        log.line("format", quoted(format))?;
        let mut operations = SectionWriter::new(f, "\n[operations]")?;
        operations.line("enabled", self.operations.is_some())?;
        if let Some(settings) = &self.operations {
            operations.listen(&settings.listen)?;
        }
        let mut audit = SectionWriter::new(f, "\n[audit]")?;
        audit.optional(
            "path",
            self.audit.as_ref().map(|to| match to {
                audit::Settings::File(file) => path(file),
                audit::Settings::Stdout => quoted("-"),
            }),
        )
    }
}

/// Like `Display`; a derived implementation would print secrets.
impl fmt::Debug for Config {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        Display::fmt(self, f)
    }
}

impl Config {
    fn write_web(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let web = &self.web;
        let mut lines = SectionWriter::new(f, "[web]")?;
        lines.listen(&web.listen)?;
        lines.line("max_body_size", quoted_size(web.max_body_size as u64))?;
        lines.line("max_connections", web.max_connections)?;
        lines.line("header_timeout", quoted_duration(web.header_timeout))?;
        lines.line("idle_timeout", quoted_duration(web.idle_timeout))?;
        lines.line("min_rate", quoted_size(web.min_rate))
    }

    fn write_scan(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scan = &self.scan;
        let mut lines = SectionWriter::new(f, "\n[scan]")?;
        let names = scan.engines.iter().map(|kind| match kind {
            EngineSettings::Script(_) => quoted("script"),
            EngineSettings::Rules(_) => quoted("rules"),
            EngineSettings::Clamd(_) => quoted("clamd"),
            EngineSettings::Icap(_) => quoted("icap"),
        });
        lines.line("engines", list(names))?;
        lines.line("on_encrypted", choice(&choices::CONTENT_POLICIES, scan.on_encrypted))?;
        lines.line("on_limit", choice(&choices::CONTENT_POLICIES, scan.on_limit))?;
        lines.line("version_interval", quoted_duration(scan.version_interval))?;
        lines.optional("script", scan.script.as_deref().map(path))?;
        for kind in &scan.engines {
            if let EngineSettings::Script(bounds) = kind {
                lines.optional("script_max_size", bounds.max_size.map(quoted_size))?;
                lines.line(
                    "script_on_oversize",
                    choice(&choices::OVERSIZE_POLICIES, bounds.on_oversize),
                )?;
                lines.line(
                    "script_on_failure",
                    choice(&choices::SKIP_POLICIES, bounds.on_failure),
                )?;
            }
        }
        lines.line("script_args", list(scan.script_args.iter().map(os_string)))?;
        lines.line("timeout", quoted_duration(scan.timeout))?;
        lines.line("deadline", quoted_duration(scan.deadline))?;
        lines.line("workers", scan.workers)?;
        lines.line("max_scripts", scan.max_scripts)?;
        lines.line("slow_after", quoted_duration(scan.slow_after))?;
        lines.line("queue_capacity", scan.queue_capacity)?;
        lines.line("temp_directory", path(&scan.temp_directory))?;
        lines.line("temp_directory_shared", scan.temp_directory_shared)?;
        lines.line("max_spool_size", quoted_size(scan.max_spool_size))?;
        if let Some((program, arguments)) = &scan.removal_command {
            let words = [path(program)].into_iter().chain(arguments.iter().map(os_string));
            lines.line("removal_command", list(words))?;
        }
        if let Some((key, names)) = mime::configured_list(&scan.mime) {
            lines.line(key, list(names.into_iter().map(quoted)))?;
        }
        lines.line("max_output_size", quoted_size(scan.max_output_size as u64))?;
        lines.line("failure_exit_codes", list(scan.failure_exit_codes.iter()))?;
        let Some(canary) = &scan.canary else { return lines.line("canary", quoted("off")) };
        let samples = match &canary.samples {
            CanarySamples::Eicar => quoted("eicar"),
            CanarySamples::Files { infected, clean } => {
                let files = [("infected", path(infected)), ("clean", path(clean))];
                inline_table(files.into_iter())
            }
        };
        lines.line("canary", samples)?;
        lines.line("canary_interval", quoted_duration(canary.interval))
    }

    fn write_engines(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for kind in &self.scan.engines {
            let (mut lines, timeout, bounds) = match kind {
                EngineSettings::Script(_) => continue,
                EngineSettings::Rules(rules) => {
                    let mut lines = SectionWriter::new(f, "\n[rules]")?;
                    lines.line("paths", list(rules.paths.iter().map(|file| path(file))))?;
                    lines.line("ignore", list(rules.ignore.iter().map(|name| quoted(name))))?;
                    (lines, rules.timeout, &rules.bounds)
                }
                EngineSettings::Clamd(clamd) => {
                    let mut lines = SectionWriter::new(f, "\n[clamd]")?;
                    let addresses =
                        clamd.addresses.iter().map(|address| quoted(&address.to_string()));
                    lines.line("addresses", list(addresses))?;
                    (lines, clamd.timeout, &clamd.bounds)
                }
                EngineSettings::Icap(icap) => {
                    let mut lines = SectionWriter::new(f, "\n[icap]")?;
                    lines.line("urls", list(icap.urls.iter().map(|url| quoted(url.as_str()))))?;
                    lines.line("method", choice(&choices::METHODS, icap.method))?;
                    lines.line("preview", choice(&choices::PREVIEWS, icap.preview))?;
                    lines.optional("ca_certificates", icap.ca_certificates.as_deref().map(path))?;
                    (lines, icap.timeout, &icap.bounds)
                }
            };
            lines.line("timeout", quoted_duration(timeout))?;
            lines.optional("max_size", bounds.max_size.map(quoted_size))?;
            lines.line("on_oversize", choice(&choices::OVERSIZE_POLICIES, bounds.on_oversize))?;
            lines.line("on_failure", choice(&choices::SKIP_POLICIES, bounds.on_failure))?;
        }
        Ok(())
    }

    fn write_sandbox(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let sandbox = &self.sandbox;
        let mut lines = SectionWriter::new(f, "\n[sandbox]")?;
        let (mode, required) = match &sandbox.mode {
            Mode::Enforce => ("enforce", [].as_slice()),
            Mode::Strict(required) => ("strict", required.as_slice()),
            Mode::Degraded => ("degraded", [].as_slice()),
        };
        lines.line("mode", quoted(mode))?;
        lines.line("require", list(required.iter().map(|layer| quoted(layer.name()))))?;
        let (network, ports) = match &sandbox.network {
            scripts::NetworkAccess::None => ("none", [].as_slice()),
            scripts::NetworkAccess::Ports(ports) => ("none", ports.as_slice()),
            scripts::NetworkAccess::Host => ("host", [].as_slice()),
        };
        lines.line("network", quoted(network))?;
        lines.line("tcp_ports", list(ports.iter()))?;
        let paths = &sandbox.paths;
        lines.line("unix_sockets", list(paths.unix_sockets.iter().map(|file| path(file))))?;
        lines.line("read_only_paths", list(paths.read_only.iter().map(|file| path(file))))?;
        lines.line("writable_paths", list(paths.writable.iter().map(|file| path(file))))?;
        if let Some(user) = sandbox.user {
            lines.line("user", quoted(&format!("{}:{}", user.uid, user.gid)))?;
        }
        let names = sandbox.environment.iter().map(|(name, _)| name.to_string_lossy());
        lines.line("environment", inline_table(names.map(|name| (name, quoted(SECRET)))))?;
        let limits = &sandbox.limits;
        let mut lines = SectionWriter::new(f, "\n[sandbox.limits]")?;
        lines.optional("cpu_time", limits.cpu_time.map(quoted_duration))?;
        lines.optional("file_size", limits.file_size.map(quoted_size))?;
        lines.optional("open_files", limits.open_files)?;
        lines.optional("processes", limits.processes)?;
        lines.optional("address_space", limits.address_space.map(quoted_size))?;
        lines.line("disk", quoted_size(limits.disk))?;
        lines.optional("memory", limits.memory.map(quoted_size))?;
        lines.optional("cpu_percent", limits.cpu_percent)
    }

    fn write_download(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let download = &self.download;
        let mut lines = SectionWriter::new(f, "\n[download]")?;
        lines.optional("base_homeserver_url", download.base_homeserver_url.as_ref().map(url))?;
        let homeservers = download.homeservers.iter().map(|(host, base)| (host, url(base)));
        lines.line("homeservers", inline_table(homeservers))?;
        lines.optional("proxy", download.proxy.as_ref().map(url))?;
        let names = download.additional_headers.keys().map(|name| (name, quoted(SECRET)));
        lines.line("additional_headers", inline_table(names))?;
        let names = download.headers_to_forward.iter().map(|name| quoted(name.as_str()));
        lines.line("headers_to_forward", list(names))?;
        lines.line("forward_client_address", download.forward_client_address)?;
        lines.line("trusted_proxies", list(self.web.trusted_proxies.iter().map(network)))?;
        lines.line("max_size", quoted_size(download.max_size))?;
        lines.line("connect_timeout", quoted_duration(download.connect_timeout))?;
        lines.line("idle_timeout", quoted_duration(download.idle_timeout))?;
        lines.line("total_timeout", quoted_duration(download.total_timeout))?;
        lines.line("min_rate", quoted_size(download.min_rate))?;
        lines.line("allow_private_addresses", download.allow_private_addresses)?;
        lines.optional("ca_certificates", download.ca_certificates.as_deref().map(path))?;
        lines.line("authorisation_ttl", quoted_duration(download.authorisation_ttl))
    }

    fn show_result_cache(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let cache = &self.result_cache;
        let mut lines = SectionWriter::new(f, "\n[result_cache]")?;
        lines.line("max_size", cache.max_size)?;
        lines.line("ttl", quoted_duration(cache.ttl))?;
        lines.line("max_file_size", quoted_size(cache.max_file_size))?;
        lines.line("max_total_size", quoted_size(cache.max_total_size))?;
        lines.line("exit_codes_to_ignore", list(cache.exit_codes_to_ignore.iter()))?;
        lines.line("failure_ttl", quoted_duration(cache.failure_ttl))
    }

    fn write_crypto(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut lines = SectionWriter::new(f, "\n[crypto]")?;
        match &self.crypto {
            keys::Settings::RequestSecret { path: file, generate } => {
                lines.line("request_secret_path", path(file))?;
                lines.line("generate", generate)?;
            }
            keys::Settings::Pickle { path: file, key: _ } => {
                lines.line("pickle_path", path(file))?;
                lines.line("pickle_key", quoted(SECRET))?;
            }
        }
        lines.line("previous_key_ttl", quoted_duration(self.previous_key_ttl))
    }
}

/// Returns the quoted name of a choice.
fn choice<T: PartialEq + Copy>(choices: &[(&str, T)], chosen: T) -> String {
    let found = choices.iter().find(|(_, choice)| *choice == chosen);
    quoted(found.map_or("", |(name, _)| name))
}

/// Writes the lines of a section.
struct SectionWriter<'w, 'f>(&'w mut fmt::Formatter<'f>);

impl<'w, 'f> SectionWriter<'w, 'f> {
    fn new(f: &'w mut fmt::Formatter<'f>, header: &str) -> Result<Self, fmt::Error> {
        writeln!(f, "{header}")?;
        Ok(Self(f))
    }

    fn line(&mut self, key: &str, value: impl Display) -> fmt::Result {
        writeln!(self.0, "{key} = {value}")
    }

    fn listen(&mut self, listen: &Listen) -> fmt::Result {
        match listen {
            Listen::Tcp { host, port } => {
                self.line("host", quoted(host))?;
                self.line("port", port)
            }
            Listen::Unix(socket) => self.line("socket", path(socket)),
        }
    }

    fn optional(&mut self, key: &str, value: Option<impl Display>) -> fmt::Result {
        value.map_or(Ok(()), |value| self.line(key, value))
    }
}

fn quoted_duration(value: Duration) -> String {
    quoted(&format::duration(value))
}

fn quoted_size(bytes: u64) -> String {
    quoted(&format::size(bytes))
}

/// Formats a URL without a trailing slash and without the password.
fn url(url: &Url) -> String {
    let mut url = url.clone();
    if url.password().is_some() && url.set_password(Some(SECRET)).is_err() {
        return quoted(SECRET);
    }
    quoted(url.as_str().trim_end_matches('/'))
}

fn network(network: &TrustedNetwork) -> String {
    quoted(&format!("{}/{}", network.address, network.prefix))
}

fn list(elements: impl Iterator<Item = impl Display>) -> String {
    let elements: Vec<_> = elements.map(|element| element.to_string()).collect();
    format!("[{}]", elements.join(", "))
}

fn inline_table(entries: impl Iterator<Item = (impl AsRef<str>, String)>) -> String {
    let entries: Vec<_> =
        entries.map(|(name, value)| format!("{} = {value}", format::key(name.as_ref()))).collect();
    if entries.is_empty() { "{}".into() } else { format!("{{ {} }}", entries.join(", ")) }
}
