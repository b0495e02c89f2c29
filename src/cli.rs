//! The command line: what can be asked for, and printing what `check-config` and `public-key` ask.
//! Decides nothing: `main` does what it says.

use std::{
    ffi::OsString,
    fs::{self, OpenOptions, Permissions},
    io::{self, Write},
    os::unix::fs::{OpenOptionsExt, PermissionsExt},
    path::{Path, PathBuf},
};

use clap::{Parser, Subcommand};
use matrix_content_scanner::{
    chain::Chain,
    config::{Config, NEVER_SHOWN, Warning},
    keys::{self, KeyNotice, RequestKey},
    scan::{Verdict, local::LocalError},
    terminal::{BAD, GOOD, HEADING, NOTE, Paint, Terminal, When, harmless},
};
use mcs_sandbox::{Exit, Layer, Layers, Outcome, Refused, Usage};

/// Where packages put the configuration.
pub(crate) const DEFAULT_CONFIG: &str = "/etc/matrix-content-scanner/config.toml";

/// `EX_CONFIG` of sysexits(3).
pub(crate) const EXIT_CONFIG: u8 = 78;

const ENVIRONMENT_AND_EXIT_CODES: &str = "\
Environment:
  MCS_<SECTION>__<KEY>  replaces that key of the configuration, e.g. MCS_WEB__PORT=8081 or
                        MCS_SCAN__FAILURE_EXIT_CODES='[2, 126, 127]'; an empty one takes it out
  SSL_CERT_FILE         trusted certificates in place of the system's

Exit codes:
  0   done; for `scan`: every file is clean; for `sandbox`: the command exited with 0
  1   `scan`: a file is not clean; `sandbox`: it ended in another way; otherwise: failed
  2   the command line is wrong; `scan`, `sandbox`: a file could not be scanned
  78  the configuration is wrong; `migrate`: written, but something has to be decided";

/// Scans media on a Matrix content repository before people download it.
#[derive(Debug, Parser)]
// The width is said: otherwise COLUMNS would be read.
#[command(version, after_help = ENVIRONMENT_AND_EXIT_CODES, args_override_self = true, term_width = 100)]
pub(crate) struct Cli {
    /// The configuration file; of several the last counts
    ///
    /// Without it, /etc/matrix-content-scanner/config.toml is read if it is there, and otherwise the
    /// environment alone.
    #[arg(short, long, value_name = "FILE", global = true, overrides_with = "config")]
    config: Option<PathBuf>,

    /// When there is colour in what is printed and logged
    ///
    /// No variable is read for that. A progress line is shown on a terminal only, whatever this says.
    #[arg(long, value_name = "WHEN", global = true, value_enum, default_value_t)]
    color: When,

    #[command(subcommand)]
    command: Option<Command>,
}

/// What to do.
#[derive(Clone, PartialEq, Eq, Debug, Default, Subcommand)]
pub(crate) enum Command {
    /// Run the service (the default)
    #[default]
    Serve,
    /// Check the configuration, print what is in force, and try the sandbox
    CheckConfig,
    /// Scan local files as the service would; prints a verdict a line
    Scan {
        /// The files
        #[arg(required = true, value_name = "FILE")]
        files: Vec<PathBuf>,
    },
    /// Run any command on a local file as a scan script would be run, and say what it was refused
    #[command(override_usage = "matrix-content-scanner sandbox [OPTIONS] -- COMMAND [ARG]... FILE")]
    Sandbox {
        /// The command, and as its last word the file, of which it gets a copy
        #[arg(last = true, num_args = 2.., required = true, value_name = "COMMAND… FILE")]
        command: Vec<OsString>,
    },
    /// Print the public key that clients encrypt for
    PublicKey,
    /// Translate the configuration of an earlier scanner (Python or Node.js, YAML) into this one's
    ///
    /// What has no counterpart and what has to be decided is told on standard error, and in comments of
    /// the new file. Keys of theirs are named by the path that they have, and stay where they are.
    Migrate {
        /// The earlier scanner's configuration
        #[arg(value_name = "FILE")]
        file: PathBuf,
        /// Where to write the new one, which must not exist yet (mode 0600, it may hold secrets); without
        /// it, on standard output
        #[arg(short, long, value_name = "OUT")]
        output: Option<PathBuf>,
        /// The directory that the earlier scanner was started in, from which relative paths start; without
        /// it, FILE's
        #[arg(long, value_name = "DIR")]
        base: Option<PathBuf>,
    },
}

