//! Names of the values of keys with a fixed set of values.

use crate::scan::engines::{ContentPolicy, OversizePolicy, SkipPolicy, icap::Method};

pub(super) const SKIP_POLICIES: [(&str, SkipPolicy); 2] =
    [("fail", SkipPolicy::Fail), ("skip", SkipPolicy::Skip)];

pub(super) const OVERSIZE_POLICIES: [(&str, OversizePolicy); 3] = [
    ("fail", OversizePolicy::Fail),
    ("refuse", OversizePolicy::Refuse),
    ("skip", OversizePolicy::Skip),
];

pub(super) const CONTENT_POLICIES: [(&str, ContentPolicy); 3] = [
    ("refuse", ContentPolicy::Refuse),
    ("fail", ContentPolicy::Fail),
    ("pass", ContentPolicy::Pass),
];

pub(super) const METHODS: [(&str, Method); 2] =
    [("respmod", Method::Respmod), ("reqmod", Method::Reqmod)];

pub(super) const PREVIEWS: [(&str, bool); 2] = [("server", true), ("off", false)];
