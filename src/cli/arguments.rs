//! Command-line definition, and formatting of the output of the subcommands. `main` executes them.

use std::{
    ffi::OsString,
    fs::{self, OpenOptions, Permissions},
    io::{self, Write},
    os::unix::fs::{OpenOptionsExt, PermissionsExt},
    path::{Path, PathBuf},
    process,
};

use clap::{Parser, Subcommand};
use matrix_content_scanner::{
    chain::Chain,
    config::{Config, FORBIDDEN_PATHS, Warning},
    keys::{self, KeyNotice, RequestKey},
    scan::{Verdict, local::LocalError},
    terminal::{BAD, ColorMode, GOOD, HEADING, NOTE, Painter, Terminal},
    text::{escape_toml, escape_untrusted, is_control_or_bidi, replace_untrusted},
};
use mcs_sandbox::{Denial, EffectiveLimits, Exit, Layer, Layers, Termination, Usage};

/// Path of the configuration file in packages.
pub(crate) const DEFAULT_CONFIG: &str = "/etc/matrix-content-scanner/config.toml";

/// `EX_CONFIG` of sysexits(3).
pub(crate) const EXIT_CONFIG: u8 = 78;

const ENVIRONMENT_AND_EXIT_CODES: &str = "\
Environment:
  MCS_<SECTION>__<KEY>  overrides that key of the configuration, e.g. MCS_WEB__PORT=8081 or
                        MCS_SCAN__FAILURE_EXIT_CODES='[2, 126, 127]'; an empty value unsets it
  SSL_CERT_FILE         file with trusted certificates, instead of the system's

Exit codes:
  0   success; `scan`: every file is clean; `sandbox`: the command exited with 0
  1   failure; `scan`: a file is not clean; `sandbox`: the command ended in another way
  2   invalid command line; `scan`, `sandbox`: a file could not be scanned
  78  invalid configuration; `migrate`: written, but it needs a decision by the operator";

/// Scans media on a Matrix content repository before people download it.
#[derive(Debug, Parser)]
// A fixed width: otherwise clap reads the environment variable COLUMNS.
#[command(version, after_help = ENVIRONMENT_AND_EXIT_CODES, args_override_self = true, term_width = 100)]
pub(crate) struct Cli {
    /// Configuration file; the last one wins if the option is repeated
    ///
    /// Without this option, /etc/matrix-content-scanner/config.toml is read if it exists; otherwise only the
    /// environment is used.
    #[arg(short, long, value_name = "FILE", global = true, overrides_with = "config")]
    config: Option<PathBuf>,

    /// When to use colour in output and log
    ///
    /// No environment variable affects this. A progress line is shown on a terminal only, regardless of this option.
    #[arg(long, value_name = "WHEN", global = true, value_enum, default_value_t)]
    color: ColorMode,

    #[command(subcommand)]
    command: Option<CliCommand>,
}

/// Subcommands.
#[derive(Clone, PartialEq, Eq, Debug, Default, Subcommand)]
pub(crate) enum CliCommand {
    /// Run the service (the default)
    #[default]
    Serve,
    /// Check and print the effective configuration, and test the sandbox
    CheckConfig,
    /// Scan local files as the service would, and print one verdict per line
    Scan {
        /// Files to scan
        #[arg(required = true, value_name = "FILE")]
        files: Vec<PathBuf>,
    },
    /// Run a command on a local file like a scan script, and report which accesses were refused
    #[command(override_usage = "matrix-content-scanner sandbox [OPTIONS] -- COMMAND [ARG]... FILE")]
    Sandbox {
        /// Command and, as the last argument, the file; the command gets a copy of the file
        #[arg(last = true, num_args = 2.., required = true, value_name = "COMMAND… FILE")]
        command: Vec<OsString>,
    },
    /// Print the public key that clients encrypt requests for
    PublicKey,
    /// Convert the configuration of an earlier scanner (Python or Node.js, YAML)
    ///
    /// Settings without a counterpart and settings that need a decision are reported on standard error and in
    /// comments of the new file. Key files are not copied; the new file refers to their paths.
    Migrate {
        /// Configuration file of the earlier scanner
        #[arg(value_name = "FILE")]
        file: PathBuf,
        /// Output file, which must not exist yet (mode 0600, since it may contain secrets); default: standard
        /// output
        #[arg(short, long, value_name = "OUT")]
        output: Option<PathBuf>,
        /// Working directory of the earlier scanner, to which relative paths refer; default: the directory of
        /// FILE
        #[arg(long, value_name = "DIR")]
        base: Option<PathBuf>,
    },
}

