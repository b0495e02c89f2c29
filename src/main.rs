//! The program: a table of contents. The sandbox's helper first, then arguments, configuration, and
//! what was asked for.
#![forbid(unsafe_code)]

mod cli;
mod hint;
mod signals;

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

use cli::{Cli, Command, EXIT_CONFIG};
use matrix_content_scanner::{
    app::{self, Grounds, Manager, Read, Reload, StartError},
    chain::Chain,
    config::{Config, Warning},
    keys::RequestKey,
    logging::{self, Level},
    migrate::{self, RemarkKind},
    scan::{Verdict, canary::Canary, filetype::Detector, trial::Trial},
    service_manager::{self, ServiceManager},
    terminal::{BAD, GOOD, NOTE, Paint, Terminal, When, harmless, with_progress},
};
use mcs_sandbox::Outcome;

fn main() -> ExitCode {
    // Before anything else: this process may be the helper that a script runs in.
    mcs_sandbox::dispatch();
    // Or the evaluator of rules, in such a helper's hands.
    mcs_rules::dispatch();
    // Before there is a key or a token: nobody of the same user may trace this process or read its memory, and no core dump
    // has them. PR_SET_DUMPABLE(2const).
    if let Err(error) = nix::sys::prctl::set_dumpable(false) {
        return failed(When::default().terminal(), &io::Error::from(error));
    }
    let processors = thread::available_parallelism().map_or(1, NonZero::get);
    // As many threads answer, and as many hash and write: no more of them want memory at a time.
    mcs_sandbox::keep_heaps(2 * processors);
    let cli = Cli::from_arguments();
    let terminal = cli.terminal();
    if let Command::Migrate { file, output, base } = cli.command() {
        return migrate(&file, output.as_deref(), base.as_deref());
    }
    let file = cli.config_file();
    let (config, warnings) = match Config::load(file.as_deref(), std::env::vars_os()) {
        Ok(loaded) => loaded,
        Err(errors) => {
            for problem in errors.problems() {
                eprintln!("{}", harmless(problem));
            }
            hint(terminal.stderr, hint::of_configuration(file.as_deref()));
            return ExitCode::from(EXIT_CONFIG);
        }
    };
    let level = logging::set_up(&config.log, terminal.stderr.is_on());
    let command = cli.command();
    // While there is one thread: it takes variables out of the environment.
    let socket = match command {
        Command::Serve => service_manager::passed_socket(),
        _ => Ok(None),
    };
    let socket = match socket {
        Ok(socket) => socket,
        Err(error) => return failed(terminal, &error),
    };
    let mut runtime = tokio::runtime::Builder::new_multi_thread();
    // Said, so that no variable of the environment is asked: a wrong one would be a panic.
    runtime.worker_threads(processors).enable_all();
    let runtime = match runtime.build() {
        Ok(runtime) => runtime,
        Err(error) => return failed(terminal, &error),
    };
    match command {
        Command::Serve => {
            let told = ServiceManager::from_environment(std::env::vars_os());
            let read = Arc::new(move || Config::load(file.as_deref(), std::env::vars_os()));
            let serving = serve(terminal, config, &warnings, Manager { told, socket }, read, level);
            runtime.block_on(serving)
        }
        Command::CheckConfig => runtime.block_on(check_config(terminal, &config, &warnings)),
        Command::Scan { files } => runtime.block_on(scan(terminal, &config, &files)),
        Command::Sandbox { command } => runtime.block_on(sandbox(terminal, &config, &command)),
        Command::PublicKey => public_key(terminal, &config),
        // Above: it needs no configuration.
        Command::Migrate { .. } => ExitCode::SUCCESS,
    }
}

