//! Program entry point: dispatches to the sandbox helper, parses arguments and configuration, and runs the
//! subcommand.
#![forbid(unsafe_code)]

mod cli;

use std::{
    error::Error,
    ffi::OsString,
    fmt,
    io::{self, Write},
    num::NonZero,
    path::{Path, PathBuf},
    process::ExitCode,
    sync::Arc,
    thread,
};

use cli::{
    arguments::{self, Cli, CliCommand, EXIT_CONFIG},
    hints, signals,
};
use matrix_content_scanner::{
    app::{
        self, ReadConfig, Reload, SandboxEnv, ServiceContext, StartError,
        limits::{BLOCKING_THREAD_KEEP_ALIVE, check_threads},
        service_manager::{self, ServiceManager},
    },
    chain::Chain,
    config::{self, Config, Warning},
    keys::RequestKey,
    logging::{self, LevelHandle},
    scan::{Verdict, canary::Canary, trial::Trial},
    terminal::{BAD, ColorMode, GOOD, NOTE, Painter, Terminal, with_progress},
    text::escape_untrusted,
};
use mcs_filetype::Detector;
use mcs_migrate::{Rejection, RemarkKind};
use mcs_sandbox::Termination;

/// Maximum number of threads for blocking work: files and name lookups. Together with the runtime's own threads fewer than
/// the 512 tasks that the sandbox leaves to the service.
const MAX_BLOCKING_THREADS: usize = 384;

fn main() -> ExitCode {
    // First, since this process may be a sandbox helper.
    mcs_sandbox::dispatch();
    // Or the rule evaluator, started by such a helper.
    mcs_evaluator::dispatch();
    // Before keys or tokens are in memory: prevents core dumps, and tracing by other processes of the same user.
    // PR_SET_DUMPABLE(2const).
    if let Err(error) = nix::sys::prctl::set_dumpable(false) {
        return failed(ColorMode::default().terminal(), &io::Error::from(error));
    }
    // Files of the service are private unless it sets their mode explicitly. Without this, a umask that denies access to
    // the owner would lock an unprivileged service out of its own directories. umask(2).
    nix::sys::stat::umask(nix::sys::stat::Mode::from_bits_truncate(0o077));
    let processors = thread::available_parallelism().map_or(1, NonZero::get);
    // One arena for each runtime thread and each busy blocking thread; more would not reduce contention.
    mcs_sandbox::limit_malloc_arenas(2 * processors);
    let cli = Cli::from_arguments();
    let terminal = cli.terminal();
    if let CliCommand::Migrate { file, output, base } = cli.command() {
        return migrate(&file, output.as_deref(), base.as_deref());
    }
    let file = cli.config_file();
    let (config, warnings) = match Config::load(file.as_deref(), std::env::vars_os()) {
        Ok(loaded) => loaded,
        Err(errors) => {
            for problem in errors.problems() {
                eprintln!("{}", escape_untrusted(problem));
            }
            print_hint(terminal.stderr, hints::for_config(file.as_deref()));
            return ExitCode::from(EXIT_CONFIG);
        }
    };
    // The runtime's own threads, one for blocking work and one for the log or the audit log.
    if let Err(error) = check_threads(processors + 2) {
        return failed(terminal, &StartError::from(error));
    }
    let level = logging::init(&config.log, terminal.stderr.is_enabled());
    let command = cli.command();
    // While the process is single-threaded, since this removes environment variables.
    let socket = match command {
        CliCommand::Serve => service_manager::take_passed_socket(),
        _ => Ok(None),
    };
    let socket = match socket {
        Ok(socket) => socket,
        Err(error) => return failed(terminal, &error),
    };
    let mut runtime = tokio::runtime::Builder::new_multi_thread();
    // Set explicitly: otherwise Tokio reads TOKIO_WORKER_THREADS and panics if it is invalid.
    runtime.worker_threads(processors).max_blocking_threads(MAX_BLOCKING_THREADS).enable_all();
    runtime.thread_keep_alive(BLOCKING_THREAD_KEEP_ALIVE);
    let runtime = match runtime.build() {
        Ok(runtime) => runtime,
        Err(error) => return failed(terminal, &error),
    };
    match command {
        CliCommand::Serve => {
            let manager = ServiceManager::from_environment(std::env::vars_os());
            let read = Arc::new(move || Config::load(file.as_deref(), std::env::vars_os()));
            let serving =
                serve(terminal, config, &warnings, ServiceContext { manager, socket }, read, level);
            runtime.block_on(serving)
        }
        CliCommand::CheckConfig => runtime.block_on(check_config(terminal, &config, &warnings)),
        CliCommand::Scan { files } => runtime.block_on(scan(terminal, &config, &files)),
        CliCommand::Sandbox { command } => runtime.block_on(sandbox(terminal, &config, &command)),
        CliCommand::PublicKey => public_key(terminal, &config),
        // Handled above, since it needs no configuration.
        CliCommand::Migrate { .. } => ExitCode::SUCCESS,
    }
}

