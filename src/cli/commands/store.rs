//! `store`: asks the running service what it knows about media and contents, and has verdicts forgotten.

use std::{
    env,
    ffi::OsString,
    fs,
    io::{self, Write as _},
    path::Path,
    process::ExitCode,
    time::Duration,
};

use serde::Serialize;
use url::form_urlencoded;

use crate::{
    admin::{
        protocol::{
            ContentReply, DecisionRequest, DecisionsReply, ForgetReply, ForgetRequest,
            IncidentsReply, MediaReply, RecentReply, RescanReply, RescanRequest, VerdictsReply,
        },
        token,
    },
    cli::{
        admin_client::AdminClient,
        arguments::Cli,
        error::CommandError,
        incident_output::print_incidents,
        service_arguments::{DecisionArguments, ServiceAddress, StoreCommand, StoreSubject},
        setup::start_runtime,
        store_output::{
            print_content, print_decided, print_decisions, print_forgotten, print_media,
            print_recent, print_rescanned, print_verdicts,
        },
    },
    config::Config,
    http::Listen,
    text::escape_json,
};

/// Exit code if nothing is known about the subject.
const EXIT_UNKNOWN: u8 = 1;

/// Runtime directory of the package's unit, which the environment of a shell does not name.
const RUNTIME_DIRECTORY: (&str, &str) = ("RUNTIME_DIRECTORY", "/run/matrix-content-scanner");

pub(crate) fn run(
    cli: &Cli,
    address: &ServiceAddress,
    command: StoreCommand,
) -> Result<ExitCode, CommandError> {
    let client = client(cli, address)?;
    start_runtime()?.block_on(ask(cli, &client, address.json, command))
}

async fn ask(
    cli: &Cli,
    client: &AdminClient,
    json: bool,
    command: StoreCommand,
) -> Result<ExitCode, CommandError> {
    let painter = cli.terminal().stdout;
    let is_known = match command {
        StoreCommand::List { not_clean, since, limit } => {
            let reply: VerdictsReply = client.get(&list_path(not_clean, since, limit)).await?;
            print(json, &reply, || print_verdicts(painter, &reply))?;
            true
        }
        StoreCommand::Show { subject: StoreSubject::Content(content) } => {
            let reply: ContentReply = client.get(&format!("/v1/contents/{content}")).await?;
            print(json, &reply, || print_content(painter, &reply))?;
            !reply.verdicts.is_empty() || !reply.media.is_empty() || reply.listed.is_some()
        }
        StoreCommand::Show { subject: StoreSubject::Media(mxc) } => {
            let reply: MediaReply = client.get(&media_path(&mxc)).await?;
            print(json, &reply, || print_media(painter, &reply))?;
            !reply.media.is_empty()
        }
        StoreCommand::Forget { subject, all, comment } => {
            let (content, mxc) = subject.map(StoreSubject::parts).unwrap_or_default();
            let request = ForgetRequest { content, mxc, all: all.then_some(true), comment };
            let reply: ForgetReply = client.post("/v1/forget", &request).await?;
            print(json, &reply, || print_forgotten(reply, all))?;
            all || reply.pending || reply.verdicts > 0 || reply.media > 0
        }
        StoreCommand::Rescan { subject, access_token_path, host, comment } => {
            let (content, mxc) = subject.parts();
            let access_token = access_token_path.as_deref().map(read_access_token).transpose()?;
            let request = RescanRequest { content, mxc, access_token, host, comment };
            let reply: RescanReply = client.post("/v1/rescan", &request).await?;
            print(json, &reply, || print_rescanned(painter, &reply))?;
            reply.verdict == "clean"
        }
        StoreCommand::Recent { not_clean, limit } => {
            let path = format!("/v1/recent?not_clean={not_clean}&limit={limit}");
            let reply: RecentReply = client.get(&path).await?;
            print(json, &reply, || print_recent(painter, &reply))?;
            true
        }
        StoreCommand::Incidents { waiting, finished, limit, after } => {
            let path = incidents_path(waiting, finished, limit, after.as_deref());
            let reply: IncidentsReply = client.get(&path).await?;
            print(json, &reply, || print_incidents(painter, &reply))?;
            true
        }
        StoreCommand::Allow(arguments) => decide(client, json, "allow", arguments).await?,
        StoreCommand::Block(arguments) => decide(client, json, "block", arguments).await?,
        StoreCommand::Withdraw { content, comment } => {
            let action = "withdraw".to_owned();
            let request = DecisionRequest { content, action, comment, seconds: None };
            change_decisions(client, json, &request).await?
        }
        StoreCommand::Decisions => {
            let reply: DecisionsReply = client.get("/v1/decisions").await?;
            print(json, &reply, || print_decisions(painter, &reply))?;
            true
        }
    };
    Ok(if is_known { ExitCode::SUCCESS } else { ExitCode::from(EXIT_UNKNOWN) })
}

