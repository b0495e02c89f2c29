//! The operator's lists of types.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use crate::media_type::{normalize, older_names};

/// Types that the operator allows.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum MimeRules {
    /// All types.
    #[default]
    All,
    /// Only these types.
    Only(BTreeSet<String>),
    /// All types except these.
    AllBut(BTreeSet<String>),
}

impl MimeRules {
    /// Allows only these types.
    pub fn only<S: AsRef<str>>(names: impl IntoIterator<Item = S>) -> Self {
        Self::Only(normalize_all(names))
    }

    /// Allows all types except these.
    pub fn all_but<S: AsRef<str>>(names: impl IntoIterator<Item = S>) -> Self {
        Self::AllBut(normalize_all(names))
    }

    /// Returns whether files of this type are allowed.
    ///
    /// Ignores case and parameters. An older name in a list also applies to the type's current name.
    #[must_use]
    pub fn allows(&self, name: &str) -> bool {
        let is_listed = |list: &BTreeSet<String>| {
            let name = normalize(name);
            list.contains(&name) || older_names(&name).any(|older| list.contains(older))
        };
        match self {
            Self::All => true,
            Self::Only(list) => is_listed(list),
            Self::AllBut(list) => !is_listed(list),
        }
    }

    /// Returns the listed types in arbitrary order.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        let list = match self {
            Self::All => None,
            Self::Only(list) | Self::AllBut(list) => Some(list),
        };
        list.into_iter().flatten().map(String::as_str)
    }
}

fn normalize_all<S: AsRef<str>>(names: impl IntoIterator<Item = S>) -> BTreeSet<String> {
    names.into_iter().map(|name| normalize(name.as_ref())).collect()
}
