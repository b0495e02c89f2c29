//! Definition of the command line.

use std::{
    ffi::OsString,
    fs, io,
    path::{Path, PathBuf},
    process,
};

use clap::{Args, Parser, Subcommand};
use clap_complete::Shell;

use super::{
    output::{ColorMode, Terminal},
    service_arguments::{QuarantineCommand, ServiceAddress, StoreCommand},
};
use crate::{
    media::is_user_id,
    text::{escape_untrusted, is_control_or_bidi},
};

/// Path of the configuration file in packages.
pub(super) const DEFAULT_CONFIG: &str = "/etc/matrix-content-scanner/config.toml";

/// `EX_CONFIG` of sysexits(3).
pub(super) const EXIT_CONFIG: u8 = 78;

/// `EX_TEMPFAIL` of sysexits(3).
pub(super) const EXIT_TEMPORARY: u8 = 75;

const ENVIRONMENT_AND_EXIT_CODES: &str = "\
Environment:
  MCS_<SECTION>__<KEY>  overrides that key of the configuration, e.g. MCS_WEB__PORT=8081 or
                        MCS_SCAN__FAILURE_EXIT_CODES='[2, 126, 127]'; an empty value unsets it
  SSL_CERT_FILE         file with trusted certificates, instead of the system's

Exit codes:
  0   success; `scan`: every file is clean; `sandbox`: the command exited with 0
  1   failure; `scan`: a file is not clean; `sandbox`: the command ended in another way;
      `store`: nothing is known about the media or content; `doctor`: degraded
  2   invalid command line; `scan`, `sandbox`: a file could not be scanned; `store`: the service
      could not be asked, or refused, as with `quarantine`; `doctor`: broken
  75  the request key or another secret is missing or cannot be read
  78  invalid configuration, or a wrong key; `check-config`: a wrong response at a homeserver's
      address; `migrate`: written, but it needs a decision by the operator";

/// Scans media on a Matrix content repository before people download it.
#[derive(Debug, Parser)]
// A fixed width: otherwise clap reads the environment variable COLUMNS.
#[command(version, after_help = ENVIRONMENT_AND_EXIT_CODES, args_override_self = true, term_width = 100)]
pub struct Cli {
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
pub(super) enum CliCommand {
    /// Run the service (the default)
    #[default]
    Serve,
    /// Check the configuration, and test the sandbox, the engines and the homeservers
    ///
    /// Prints notes on probable mistakes, then OK. Errors are all reported at once.
    CheckConfig(CheckArguments),
    /// Examine everything that the service needs, for operators and monitoring
    ///
    /// Examines the configuration, secrets, disk space, homeservers with their certificates and clocks, the store, the
    /// engines with the age of their signatures, the sandbox and the canary. Needs no running service. Finishes within a
    /// minute. Exit code: 0 well, 1 degraded, 2 broken.
    Doctor {
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
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
    /// Print the hash that stands for a user in the audit log (audit.user = "hash")
    UserHash {
        /// User ID
        #[arg(value_name = "@USER:SERVER", value_parser = parse_user_id)]
        user: String,
    },
    /// Write a new request key to a file, and print its public key
    ///
    /// The file has mode 0600 and belongs to the user who runs the command. An existing file is never overwritten.
    GenerateKey {
        /// New file, in an existing directory
        #[arg(value_name = "FILE")]
        file: PathBuf,
    },
    /// Print the completions of a shell
    Completions {
        /// Shell
        #[arg(value_name = "SHELL")]
        shell: Shell,
    },
    /// Ask the running service what it knows about media, or have verdicts forgotten
    ///
    /// Needs the listener `[admin]` of the service. Its address and token are those of the configuration.
    Store {
        #[command(flatten)]
        address: ServiceAddress,
        #[command(subcommand)]
        command: StoreCommand,
    },
    /// Have the homeserver release media from quarantine
    ///
    /// Needs the listener `[admin]` of the service. Its address and token are those of the configuration.
    Quarantine {
        #[command(flatten)]
        address: ServiceAddress,
        #[command(subcommand)]
        command: QuarantineCommand,
    },
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

fn parse_user_id(text: &str) -> Result<String, &'static str> {
    if is_user_id(text) { Ok(text.to_owned()) } else { Err("expected @USER:SERVER") }
}

/// Arguments of `check-config`.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Args)]
pub(super) struct CheckArguments {
    /// Print the effective configuration and all results too; the output is a valid configuration file
    #[arg(long)]
    pub(super) show: bool,
    /// Make no requests to homeservers
    #[arg(long)]
    pub(super) offline: bool,
}

impl Cli {
    /// Parses the program's arguments. On an error, and for `--help`, prints a message and exits.
    pub(super) fn from_arguments() -> Self {
        Self::try_parse().unwrap_or_else(|error| exit_with(&error))
    }

    pub(super) fn command(&self) -> CliCommand {
        self.command.clone().unwrap_or_default()
    }

    pub(super) fn terminal(&self) -> Terminal {
        self.color.terminal()
    }

    /// Returns the configuration file to read, or `None` if none was given and the default one does not exist.
    pub(super) fn config_file(&self) -> Option<PathBuf> {
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
        let check = CliCommand::CheckConfig(CheckArguments::default());
        assert_eq!(parse("check-config").command(), check);
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