async fn serve(
    terminal: Terminal,
    config: Config,
    warnings: &[Warning],
    manager: Manager,
    read: Arc<Read>,
    level: Level,
) -> ExitCode {
    for warning in warnings {
        tracing::warn!("{warning}");
    }
    let signals = signals::Stop::listen().and_then(|stop| Ok((stop, signals::reloads()?)));
    let (stop, asked) = match signals {
        Ok(signals) => signals,
        Err(error) => return failed(terminal, &error),
    };
    match app::serve(config, manager, Reload { asked, read, level }, stop.asked()).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => failed(terminal, &error),
    }
}

async fn check_config(terminal: Terminal, config: &Config, warnings: &[Warning]) -> ExitCode {
    // The key is looked at but never made: checking changes nothing.
    let (key, notices) = match RequestKey::load_existing(&config.crypto) {
        Ok(Some((_key, notices))) => (String::new(), notices),
        Ok(None) => (cli::key_to_be_made(terminal.stdout, &config.crypto), vec![]),
        Err(error) => return failed(terminal, &StartError::from(error)),
    };
    let mut out = io::stdout().lock();
    let printed = cli::print_config(&mut out, terminal.stdout, config, warnings, &notices)
        .and_then(|()| write!(out, "{key}"))
        .and_then(|()| out.flush());
    if let Err(error) = printed {
        return failed(terminal, &error);
    }
    let detector = match Detector::new() {
        Ok(detector) => Arc::new(detector),
        Err(error) => return failed(terminal, &StartError::from(error)),
    };
    for name in app::unknown_types(config, &detector) {
        let word = format!("{name}: no file is ever found to have this type");
        say(cli::note(terminal.stdout, &word));
    }
    let grounds = match Grounds::of_command(config, None).await {
        Ok(grounds) => grounds,
        Err(error) => return failed(terminal, &error),
    };
    say("\n# the sandbox, tried out:");
    for (layer, state) in grounds.sandbox.layers().rows() {
        say(cli::layer_line(terminal.stdout, layer, &state));
    }
    let network = match app::network(config).await {
        Ok(network) => network,
        Err(error) => return failed(terminal, &StartError::from(error)),
    };
    if let Some(rules) = config.scan.rules() {
        let (count, ignored) = (rules.rules.names().len(), rules.ignore.len());
        say(format_args!("# rules: {count}, {ignored} of them ignored"));
    }
    for (engine, version) in network.versions() {
        let version = version.as_deref().unwrap_or("nobody tells a version");
        say(harmless(format_args!("# {engine}: {version}")));
    }
    let Some(canary) = config.scan.canary.clone() else { return ExitCode::SUCCESS };
    let scanner = match app::local_scanner(config, &grounds, detector, &network) {
        Ok(scanner) => scanner,
        Err(error) => return failed(terminal, &StartError::from(error)),
    };
    match Canary::new(scanner, canary).check().await {
        Ok(()) => {
            let word = "# the canary: each engine knows a bad file from a good one";
            say(terminal.stdout.on(GOOD, word));
            ExitCode::SUCCESS
        }
        Err(error) => {
            let code = failed(terminal, &error);
            hint(terminal.stderr, Some(hint::of_canary(&error, config)));
            code
        }
    }
}

/// The exit code says the worst: 2 failed, 1 not clean, 0 clean.
async fn scan(terminal: Terminal, config: &Config, files: &[PathBuf]) -> ExitCode {
    let ready = async {
        let network = app::network(config).await?;
        let grounds = Grounds::of_command(config, None).await?;
        let detector = Detector::new()?;
        let scanner = app::local_scanner(config, &grounds, Arc::new(detector), &network)?;
        Ok::<_, StartError>((scanner, grounds))
    };
    let scanner = ready.await;
    let (scanner, _grounds) = match scanner {
        Ok(ready) => ready,
        Err(error) => {
            failed(terminal, &error);
            return ExitCode::from(2);
        }
    };
    let mut worst = 0;
    for (index, file) in files.iter().enumerate() {
        let size = file.metadata().map_or(0, |metadata| metadata.len());
        let what = format!(
            "scanning {} of {}, {} ({})",
            index.saturating_add(1),
            files.len(),
            harmless(file.display()),
            bytesize::ByteSize(size)
        );
        let verdict = with_progress(&what, scanner.scan(file)).await;
        say(cli::verdict_line(terminal.stdout, file, &verdict));
        worst = worst.max(match verdict {
            Ok(Verdict::Clean { .. }) => 0,
            Ok(Verdict::NotClean { .. } | Verdict::TypeForbidden { .. }) => 1,
            Err(_) => 2,
        });
    }
    ExitCode::from(worst)
}

