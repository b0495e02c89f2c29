//! Names of the values of keys with a fixed set of values.

use crate::scan::{
    encrypted::OnEncrypted,
    engines::{SkipPolicy, icap::Method},
};

pub(super) const SKIP_POLICIES: [(&str, SkipPolicy); 2] =
    [("fail", SkipPolicy::Fail), ("skip", SkipPolicy::Skip)];

pub(super) const ON_ENCRYPTED: [(&str, OnEncrypted); 3] =
    [("refuse", OnEncrypted::Refuse), ("fail", OnEncrypted::Fail), ("pass", OnEncrypted::Pass)];

pub(super) const METHODS: [(&str, Method); 2] =
    [("respmod", Method::Respmod), ("reqmod", Method::Reqmod)];

pub(super) const PREVIEWS: [(&str, bool); 2] = [("server", true), ("off", false)];
