//! The operator's lists of types. Knows no file.

use std::collections::HashSet;

use super::{RENAMED, essence};

/// What the operator allows.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum MimeRules {
    /// Everything.
    #[default]
    All,
    /// These types alone.
    Only(HashSet<String>),
    /// Every type but these.
    AllBut(HashSet<String>),
}

impl MimeRules {
    /// Allows these types alone.
    pub fn only<S: AsRef<str>>(names: impl IntoIterator<Item = S>) -> Self {
        Self::Only(normal(names))
    }

    /// Allows every type but these.
    pub fn all_but<S: AsRef<str>>(names: impl IntoIterator<Item = S>) -> Self {
        Self::AllBut(normal(names))
    }

    /// Whether a file of this type may pass. Case and parameters do not count, and a type is meant
    /// by its older names as well.
    #[must_use]
    pub fn allows(&self, name: &str) -> bool {
        let in_list = |list: &HashSet<String>| {
            let name = essence(name).to_ascii_lowercase();
            list.contains(&name)
                || RENAMED.iter().any(|(old, new)| *new == name && list.contains(*old))
        };
        match self {
            Self::All => true,
            Self::Only(list) => in_list(list),
            Self::AllBut(list) => !in_list(list),
        }
    }

    /// The types that are listed, in no order.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        let list = match self {
            Self::All => None,
            Self::Only(list) | Self::AllBut(list) => Some(list),
        };
        list.into_iter().flatten().map(String::as_str)
    }
}

fn normal<S: AsRef<str>>(names: impl IntoIterator<Item = S>) -> HashSet<String> {
    names.into_iter().map(|name| essence(name.as_ref()).to_ascii_lowercase()).collect()
}
