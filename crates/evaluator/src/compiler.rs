//! The compiler of rules, with the modules and variables that public rules expect.

use std::path::PathBuf;

use boreal::{
    Compiler,
    compiler::{AddRuleError, CompilerBuilder},
};

use crate::{error::RuleLoadError, prepared::console, variables::Variables};

/// Creates a compiler with all variables.
pub(crate) fn new_compiler() -> Compiler {
    with_variables(Variables { position: true, file_type: true })
}

/// Returns the namespace of the rule file with this index: not its path, so that the prepared form and its digest are those
/// of the rules, wherever the files are.
pub(crate) fn namespace(index: usize) -> String {
    index.to_string()
}

/// Returns whether rules use variables whose values differ between objects with the same content, and whether they use the
/// name of the media type. Rules that cannot be compiled count as well.
pub(crate) fn used_variables(files: &[PathBuf]) -> Variables {
    let need = |position: bool, file_type: bool| {
        let mut compiler = with_variables(Variables { position: !position, file_type: !file_type });
        let mut files = files.iter().enumerate();
        files.any(|(index, file)| {
            compiler.add_rules_file_in_namespace(file, namespace(index)).is_err()
        })
    };
    // Most rules use neither.
    let is_any = need(true, true);
    Variables { position: is_any && need(true, false), file_type: is_any && need(false, true) }
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