impl Cli {
    /// Parses the program's arguments. On an error, and for `--help`, prints a message and exits.
    pub(crate) fn from_arguments() -> Self {
        Self::try_parse().unwrap_or_else(|error| exit_with(&error))
    }

    pub(crate) fn command(&self) -> CliCommand {
        self.command.clone().unwrap_or_default()
    }

    pub(crate) fn terminal(&self) -> Terminal {
        self.color.terminal()
    }

    /// Returns the configuration file to read, or `None` if none was given and the default one does not exist.
    pub(crate) fn config_file(&self) -> Option<PathBuf> {
        self.config_file_or(Path::new(DEFAULT_CONFIG))
    }

    fn config_file_or(&self, default: &Path) -> Option<PathBuf> {
        self.config.clone().or_else(|| match fs::symlink_metadata(default) {
            // After other errors the path is returned too; reading the file then reports the cause.
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            _ => Some(default.into()),
        })
    }
}

/// Prints the message about invalid arguments, or the requested help, and exits. An argument may be the name of a file.
fn exit_with(error: &clap::Error) -> ! {
    let message = error.to_string();
    if message.lines().any(|line| line.contains(is_control_or_bidi)) {
        for line in message.lines() {
            eprintln!("{}", escape_untrusted(line));
        }
        process::exit(error.exit_code())
    }
    error.exit()
}

/// `check-config`: prints the effective configuration as TOML, followed by warnings and notices as comments.
pub(crate) fn print_config(
    out: &mut impl Write,
    painter: Painter,
    config: &Config,
    warnings: &[Warning],
    notices: &[KeyNotice],
) -> io::Result<()> {
    for line in escape_toml(&config.to_string()).lines() {
        let is_section = line.starts_with('[');
        if is_section {
            writeln!(out, "{}", painter.paint(HEADING, line))
        } else {
            writeln!(out, "{line}")
        }?;
    }
    let notes = warnings.iter().map(ToString::to_string);
    let notes = notes.chain(notices.iter().map(ToString::to_string));
    for (index, text) in notes.enumerate() {
        let separator = if index == 0 { "\n" } else { "" };
        writeln!(out, "{separator}{}", note(painter, &text))?;
    }
    Ok(())
}

/// `check-config`: describes a request key that does not exist yet. Its folder may be missing too, since systemd
/// creates the state directory at the first start.
pub(crate) fn missing_key_notice(painter: Painter, settings: &keys::Settings) -> String {
    let mut notice =
        "\n# the request key does not exist yet: it is generated at the first start\n".to_owned();
    if let keys::Settings::RequestSecret { path, .. } = settings
        && let Some(folder) = path.parent().filter(|folder| !folder.exists())
    {
        let text = format!(
            "crypto.request_secret_path: create the folder {} before that",
            folder.display()
        );
        notice = format!("{notice}{}\n", note(painter, &text));
    }
    notice
}

/// `check-config`: formats a note as a comment.
pub(crate) fn note(painter: Painter, text: &str) -> String {
    painter.paint(NOTE, format_args!("# note: {}", escape_untrusted(text)))
}

/// `check-config`: formats the limits of each job that are in effect; the configured ones are printed above.
pub(crate) fn limits_line(effective: &EffectiveLimits) -> String {
    let text = |limit: Option<u64>| limit.map_or_else(|| "unlimited".to_owned(), |n| n.to_string());
    format!(
        "# limits in effect: processes {}, open_files {}; all tasks (pids.max) {}",
        text(effective.limits.processes),
        text(effective.limits.open_files),
        text(effective.max_tasks)
    )
}

/// `check-config`: formats the state of a sandbox layer as a comment.
pub(crate) fn layer_line(painter: Painter, layer: &str, state: &str) -> String {
    let line = format!("#   {layer}: {}", escape_untrusted(state));
    if state.starts_with("OFF") { painter.paint(NOTE, line) } else { line }
}

