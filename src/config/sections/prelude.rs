//! What the declaration of a section uses.

pub(super) use crate::config::{
    format,
    key::{Key, optional},
    keys::{Field, KeyGroup, group, keys, restart, settings, within},
    lines::Lines,
    paths,
    problem::Warning,
    reader::Section,
    types::{
        MAX_DURATION, MILLISECOND, PEBIBYTE, SECOND, boolean, choice, duration, integer, list,
        memory_size, parse_secret, parse_table, parse_text, size, text,
    },
    value::{ParseResult, RawValue},
};