/// The exit code says: 2 not run, 1 ended badly, 0 ended well.
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
    // A bare name is looked for in the sandbox's own PATH.
    let mut program = PathBuf::from(program);
    let is_path = program.components().count() > 1;
    if is_path && let Ok(absolute) = std::path::absolute(&program) {
        program = absolute;
    }
    let grounds = match Grounds::of_command(config, is_path.then_some(&*program)).await {
        Ok(grounds) => grounds,
        Err(error) => return not_run(&error),
    };
    let trial = Trial { program, args: args.to_vec(), file: file.into() };
    let run = trial.run(&grounds.sandbox, grounds.directory.path(), config.scan.timeout).await;
    match run {
        Ok((exit, refused)) => {
            let mut out = io::stdout().lock();
            match cli::print_trial(&mut out, grounds.sandbox.layers(), &exit, &refused) {
                Ok(()) if exit.outcome == Outcome::Exited(0) => ExitCode::SUCCESS,
                Ok(()) => ExitCode::FAILURE,
                Err(error) => failed(terminal, &error),
            }
        }
        Err(error) => not_run(&error),
    }
}

/// The exit code says: 1 nothing written, 78 something has to be decided, 0 neither.
fn migrate(file: &Path, output: Option<&Path>, base: Option<&Path>) -> ExitCode {
    let migrated = match migrate::migrate_file(file, base) {
        Ok(migrated) => migrated,
        Err(error) => {
            eprintln!("error: {}: {}", file.display(), Chain(&error));
            return ExitCode::FAILURE;
        }
    };
    if let Err(error) = cli::write_new(output, &migrated.toml) {
        let place = output.map_or_else(|| "standard output".into(), Path::to_string_lossy);
        eprintln!("error: {place} cannot be written: {error}");
        return ExitCode::FAILURE;
    }
    for remark in &migrated.remarks {
        eprintln!("{}: {remark}", file.display());
    }
    let open = migrated.remarks.iter().filter(|remark| remark.kind == RemarkKind::Mistake).count();
    if open == 0 { ExitCode::SUCCESS } else { ExitCode::from(EXIT_CONFIG) }
}

fn public_key(terminal: Terminal, config: &Config) -> ExitCode {
    match RequestKey::load(&config.crypto) {
        Ok((key, notices)) => {
            for notice in notices {
                eprintln!("{notice}");
            }
            match cli::print_public_key(&mut io::stdout().lock(), &key) {
                Ok(()) => ExitCode::SUCCESS,
                Err(error) => failed(terminal, &error),
            }
        }
        Err(error) => failed(terminal, &StartError::from(error)),
    }
}

/// Prints a line. Who has closed the pipe has read enough: the exit code says the rest.
fn say(line: impl fmt::Display) {
    let _nobody_reads = writeln!(io::stdout(), "{line}");
}

fn failed(terminal: Terminal, error: &(dyn Error + 'static)) -> ExitCode {
    eprintln!("{}: {}", terminal.stderr.on(BAD, "error"), harmless(Chain(error)));
    hint(terminal.stderr, hint::of(error));
    ExitCode::FAILURE
}

/// What to do next, where the error alone leaves that open.
fn hint(paint: Paint, text: Option<String>) {
    if let Some(text) = text {
        eprintln!("{}: {}", paint.on(NOTE, "hint"), harmless(text));
    }
}
