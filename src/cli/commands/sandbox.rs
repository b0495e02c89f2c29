//! `sandbox`: runs a command on a local file in the sandbox, and prints what happened.

use std::{
    ffi::OsString,
    io::{self, Write},
    path::{self, PathBuf},
    process::ExitCode,
};

use mcs_sandbox::{Denial, Exit, Layer, Layers, Termination, Usage};

use crate::{
    app::SandboxEnv,
    cli::{
        arguments::Cli,
        error::{CommandError, EXIT_NOT_RUN},
        setup::{LoadedConfig, start_runtime},
    },
    config::{Config, FORBIDDEN_PATHS},
    scan::trial::Trial,
    text::{escape_untrusted, replace_untrusted},
};

/// Exit code: 2 if the command did not run, 1 if it failed, 0 if it succeeded.
pub(crate) fn run(cli: &Cli, command: &[OsString]) -> Result<ExitCode, CommandError> {
    let LoadedConfig { config, .. } = LoadedConfig::load(cli)?;
    start_runtime()?.block_on(try_command(&config, command))
}

/// Runs `command`, which consists of a program, its arguments and the file.
async fn try_command(config: &Config, command: &[OsString]) -> Result<ExitCode, CommandError> {
    let [program, args @ .., file] = command else { return Ok(ExitCode::from(EXIT_NOT_RUN)) };
    // A bare name is searched for in the PATH of the sandbox.
    let mut program = PathBuf::from(program);
    let is_path = program.components().count() > 1;
    if is_path && let Ok(absolute) = path::absolute(&program) {
        program = absolute;
    }
    let sandbox_env = SandboxEnv::for_command(config, is_path.then_some(&*program))
        .await
        .map_err(CommandError::Unprepared)?;
    let trial = Trial { program, args: args.to_vec(), file: file.into() };
    let (exit, refused) =
        trial.run(&sandbox_env.sandbox, sandbox_env.directory.path(), config.scan.timeout).await?;
    print_trial(&mut io::stdout().lock(), sandbox_env.sandbox.layers(), &exit, &refused)?;
    let succeeded = exit.termination == Termination::Exited(0);
    Ok(if succeeded { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Prints output, exit status, resource usage and refused accesses, with the setting that would allow each.
fn print_trial(
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
    refused.iter().try_for_each(|denial| writeln!(out, "  {}", denial_line(layers, denial)))
}

/// Formats a refused access: the layer that refused it, the access, and the setting that would allow it.
fn denial_line(layers: &Layers, denial: &Denial) -> String {
    let path_layer =
        if layers.is_active(Layer::Namespaces) { Layer::Namespaces } else { Layer::Landlock };
    match denial {
        Denial::Call(name) if name == "socket" => {
            format!("{}: the network (sandbox.tcp_ports, sandbox.network)", Layer::Seccomp)
        }
        Denial::Call(name) => {
            format!("{}: the system call {name} (never allowed)", Layer::Seccomp)
        }
        Denial::Read(path) => {
            let is_forbidden = FORBIDDEN_PATHS.iter().any(|forbidden| path.starts_with(forbidden));
            let remedy = if is_forbidden { "never shown" } else { "sandbox.read_only_paths" };
            format!("{path_layer}: {} ({remedy})", escape_untrusted(path.display()))
        }
        Denial::Write(path) => format!(
            "{path_layer}: writing {} (use $TMPDIR; sandbox.writable_paths)",
            escape_untrusted(path.display())
        ),
        Denial::Port(port) => {
            format!("{}: TCP to port {port} (sandbox.tcp_ports)", Layer::Landlock)
        }
        Denial::Connect(path) => format!(
            "{path_layer}: the socket {} (sandbox.unix_sockets)",
            escape_untrusted(path.display())
        ),
    }
}
