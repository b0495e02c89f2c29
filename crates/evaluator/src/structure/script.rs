//! The code of a page that runs without a click.
//!
//! Pages that save a file when a button is pressed contain the same calls as pages that save a file by themselves: the
//! difference is whether the calls are in a function that only runs after a click. Functions count if they are called
//! directly, by a name in scope, by a timer, by an event that needs no click, or as an argument of another function.

mod lexer;
mod page;
mod parser;
mod place;
mod program;
mod writer;

use memchr::memmem;

use self::{
    page::{MAX_SCRIPTS, scripts},
    parser::ScriptParser,
    program::PageProgram,
};

/// Parts of words without which no rule needs the code: of calls that save a file or create an object of Windows, and of
/// escapes that may hide them.
const NEEDED: [&[u8]; 5] = [b"Blob", b"ownload", b"ActiveX", b"tObject", b"\\"];

/// Returns the code that runs without a click in a page, in one form. Empty for other objects, and for pages whose scripts
/// save no file and create no object of Windows. `None` if a script is too large.
pub(super) fn startup_code(bytes: &[u8]) -> Option<Vec<u8>> {
    let scripts = scripts(bytes);
    let is_needed = |script: &[u8]| NEEDED.iter().any(|word| memmem::find(script, word).is_some());
    if !scripts.iter().any(|script| is_needed(script)) {
        return Some(Vec::new());
    }
    if scripts.len() > MAX_SCRIPTS {
        return None;
    }
    let mut program = PageProgram::default();
    for script in &scripts {
        ScriptParser::new(script, &mut program).run();
    }
    program.startup_code()
}
