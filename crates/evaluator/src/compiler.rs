//! The compiler of rules, with the modules and variables that public rules expect.

use std::path::PathBuf;

use boreal::{
    Compiler,
    compiler::{AddRuleError, CompilerBuilder},
};

use crate::{error::RuleLoadError, prepared::console, variables::Variables};

/// Creates a compiler with all variables.
pub(crate) fn new_compiler() -> Compiler {
    with_variables(Variables::All)
}

/// Returns whether rules use variables whose values differ between objects with the same content. Rules that cannot be
/// compiled count as well.
pub(crate) fn depends_on_position(files: &[PathBuf]) -> bool {
    let mut compiler = with_variables(Variables::WithoutPosition);
    files
        .iter()
        .any(|file| compiler.add_rules_file_in_namespace(file, file.to_string_lossy()).is_err())
}

fn with_variables(variables: Variables) -> Compiler {
    let mut compiler = CompilerBuilder::new().add_module(console()).build();
    variables.define(&mut compiler);
    compiler
}

#[expect(clippy::needless_pass_by_value, reason = "for map_err")]
pub(crate) fn invalid(error: AddRuleError) -> RuleLoadError {
    RuleLoadError::Invalid(one_line(&error.to_string()))
}

fn one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}