/// Returns the token in a file: its content without the line end.
fn read_access_token(path: &Path) -> io::Result<String> {
    let token = fs::read_to_string(path)
        .map_err(|error| io::Error::new(error.kind(), format!("{}: {error}", path.display())))?;
    Ok(token.trim().to_owned())
}

async fn decide(
    client: &AdminClient,
    json: bool,
    action: &str,
    arguments: DecisionArguments,
) -> Result<bool, CommandError> {
    let DecisionArguments { content, comment, duration } = arguments;
    let (action, seconds) = (action.to_owned(), Some(duration.as_secs()));
    change_decisions(client, json, &DecisionRequest { content, action, comment, seconds }).await
}

async fn change_decisions(
    client: &AdminClient,
    json: bool,
    request: &DecisionRequest,
) -> Result<bool, CommandError> {
    let reply: DecisionsReply = client.post("/v1/decisions", request).await?;
    print(json, &reply, || print_decided(request, &reply))?;
    Ok(true)
}

/// Prints the reply as JSON, or by `text`.
pub(super) fn print(
    json: bool,
    reply: &impl Serialize,
    text: impl FnOnce() -> io::Result<()>,
) -> io::Result<()> {
    if json {
        let reply = serde_json::to_string_pretty(reply).map_err(io::Error::other)?;
        // Line ends of the layout; those in texts are escapes already.
        let lines: Vec<_> = reply.lines().map(escape_json).collect();
        writeln!(io::stdout(), "{}", lines.join("\n"))
    } else {
        text()
    }
}

fn media_path(mxc: &str) -> String {
    let mut query = form_urlencoded::Serializer::new(String::new());
    format!("/v1/media?{}", query.append_pair("mxc", mxc).finish())
}

fn incidents_path(waiting: bool, finished: bool, limit: u16, after: Option<&str>) -> String {
    let mut query = form_urlencoded::Serializer::new(String::new());
    query.append_pair("limit", &limit.to_string());
    if waiting || finished {
        query.append_pair("state", if waiting { "waiting" } else { "finished" });
    }
    if let Some(after) = after {
        query.append_pair("after", after);
    }
    format!("/v1/incidents?{}", query.finish())
}

fn list_path(not_clean: bool, since: Option<Duration>, limit: u16) -> String {
    let mut query = form_urlencoded::Serializer::new(String::new());
    query.append_pair("limit", &limit.to_string());
    if not_clean {
        query.append_pair("not_clean", "true");
    }
    if let Some(since) = since {
        query.append_pair("since", &since.as_secs().to_string());
    }
    format!("/v1/verdicts?{}", query.finish())
}

/// Returns a client for the address and token in the arguments, or in the configuration.
pub(super) fn client(cli: &Cli, given: &ServiceAddress) -> Result<AdminClient, CommandError> {
    let address = given.listen();
    let (address, token_path) = match (address, &given.token_path) {
        (Some(address), Some(token_path)) => (address, token_path.clone()),
        (address, token_path) => {
            let file = cli.config_file();
            let settings = Config::load_admin(file.as_deref(), environment());
            let settings = settings.map_err(|errors| CommandError::Config { file, errors })?;
            let settings = settings.ok_or(CommandError::AdminOff)?;
            let token_path = token_path.clone().unwrap_or(settings.token_path);
            (address.unwrap_or_else(|| local(settings.listen)), token_path)
        }
    };
    let token = token::read_for_client(Path::new(&token_path))?;
    Ok(AdminClient { address, token })
}

/// Returns the environment with a runtime directory.
fn environment() -> impl Iterator<Item = (OsString, OsString)> {
    let (name, default) = RUNTIME_DIRECTORY;
    let default = env::var_os(name).is_none().then(|| (name.into(), default.into()));
    env::vars_os().chain(default)
}

/// Returns the address to connect to for an address to listen on.
fn local(listen: Listen) -> Listen {
    match listen {
        Listen::Tcp { host, port } => {
            let host = match &*host {
                "0.0.0.0" => "127.0.0.1".to_owned(),
                "::" => "::1".to_owned(),
                _ => host,
            };
            Listen::Tcp { host, port }
        }
        Listen::Unix(path) => Listen::Unix(path),
    }
}