impl Cli {
    /// Parses the program's arguments; on a mistake, or for `--help`, prints and exits.
    pub(crate) fn from_arguments() -> Self {
        Self::parse()
    }

    /// What to do.
    pub(crate) fn command(&self) -> Command {
        self.command.clone().unwrap_or_default()
    }

    /// Where there is colour.
    pub(crate) fn terminal(&self) -> Terminal {
        self.color.terminal()
    }

    /// The configuration file, if any is to be read.
    pub(crate) fn config_file(&self) -> Option<PathBuf> {
        self.config_or(Path::new(DEFAULT_CONFIG))
    }

    fn config_or(&self, default: &Path) -> Option<PathBuf> {
        self.config.clone().or_else(|| match fs::symlink_metadata(default) {
            // One that is there and cannot be looked at is named too: reading it tells why.
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            _ => Some(default.into()),
        })
    }
}

/// `check-config`: what is in force as TOML, then as comments what is worth a word.
pub(crate) fn print_config(
    out: &mut impl Write,
    paint: Paint,
    config: &Config,
    warnings: &[Warning],
    notices: &[KeyNotice],
) -> io::Result<()> {
    for line in config.to_string().lines() {
        let is_section = line.starts_with('[');
        if is_section {
            writeln!(out, "{}", paint.on(HEADING, line))
        } else {
            writeln!(out, "{line}")
        }?;
    }
    let words = warnings.iter().map(ToString::to_string);
    let words = words.chain(notices.iter().map(ToString::to_string));
    for (index, word) in words.enumerate() {
        let separator = if index == 0 { "\n" } else { "" };
        writeln!(out, "{separator}{}", note(paint, &word))?;
    }
    Ok(())
}

/// `check-config`: a request key that is not there. systemd makes the folder of the state at the first start, so it may be
/// missing too.
pub(crate) fn key_to_be_made(paint: Paint, settings: &keys::Settings) -> String {
    let mut told =
        "\n# the request key is not there yet: it is made at the first start\n".to_owned();
    if let keys::Settings::RequestSecret { path, .. } = settings
        && let Some(folder) = path.parent().filter(|folder| !folder.exists())
    {
        let word = format!(
            "crypto.request_secret_path: by then its folder {} has to be there",
            folder.display()
        );
        told = format!("{told}{}\n", note(paint, &word));
    }
    told
}

/// `check-config`: a comment that is worth a word.
pub(crate) fn note(paint: Paint, word: &str) -> String {
    paint.on(NOTE, format_args!("# note: {}", harmless(word)))
}

/// `check-config`: a layer of the sandbox.
pub(crate) fn layer_line(paint: Paint, layer: &str, state: &str) -> String {
    let line = format!("#   {layer}: {}", harmless(state));
    if state.starts_with("OFF") { paint.on(NOTE, line) } else { line }
}

/// `scan`: a line for each file, whatever is in its name and in what the script printed.
pub(crate) fn verdict_line(
    paint: Paint,
    file: &Path,
    verdict: &Result<Verdict, LocalError>,
) -> String {
    let (style, word, more) = match verdict {
        Ok(Verdict::Clean { .. }) => (GOOD, "clean", String::new()),
        Ok(Verdict::NotClean { output }) => (BAD, "not clean", output.to_string()),
        Ok(Verdict::TypeForbidden { detected }) => {
            (BAD, "not clean", format!("its type, {detected}, is not allowed"))
        }
        Err(error) => (NOTE, "failed", Chain(error).to_string()),
    };
    let separator = if more.is_empty() { "" } else { ": " };
    let name = harmless(file.display());
    format!("{name}: {}{separator}{}", paint.on(style, word), harmless(more))
}