/// `scan`: formats the verdict on a file as a single line. File name and script output are escaped.
pub(crate) fn verdict_line(
    painter: Painter,
    file: &Path,
    verdict: &Result<Verdict, LocalError>,
) -> String {
    let (style, result, details) = match verdict {
        Ok(Verdict::Clean { .. }) => (GOOD, "clean", String::new()),
        Ok(Verdict::NotClean { output, .. }) => (BAD, "not clean", output.to_string()),
        Ok(Verdict::TypeForbidden { detected }) => {
            (BAD, "not clean", format!("file type {detected} is not allowed"))
        }
        Err(error) => (NOTE, "failed", Chain(error).to_string()),
    };
    let separator = if details.is_empty() { "" } else { ": " };
    let name = escape_untrusted(file.display());
    format!("{name}: {}{separator}{}", painter.paint(style, result), escape_untrusted(details))
}

/// `sandbox`: prints output, exit status, resource usage and refused accesses, with the setting that would allow each.
pub(crate) fn print_trial(
    out: &mut impl Write,
    layers: &Layers,
    exit: &Exit,
    refused: &[Denial],
) -> io::Result<()> {
    for (name, stream) in [("standard output", &exit.stdout), ("standard error", &exit.stderr)] {
        if !stream.is_empty() {
            writeln!(out, "{name}:")?;
            for line in String::from_utf8_lossy(stream).lines() {
                writeln!(out, "  {}", replace_untrusted(line))?;
            }
        }
    }
    match exit.termination {
        Termination::Exited(code) => writeln!(out, "ended: exit code {code}")?,
        Termination::Signaled(signal) => writeln!(out, "ended: signal {signal}")?,
        Termination::TimedOut => writeln!(out, "ended: killed after scan.timeout")?,
    }
    let Usage { user_time, system_time, max_rss } = exit.usage;
    writeln!(
        out,
        "took: {:.3} s CPU time, {} KiB peak memory of the largest process",
        (user_time + system_time).as_secs_f64(),
        max_rss / 1024
    )?;
    writeln!(out, "layers:")?;
    for (layer, state) in layers.states() {
        writeln!(out, "  {layer}: {}", escape_untrusted(state))?;
    }
    if refused.is_empty() {
        return writeln!(out, "refused: nothing observed");
    }
    writeln!(out, "refused (the command may work without):")?;
    let path_layer =
        if layers.is_active(Layer::Namespaces) { Layer::Namespaces } else { Layer::Landlock };
    for refused in refused {
        match refused {
            Denial::Call(name) if name == "socket" => {
                writeln!(
                    out,
                    "  {}: the network (sandbox.tcp_ports, sandbox.network)",
                    Layer::Seccomp
                )?;
            }
            Denial::Call(name) => {
                writeln!(out, "  {}: the system call {name} (never allowed)", Layer::Seccomp)?;
            }
            Denial::Read(path) => {
                let is_forbidden =
                    FORBIDDEN_PATHS.iter().any(|forbidden| path.starts_with(forbidden));
                let remedy = if is_forbidden { "never shown" } else { "sandbox.read_only_paths" };
                writeln!(out, "  {path_layer}: {} ({remedy})", escape_untrusted(path.display()))?;
            }
            Denial::Write(path) => writeln!(
                out,
                "  {path_layer}: writing {} (use $TMPDIR; sandbox.writable_paths)",
                escape_untrusted(path.display())
            )?,
            Denial::Port(port) => {
                writeln!(out, "  {}: TCP to port {port} (sandbox.tcp_ports)", Layer::Landlock)?;
            }
            Denial::Connect(path) => {
                writeln!(
                    out,
                    "  {path_layer}: the socket {} (sandbox.unix_sockets)",
                    escape_untrusted(path.display())
                )?;
            }
        }
    }
    Ok(())
}

/// `migrate`: writes TOML to a new file with mode 0600, or to standard output.
pub(crate) fn write_new(path: Option<&Path>, toml: &str) -> io::Result<()> {
    let text = escape_toml(toml);
    let Some(path) = path else { return io::stdout().lock().write_all(text.as_bytes()) };
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
    // Whatever the umask is.
    file.set_permissions(Permissions::from_mode(0o600))?;
    file.write_all(text.as_bytes())
}

