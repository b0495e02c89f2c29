//! Command line of the program: arguments, output of the subcommands, hints after errors, signals.

pub(crate) mod arguments;
pub(crate) mod hints;
pub(crate) mod signals;
