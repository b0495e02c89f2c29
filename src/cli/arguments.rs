//! Definition of the command line.

use std::{
    ffi::OsString,
    fs, io,
    path::{Path, PathBuf},
    process,
    time::Duration,
};

use clap::{Args, Parser, Subcommand};
use clap_complete::Shell;

use super::output::{ColorMode, Terminal};
use crate::{
    http::Listen,
    media::{MediaId, is_user_id, parse_hex},
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
      could not be asked, or refused; `doctor`: broken
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

/// Listener of the running service, in place of the configured one.
#[derive(Clone, PartialEq, Eq, Debug, Args)]
pub(super) struct ServiceAddress {
    /// Socket of the service, instead of the configured address
    #[arg(long, value_name = "PATH", global = true, conflicts_with = "address")]
    socket: Option<PathBuf>,
    /// Address of the service, instead of the configured one
    #[arg(long, value_name = "HOST:PORT", global = true, value_parser = parse_address)]
    address: Option<TcpAddress>,
    /// File with the token, instead of `admin.token_path`
    #[arg(long, value_name = "FILE", global = true)]
    pub(super) token_path: Option<PathBuf>,
    /// Print JSON
    #[arg(long, global = true)]
    pub(super) json: bool,
}

type TcpAddress = (String, u16);

/// Subcommands of `store`.
#[derive(Clone, PartialEq, Eq, Debug, Subcommand)]
pub(super) enum StoreCommand {
    /// List verdicts, the latest scans first
    List {
        /// Only what is not clean
        #[arg(long)]
        not_clean: bool,
        /// Only scans of this time until now, e.g. 90min or 1d
        #[arg(long, value_name = "TIME", value_parser = humantime::parse_duration)]
        since: Option<Duration>,
        /// Maximum number of verdicts
        #[arg(long, value_name = "N", default_value_t = 100, value_parser = clap::value_parser!(u16).range(1..=10_000))]
        limit: u16,
    },
    /// Show what is known about a media URI, or about a content
    Show {
        /// Media URI, or SHA-256 of the decrypted file
        #[arg(value_name = "MXC|SHA256", value_parser = parse_subject)]
        subject: StoreSubject,
    },
    /// Have verdicts forgotten, so that the next request scans again
    ///
    /// A media URI stands for all of its thumbnails and decrypted variants, and for the verdicts on their contents. Scans in
    /// progress are not kept. The exit code is 1 if nothing was known.
    Forget {
        /// Media URI, or SHA-256 of the decrypted file
        #[arg(value_name = "MXC|SHA256", value_parser = parse_subject, required_unless_present = "all")]
        subject: Option<StoreSubject>,
        /// Forget all verdicts and media
        #[arg(long, conflicts_with = "subject")]
        all: bool,
        /// Reason, for the audit log
        #[arg(long, value_name = "TEXT")]
        comment: Option<String>,
    },
    /// Have media forgotten, and scan it again now
    ///
    /// Only unencrypted media: the key of encrypted media is known to clients alone. The exit code is 1 if the file is not
    /// clean or the scan failed.
    Rescan {
        /// Media URI, or SHA-256 of the file
        #[arg(value_name = "MXC|SHA256", value_parser = parse_subject)]
        subject: StoreSubject,
        /// File with an access token for the homeserver, if the homeserver requires one for media
        #[arg(long, value_name = "FILE")]
        access_token_path: Option<PathBuf>,
        /// Name in `download.homeservers`, if there is no base URL
        #[arg(long, value_name = "NAME")]
        host: Option<String>,
        /// Reason, for the audit log
        #[arg(long, value_name = "TEXT")]
        comment: Option<String>,
    },
    /// List the latest verdicts that requests led to, of this process
    Recent {
        /// Only what is not clean or failed
        #[arg(long)]
        not_clean: bool,
        /// Maximum number of verdicts
        #[arg(long, value_name = "N", default_value_t = 100, value_parser = clap::value_parser!(u16).range(1..=500))]
        limit: u16,
    },
    /// Allow a file, whatever the engines find
    ///
    /// Applies to the file that a client requests, on all replicas, not to the same file inside an archive.
    Allow(DecisionArguments),
    /// Block a file
    ///
    /// Applies to the file that a client requests, on all replicas, not to the same file inside an archive.
    Block(DecisionArguments),
    /// Withdraw the decision to allow or block a file
    Withdraw {
        /// SHA-256 of the decrypted file
        #[arg(value_name = "SHA256", value_parser = parse_content)]
        content: String,
        /// Reason, for the audit log
        #[arg(long, value_name = "TEXT")]
        comment: String,
    },
    /// List the files that operators have allowed or blocked
    Decisions,
}

#[derive(Clone, PartialEq, Eq, Debug, clap::Args)]
pub(super) struct DecisionArguments {
    /// SHA-256 of the decrypted file
    #[arg(value_name = "SHA256", value_parser = parse_content)]
    pub(super) content: String,
    /// Reason, for the list and the audit log
    #[arg(long, value_name = "TEXT")]
    pub(super) comment: String,
    /// Time until the decision ends, e.g. 12h or 90d; at most 366d
    #[arg(long = "for", value_name = "TIME", default_value = "30d", value_parser = humantime::parse_duration)]
    pub(super) duration: Duration,
}

/// What `store` is about.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum StoreSubject {
    /// SHA-256 in hexadecimal digits.
    Content(String),
    /// Media URI.
    Media(String),
}

impl StoreSubject {
    /// Returns the content or the media URI.
    pub(super) fn parts(self) -> (Option<String>, Option<String>) {
        match self {
            Self::Content(content) => (Some(content), None),
            Self::Media(mxc) => (None, Some(mxc)),
        }
    }
}

fn parse_content(text: &str) -> Result<String, String> {
    match parse_subject(text) {
        Ok(StoreSubject::Content(content)) => Ok(content),
        _ => {
            Err("expected a SHA-256 of 64 hexadecimal digits; `store show MXC` names it".to_owned())
        }
    }
}

fn parse_subject(text: &str) -> Result<StoreSubject, String> {
    if text.starts_with("mxc://") {
        let media = MediaId::from_mxc(text).map_err(|error| error.to_string())?;
        return Ok(StoreSubject::Media(media.to_string()));
    }
    match parse_hex::<32>(text) {
        Some(_) => Ok(StoreSubject::Content(text.to_ascii_lowercase())),
        None => Err("expected mxc://SERVER/ID, or 64 hexadecimal digits".to_owned()),
    }
}

fn parse_address(text: &str) -> Result<TcpAddress, String> {
    let address = text.rsplit_once(':').and_then(|(host, port)| {
        let literal = host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
        Some((literal.unwrap_or(host).to_owned(), port.parse().ok()?))
    });
    address.filter(|(host, _)| !host.is_empty()).ok_or_else(|| "expected HOST:PORT".to_owned())
}

impl ServiceAddress {
    /// Returns the address in the arguments.
    pub(super) fn listen(&self) -> Option<Listen> {
        let tcp = |(host, port): &TcpAddress| Listen::Tcp { host: host.clone(), port: *port };
        self.socket.clone().map(Listen::Unix).or_else(|| self.address.as_ref().map(tcp))
    }
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