async fn serve(
    terminal: Terminal,
    config: Config,
    warnings: &[Warning],
    context: ServiceContext,
    read: Arc<ReadConfig>,
    level: LevelHandle,
) -> ExitCode {
    for warning in warnings {
        tracing::warn!("{warning}");
    }
    let signals =
        signals::StopSignals::new().and_then(|stop| Ok((stop, signals::reload_signal()?)));
    let (stop, reload) = match signals {
        Ok(signals) => signals,
        Err(error) => return failed(terminal, &error),
    };
    match app::serve(config, context, Reload { requested: reload, read, level }, stop.received())
        .await
    {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => failed(terminal, &error),
    }
}

async fn check_config(terminal: Terminal, config: &Config, warnings: &[Warning]) -> ExitCode {
    // Does not generate a missing key: the check has no side effects.
    let (key, notices) = match RequestKey::load_existing(&config.crypto) {
        Ok(Some((_key, notices))) => (String::new(), notices),
        Ok(None) => (arguments::missing_key_notice(terminal.stdout, &config.crypto), vec![]),
        Err(error) => return failed(terminal, &StartError::from(error)),
    };
    let mut out = io::stdout().lock();
    let result = arguments::print_config(&mut out, terminal.stdout, config, warnings, &notices)
        .and_then(|()| write!(out, "{key}"))
        .and_then(|()| out.flush());
    if let Err(error) = result {
        return failed(terminal, &error);
    }
    let detector = match Detector::new() {
        Ok(detector) => Arc::new(detector),
        Err(error) => return failed(terminal, &StartError::from(error)),
    };
    for name in app::unknown_types(config, &detector) {
        let text = format!("{name}: no file is ever detected as this type");
        print_line(arguments::note(terminal.stdout, &text));
    }
    let sandbox_env = match SandboxEnv::for_command(config, None).await {
        Ok(sandbox_env) => sandbox_env,
        Err(error) => return failed(terminal, &error),
    };
    print_line("\n# sandbox:");
    for (layer, state) in sandbox_env.sandbox.layers().states() {
        print_line(arguments::layer_line(terminal.stdout, layer, &state));
    }
    let limits = sandbox_env.sandbox.limits();
    print_line(arguments::limits_line(limits));
    for text in &limits.notes {
        print_line(arguments::note(terminal.stdout, text));
    }
    let engines = match app::remote_engines(config).await {
        Ok(engines) => engines,
        Err(error) => return failed(terminal, &StartError::from(error)),
    };
    if let Some(rules) = config.scan.rules() {
        let (count, ignored) = (rules.rules.names().len(), rules.ignore.len());
        print_line(format_args!("# rules: {count}, {ignored} of them ignored"));
    }
    for (engine, version) in engines.versions() {
        let version = version.as_deref().unwrap_or("unknown version");
        print_line(escape_untrusted(format_args!("# {engine}: {version}")));
    }
    let Some(canary) = config.scan.canary.clone() else { return ExitCode::SUCCESS };
    let scanner = match app::scan_context(config, &sandbox_env, detector, &engines) {
        Ok(scanner) => scanner,
        Err(error) => return failed(terminal, &StartError::from(error)),
    };
    match Canary::new(scanner, canary).check().await {
        Ok(()) => {
            let text =
                "# canary: every engine detects the infected sample and passes the clean one";
            print_line(terminal.stdout.paint(GOOD, text));
            ExitCode::SUCCESS
        }
        Err(error) => {
            let code = failed(terminal, &error);
            print_hint(terminal.stderr, Some(hints::for_canary(&error, config)));
            code
        }
    }
}

/// Exit code by the worst result: 2 failed, 1 not clean, 0 clean.
async fn scan(terminal: Terminal, config: &Config, files: &[PathBuf]) -> ExitCode {
    let ready = async {
        let engines = app::remote_engines(config).await?;
        let sandbox_env = SandboxEnv::for_command(config, None).await?;
        let detector = Detector::new()?;
        let scanner = app::scan_context(config, &sandbox_env, Arc::new(detector), &engines)?;
        Ok::<_, StartError>((scanner, sandbox_env))
    };
    let scanner = ready.await;
    let (scanner, _sandbox_env) = match scanner {
        Ok(ready) => ready,
        Err(error) => {
            failed(terminal, &error);
            return ExitCode::from(2);
        }
    };
    let mut worst = 0;
    for (index, file) in files.iter().enumerate() {
        let size = file.metadata().map_or(0, |metadata| metadata.len());
        let description = format!(
            "scanning {} of {}, {} ({})",
            index.saturating_add(1),
            files.len(),
            escape_untrusted(file.display()),
            bytesize::ByteSize(size)
        );
        let verdict = with_progress(&description, scanner.scan_file(file)).await;
        print_line(arguments::verdict_line(terminal.stdout, file, &verdict));
        worst = worst.max(match verdict {
            Ok(Verdict::Clean { .. }) => 0,
            Ok(Verdict::NotClean { .. } | Verdict::TypeForbidden { .. }) => 1,
            Err(_) => 2,
        });
    }
    ExitCode::from(worst)
}