/// `public-key`: prints the key alone, so that scripts can use the output.
pub(crate) fn print_public_key(out: &mut impl Write, key: &RequestKey) -> io::Result<()> {
    writeln!(out, "{}", key.public_key())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(arguments: &str) -> Cli {
        let words = ["matrix-content-scanner"].into_iter().chain(arguments.split_whitespace());
        Cli::try_parse_from(words).unwrap_or_else(|error| panic!("{arguments:?}: {error}"))
    }

    fn config_of(arguments: &str) -> Option<String> {
        parse(arguments).config.map(|path| path.to_str().unwrap().to_owned())
    }

    #[test]
    fn clap_definition_is_valid() {
        <Cli as clap::CommandFactory>::command().debug_assert();
    }

    #[test]
    fn default_subcommand_is_serve() {
        assert_eq!(parse("").command(), CliCommand::Serve);
        assert_eq!(parse("-c a").command(), CliCommand::Serve);
        assert_eq!(parse("serve").command(), CliCommand::Serve);
        assert_eq!(parse("check-config").command(), CliCommand::CheckConfig);
        assert_eq!(parse("public-key").command(), CliCommand::PublicKey);
    }

    #[test]
    fn last_configuration_file_wins() {
        for (arguments, last) in [
            ("-c a", "a"),
            ("--config a", "a"),
            ("--config=a", "a"),
            ("-ca", "a"),
            ("-c a -c b", "b"),
            ("-c a --config b", "b"),
            ("-c a serve", "a"),
            ("serve -c a", "a"),
            ("serve -c a -c b", "b"),
            ("-c a serve -c b", "b"),
            ("-c b serve -c a", "a"),
            ("-c a -c b serve", "b"),
            ("-c a -c b serve -c c", "c"),
            ("-c a serve -c b -c c", "c"),
            ("-c a -c b serve -c c -c d", "d"),
            ("-c a check-config -c b", "b"),
            ("public-key -c a", "a"),
            ("-c a scan x -c b y", "b"),
            ("scan -c a -c b x", "b"),
        ] {
            assert_eq!(config_of(arguments).as_deref(), Some(last), "{arguments}");
        }
        assert_eq!(config_of("serve"), None);
    }

    #[test]
    fn scan_accepts_files_around_options() {
        let files = |arguments| match parse(arguments).command() {
            CliCommand::Scan { files } => files,
            other => panic!("{other:?}"),
        };
        assert_eq!(files("scan x -c a y"), ["x", "y"].map(PathBuf::from));
        assert_eq!(files("-c a scan x"), ["x"].map(PathBuf::from));
        assert_eq!(files("scan -- -c"), ["-c"].map(PathBuf::from));
        assert!(Cli::try_parse_from(["mcs", "scan"]).is_err());
    }

    #[test]
    fn rejects_unknown_arguments() {
        for arguments in [["mcs", "srve"], ["mcs", "--prot"], ["mcs", "-c"]] {
            let error = Cli::try_parse_from(arguments).unwrap_err();
            assert_eq!(error.exit_code(), 2, "{arguments:?}");
        }
    }

    #[test]
    fn help_lists_environment_and_exit_codes() {
        for flag in ["-h", "--help"] {
            let help = Cli::try_parse_from(["mcs", flag]).unwrap_err();
            assert_eq!(help.exit_code(), 0);
            let help = help.to_string();
            for word in ["MCS_WEB__PORT", "SSL_CERT_FILE", "check-config", "public-key", "78"] {
                assert!(help.contains(word), "{word} in {help}");
            }
        }
        let version = Cli::try_parse_from(["mcs", "--version"]).unwrap_err().to_string();
        assert!(version.contains(env!("CARGO_PKG_VERSION")));
    }

    #[test]
    fn uses_default_file_only_if_it_exists() {
        let folder = tempfile::tempdir().unwrap();
        let default = folder.path().join("config.toml");
        assert_eq!(parse("").config_file_or(&default), None);
        assert_eq!(parse("-c a").config_file_or(&default), Some("a".into()));
        fs::write(&default, "").unwrap();
        assert_eq!(parse("").config_file_or(&default), Some(default.clone()));
        assert_eq!(parse("-c a").config_file_or(&default), Some("a".into()));
    }
}