/// `sandbox`: what came of it, and what to do about it.
pub(crate) fn print_trial(
    out: &mut impl Write,
    layers: &Layers,
    exit: &Exit,
    refused: &[Refused],
) -> io::Result<()> {
    for (name, stream) in [("standard output", &exit.stdout), ("standard error", &exit.stderr)] {
        if !stream.is_empty() {
            writeln!(out, "{name}:")?;
            for line in String::from_utf8_lossy(stream).lines() {
                // Terminals act on these.
                writeln!(out, "  {}", line.replace(|c: char| c.is_control() && c != '\t', " "))?;
            }
        }
    }
    match exit.outcome {
        Outcome::Exited(code) => writeln!(out, "ended: exit code {code}")?,
        Outcome::Signaled(signal) => writeln!(out, "ended: by signal {signal}")?,
        Outcome::TimedOut => writeln!(out, "ended: killed when scan.timeout was over")?,
    }
    let Usage { user_time, system_time, max_rss } = exit.usage;
    writeln!(
        out,
        "took: {:.3} s of a processor, {} KiB of memory in its largest process",
        (user_time + system_time).as_secs_f64(),
        max_rss / 1024
    )?;
    writeln!(out, "layers:")?;
    for (layer, state) in layers.rows() {
        writeln!(out, "  {layer}: {state}")?;
    }
    if refused.is_empty() {
        return writeln!(out, "refused: nothing that was noticed");
    }
    writeln!(out, "refused (it may do well without):")?;
    let of_paths =
        if layers.holds(Layer::Namespaces) { Layer::Namespaces } else { Layer::Landlock };
    for refused in refused {
        match refused {
            Refused::Call(name) if name == "socket" => {
                writeln!(
                    out,
                    "  {}: the network (sandbox.tcp_ports, sandbox.network)",
                    Layer::Seccomp
                )?;
            }
            Refused::Call(name) => {
                writeln!(out, "  {}: the system call {name} (never allowed)", Layer::Seccomp)?;
            }
            Refused::Read(path) => {
                let never = NEVER_SHOWN.iter().any(|never| path.starts_with(never));
                let remedy = if never { "never shown" } else { "sandbox.read_only_paths" };
                writeln!(out, "  {of_paths}: {} ({remedy})", harmless(path.display()))?;
            }
            Refused::Write(path) => writeln!(
                out,
                "  {of_paths}: writing {} ($TMPDIR is for that; sandbox.writable_paths)",
                harmless(path.display())
            )?,
            Refused::Port(port) => {
                writeln!(out, "  {}: TCP to port {port} (sandbox.tcp_ports)", Layer::Landlock)?;
            }
            Refused::Connect(path) => {
                writeln!(
                    out,
                    "  {of_paths}: the socket {} (sandbox.unix_sockets)",
                    harmless(path.display())
                )?;
            }
        }
    }
    Ok(())
}

/// `migrate`: into a file that was not there, readable for its owner alone, or on standard output.
pub(crate) fn write_new(path: Option<&Path>, text: &str) -> io::Result<()> {
    let Some(path) = path else { return io::stdout().lock().write_all(text.as_bytes()) };
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
    // Whatever the umask is.
    file.set_permissions(Permissions::from_mode(0o600))?;
    file.write_all(text.as_bytes())
}

/// `public-key`: the key alone, for scripts.
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
    fn clap_finds_the_definition_sound() {
        <Cli as clap::CommandFactory>::command().debug_assert();
    }

    #[test]
    fn without_a_subcommand_it_serves() {
        assert_eq!(parse("").command(), Command::Serve);
        assert_eq!(parse("-c a").command(), Command::Serve);
        assert_eq!(parse("serve").command(), Command::Serve);
        assert_eq!(parse("check-config").command(), Command::CheckConfig);
        assert_eq!(parse("public-key").command(), Command::PublicKey);
    }

    #[test]
    fn the_last_configuration_file_on_the_line_counts() {
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
    fn scan_takes_files_around_its_options() {
        let files = |arguments| match parse(arguments).command() {
            Command::Scan { files } => files,
            other => panic!("{other:?}"),
        };
        assert_eq!(files("scan x -c a y"), ["x", "y"].map(PathBuf::from));
        assert_eq!(files("-c a scan x"), ["x"].map(PathBuf::from));
        assert_eq!(files("scan -- -c"), ["-c"].map(PathBuf::from));
        assert!(Cli::try_parse_from(["mcs", "scan"]).is_err());
    }

    #[test]
    fn what_is_not_known_is_refused() {
        for arguments in [["mcs", "srve"], ["mcs", "--prot"], ["mcs", "-c"]] {
            let error = Cli::try_parse_from(arguments).unwrap_err();
            assert_eq!(error.exit_code(), 2, "{arguments:?}");
        }
    }

    #[test]
    fn help_tells_the_environment_and_the_exit_codes() {
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
    fn the_default_file_is_read_only_where_it_is() {
        let folder = tempfile::tempdir().unwrap();
        let default = folder.path().join("config.toml");
        assert_eq!(parse("").config_or(&default), None);
        assert_eq!(parse("-c a").config_or(&default), Some("a".into()));
        fs::write(&default, "").unwrap();
        assert_eq!(parse("").config_or(&default), Some(default.clone()));
        assert_eq!(parse("-c a").config_or(&default), Some("a".into()));
    }
}
