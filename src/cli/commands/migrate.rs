//! `migrate`: converts the configuration of an earlier scanner.

use std::{
    fs::{OpenOptions, Permissions},
    io::{self, Write},
    os::unix::fs::{OpenOptionsExt, PermissionsExt},
    path::Path,
    process::ExitCode,
};

use mcs_migrate::{Migrated, Rejection, RemarkKind, migrate_file};

use crate::{
    cli::{arguments::EXIT_CONFIG, error::CommandError},
    config,
    text::{escape_toml, escape_untrusted},
};

/// Exit code: 1 if nothing was written, 78 if a setting needs a decision, 0 otherwise.
pub(crate) fn run(
    file: &Path,
    output: Option<&Path>,
    base: Option<&Path>,
) -> Result<ExitCode, CommandError> {
    let migrated = migrate_file(file, base, &validate)
        .map_err(|source| CommandError::Migrate { file: file.into(), source })?;
    write_new(output, &migrated.toml).map_err(|source| {
        let target = output.map_or_else(|| "standard output".into(), Path::to_string_lossy);
        CommandError::Write { target: target.into_owned(), source }
    })?;
    for remark in &migrated.remarks {
        eprintln!("{}", escape_untrusted(format_args!("{}: {remark}", file.display())));
    }
    let is_open = migrated.remarks.iter().any(|remark| remark.kind == RemarkKind::Mistake);
    print_next_step(file, output, &migrated, is_open);
    Ok(if is_open { ExitCode::from(EXIT_CONFIG) } else { ExitCode::SUCCESS })
}

/// States what was written, and what to do next.
fn print_next_step(file: &Path, output: Option<&Path>, migrated: &Migrated, is_open: bool) {
    let Migrated { from, path, .. } = migrated;
    let path = path.as_ref().map_or_else(String::new, |path| format!(" ({path})"));
    let target = output.map_or_else(|| "to standard output".into(), Path::to_string_lossy);
    let source = format_args!("the configuration of {from} in {}{path}", file.display());
    eprintln!("{}", escape_untrusted(format_args!("wrote {target}, converted from {source}")));
    let written = output.map_or_else(|| "FILE".into(), Path::to_string_lossy);
    let first = match (output, is_open) {
        (None, _) => "write it to a file (-o FILE), then run",
        (_, true) => "decide about the settings above, which the file lists at its start, then run",
        (_, false) => "run",
    };
    let step = format_args!("next: {first}: matrix-content-scanner -c {written} check-config");
    eprintln!("{}", escape_untrusted(step));
}

fn validate(toml: &str, base: &Path) -> Vec<Rejection> {
    let problems = config::problems(toml, base).into_iter();
    problems.map(|problem| Rejection { key: problem.key, message: problem.message }).collect()
}

/// Writes TOML to a new file with mode 0600, or to standard output.
fn write_new(path: Option<&Path>, toml: &str) -> io::Result<()> {
    let text = escape_toml(toml);
    let Some(path) = path else { return io::stdout().lock().write_all(text.as_bytes()) };
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
    // Whatever the umask is.
    file.set_permissions(Permissions::from_mode(0o600))?;
    file.write_all(text.as_bytes())
}
