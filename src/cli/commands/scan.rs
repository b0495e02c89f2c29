//! `scan`: scans local files and prints a verdict for each.

use std::{
    path::{Path, PathBuf},
    process::ExitCode,
};

use crate::{
    app::{SandboxEnv, StartError, remote_engines, scan_context},
    chain::Chain,
    cli::{
        arguments::Cli,
        error::{CommandError, EXIT_NOT_RUN},
        output::{BAD, GOOD, NOTE, Painter, print_line},
        progress::with_progress,
        setup::{LoadedConfig, start_runtime},
    },
    config::Config,
    scan::{ScanContext, Verdict, local::LocalError},
    text::escape_untrusted,
};

/// Exit code by the worst result: 2 failed, 1 not clean, 0 clean.
pub(crate) fn run(cli: &Cli, files: &[PathBuf]) -> Result<ExitCode, CommandError> {
    let LoadedConfig { config, .. } = LoadedConfig::load(cli)?;
    start_runtime()?.block_on(scan(cli.terminal().stdout, &config, files))
}

async fn scan(
    painter: Painter,
    config: &Config,
    files: &[PathBuf],
) -> Result<ExitCode, CommandError> {
    let (context, _sandbox_env) = prepare(config).await.map_err(CommandError::Unprepared)?;
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
        let verdict = with_progress(&description, context.scan_file(file)).await;
        print_line(verdict_line(painter, file, &verdict));
        worst = worst.max(match verdict {
            Ok(Verdict::Clean { .. }) => 0,
            Ok(Verdict::NotClean { .. } | Verdict::TypeForbidden { .. }) => 1,
            Err(_) => EXIT_NOT_RUN,
        });
    }
    Ok(ExitCode::from(worst))
}

/// Returns the scan context and its environment. Dropping the environment removes it.
async fn prepare(config: &Config) -> Result<(ScanContext, SandboxEnv), StartError> {
    let engines = remote_engines(config).await?;
    let sandbox_env = SandboxEnv::for_command(config, None).await?;
    let context = scan_context(config, &sandbox_env, &engines)?;
    Ok((context, sandbox_env))
}

/// Formats the verdict on a file as a single line. File name and script output are escaped.
fn verdict_line(painter: Painter, file: &Path, verdict: &Result<Verdict, LocalError>) -> String {
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
