//! Arguments of the commands that ask the running service.

use std::{path::PathBuf, time::Duration};

use clap::{Args, Subcommand};

use crate::{
    admin::protocol::MAX_DECISION_TIME,
    http::Listen,
    media::{MediaId, parse_hex},
};

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
    /// List incidents, the latest first, with the states of their steps
    ///
    /// Lists the incidents that wait, and the latest 200 that this process has finished.
    Incidents {
        /// Only incidents with steps that are not done
        #[arg(long)]
        waiting: bool,
        /// Only incidents that are finished
        #[arg(long, conflicts_with = "waiting")]
        finished: bool,
        /// Maximum number of incidents
        #[arg(long, value_name = "N", default_value_t = 100, value_parser = clap::value_parser!(u16).range(1..=500))]
        limit: u16,
        /// Continue after an earlier list, which names this position
        #[arg(long, value_name = "POSITION")]
        after: Option<String>,
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

/// Subcommands of `quarantine`.
#[derive(Clone, PartialEq, Eq, Debug, Subcommand)]
pub(super) enum QuarantineCommand {
    /// Have media released, and check that the homeserver has done so
    ///
    /// For homeservers with the admin API of Synapse. Unless its content is allowed, the next incident quarantines the media
    /// again.
    Release(ReleaseArguments),
}

#[derive(Clone, PartialEq, Eq, Debug, Args)]
pub(super) struct ReleaseArguments {
    /// Media URI
    #[arg(value_name = "MXC", value_parser = parse_mxc)]
    pub(super) mxc: String,
    /// Reason, for the audit log
    #[arg(long, value_name = "TEXT")]
    pub(super) comment: String,
    /// Allow the infected content of the media first, as `store allow` does, if it is one
    #[arg(long)]
    pub(super) allow: bool,
    /// Time until the decision of --allow ends, e.g. 12h or 90d; at most 366d
    #[arg(long = "for", value_name = "TIME", default_value = "30d", value_parser = parse_decision_time)]
    pub(super) duration: Duration,
}

#[derive(Clone, PartialEq, Eq, Debug, Args)]
pub(super) struct DecisionArguments {
    /// SHA-256 of the decrypted file
    #[arg(value_name = "SHA256", value_parser = parse_content)]
    pub(super) content: String,
    /// Reason, for the list and the audit log
    #[arg(long, value_name = "TEXT")]
    pub(super) comment: String,
    /// Time until the decision ends, e.g. 12h or 90d; at most 366d
    #[arg(long = "for", value_name = "TIME", default_value = "30d", value_parser = parse_decision_time)]
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

/// Parses the duration of a decision.
fn parse_decision_time(text: &str) -> Result<Duration, String> {
    let time = humantime::parse_duration(text).map_err(|error| error.to_string())?;
    if time < Duration::from_secs(1) || time > MAX_DECISION_TIME {
        return Err("expected a time of 1s to 366d".to_owned());
    }
    Ok(time)
}

fn parse_mxc(text: &str) -> Result<String, String> {
    match parse_subject(text) {
        Ok(StoreSubject::Media(mxc)) => Ok(mxc),
        _ => Err("expected mxc://SERVER/ID".to_owned()),
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
