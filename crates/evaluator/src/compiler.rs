//! The compiler of rules, with the modules and variables that public rules expect.

use boreal::{
    Compiler,
    compiler::{AddRuleError, CompilerBuilder},
};

use crate::{error::RuleLoadError, prepared::console};

/// External variables that public rules use and that scanners of file systems define. The values are empty, because
/// the evaluated file has no name.
const VARIABLES: [&str; 5] = ["filename", "filepath", "extension", "filetype", "owner"];

pub(crate) fn new_compiler() -> Compiler {
    let mut compiler = CompilerBuilder::new().add_module(console()).build();
    for name in VARIABLES {
        compiler.define_symbol(name, "");
    }
    compiler
}

#[expect(clippy::needless_pass_by_value, reason = "for map_err")]
pub(crate) fn invalid(error: AddRuleError) -> RuleLoadError {
    RuleLoadError::Invalid(one_line(&error.to_string()))
}

fn one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}