/// Exit code: 2 if the command did not run, 1 if it failed, 0 if it succeeded.
async fn sandbox(terminal: Terminal, config: &Config, command: &[OsString]) -> ExitCode {
    let not_run = |error: &(dyn Error + 'static)| {
        failed(terminal, error);
        ExitCode::from(2)
    };
    let ([program, args @ ..], Some(file)) =
        (command.split_last().map_or(command, |(_, words)| words), command.last())
    else {
        return ExitCode::from(2);
    };
    // A bare name is searched for in the PATH of the sandbox.
    let mut program = PathBuf::from(program);
    let is_path = program.components().count() > 1;
    if is_path && let Ok(absolute) = std::path::absolute(&program) {
        program = absolute;
    }
    let sandbox_env = match SandboxEnv::for_command(config, is_path.then_some(&*program)).await {
        Ok(sandbox_env) => sandbox_env,
        Err(error) => return not_run(&error),
    };
    let trial = Trial { program, args: args.to_vec(), file: file.into() };
    let run =
        trial.run(&sandbox_env.sandbox, sandbox_env.directory.path(), config.scan.timeout).await;
    match run {
        Ok((exit, refused)) => {
            let mut out = io::stdout().lock();
            match arguments::print_trial(&mut out, sandbox_env.sandbox.layers(), &exit, &refused) {
                Ok(()) if exit.termination == Termination::Exited(0) => ExitCode::SUCCESS,
                Ok(()) => ExitCode::FAILURE,
                Err(error) => failed(terminal, &error),
            }
        }
        Err(error) => not_run(&error),
    }
}

/// Exit code: 1 if nothing was written, 78 if a setting needs a decision, 0 otherwise.
fn migrate(file: &Path, output: Option<&Path>, base: Option<&Path>) -> ExitCode {
    let validate = |toml: &str, base: &Path| {
        let problems = config::problems(toml, base).into_iter();
        problems.map(|problem| Rejection { key: problem.key, message: problem.message }).collect()
    };
    let migrated = match mcs_migrate::migrate_file(file, base, &validate) {
        Ok(migrated) => migrated,
        Err(error) => {
            let line = format_args!("error: {}: {}", file.display(), Chain(&error));
            eprintln!("{}", escape_untrusted(line));
            return ExitCode::FAILURE;
        }
    };
    if let Err(error) = arguments::write_new(output, &migrated.toml) {
        let target = output.map_or_else(|| "standard output".into(), Path::to_string_lossy);
        eprintln!("{}", escape_untrusted(format_args!("error: cannot write {target}: {error}")));
        return ExitCode::FAILURE;
    }
    for remark in &migrated.remarks {
        eprintln!("{}", escape_untrusted(format_args!("{}: {remark}", file.display())));
    }
    let open = migrated.remarks.iter().filter(|remark| remark.kind == RemarkKind::Mistake).count();
    if open == 0 { ExitCode::SUCCESS } else { ExitCode::from(EXIT_CONFIG) }
}

fn public_key(terminal: Terminal, config: &Config) -> ExitCode {
    match RequestKey::load(&config.crypto) {
        Ok((key, notices)) => {
            for notice in notices {
                eprintln!("{}", escape_untrusted(notice));
            }
            match arguments::print_public_key(&mut io::stdout().lock(), &key) {
                Ok(()) => ExitCode::SUCCESS,
                Err(error) => failed(terminal, &error),
            }
        }
        Err(error) => failed(terminal, &StartError::from(error)),
    }
}

/// Prints a line. Errors such as a closed pipe are ignored; the exit code still reports the result.
fn print_line(line: impl fmt::Display) {
    let _ignored = writeln!(io::stdout(), "{line}");
}

/// Reports the error. Exit code: 78 if a restart without a change by the operator is useless.
fn failed(terminal: Terminal, error: &(dyn Error + 'static)) -> ExitCode {
    eprintln!("{}: {}", terminal.stderr.paint(BAD, "error"), escape_untrusted(Chain(error)));
    print_hint(terminal.stderr, hints::for_error(error));
    if error.downcast_ref().is_some_and(StartError::is_configuration) {
        ExitCode::from(EXIT_CONFIG)
    } else {
        ExitCode::FAILURE
    }
}

/// Prints the hint, if any.
fn print_hint(painter: Painter, text: Option<String>) {
    if let Some(text) = text {
        eprintln!("{}: {}", painter.paint(NOTE, "hint"), escape_untrusted(text));
    }
}
