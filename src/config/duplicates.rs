//! Finds the first place of a key or a table that a file contains twice. The TOML parser reports the second place only.

use std::ops::Range;

use toml::de::{DeTable, DeValue};

/// A key that occurs twice.
#[derive(PartialEq, Eq, Debug)]
pub(super) struct Duplicate {
    /// The names from the section to the key.
    pub(super) path: Vec<String>,
    /// Position of the first place, bytes.
    pub(super) first: Range<usize>,
    pub(super) is_table: bool,
}

/// Returns the first place of the key whose second place is `second`, if it can be determined.
pub(super) fn find(text: &str, second: &Range<usize>) -> Option<Duplicate> {
    let line_start = text.get(..second.start)?.rfind('\n').map_or(0, |newline| newline + 1);
    let (before, rest) = text.split_at_checked(line_start)?;
    let line = rest.lines().next()?;
    let is_table = is_header(line);
    let header = before.lines().rev().find(|line| is_header(line)).filter(|_| !is_table);
    let context = format!("{}\n{line}", header.unwrap_or_default());
    let in_context = second.start - line_start + context.len() - line.len();
    // The keys of this line, below those of its header: a chain of tables.
    let (chain, _) = DeTable::parse_recoverable(&context);
    let name = text.get(second.clone())?.trim_matches(['"', '\'']);
    let path = path_to(chain.get_ref(), name, in_context)?;
    // Without the second place, the parser keeps the first one. In an inline table, it keeps the first of both.
    let places = [text, before].into_iter().filter_map(|text| {
        let (table, _) = DeTable::parse_recoverable(text);
        deepest(table.get_ref(), &path).filter(|(_, first)| first != second)
    });
    let (depth, first) = places.max_by_key(|(depth, _)| *depth)?;
    Some(Duplicate { path: path.into_iter().take(depth).collect(), first, is_table })
}

/// Whether the line is a complete header of a table.
fn is_header(line: &str) -> bool {
    line.trim_start().starts_with('[') && DeTable::parse(line).is_ok()
}

/// Returns the names from the root to the key at this position. The parser does not keep the second key of an inline
/// table, so it is found by its name.
fn path_to(root: &DeTable<'_>, name: &str, position: usize) -> Option<Vec<String>> {
    let (mut table, mut path) = (root, Vec::new());
    loop {
        let (key, value) = match (table.get_key_value(name), table.iter().next()) {
            (Some(named), _) if table.len() > 1 => named,
            (_, Some(only)) => only,
            _ => return None,
        };
        path.push(key.get_ref().to_string());
        if key.span().start == position || key.span().contains(&position) {
            return Some(path);
        }
        match value.get_ref() {
            DeValue::Table(inner) if !inner.is_empty() => table = inner,
            _ => return (key.get_ref() == name).then_some(path),
        }
    }
}

/// Returns the position of the deepest key on this path that exists, and the number of its names.
fn deepest(root: &DeTable<'_>, path: &[String]) -> Option<(usize, Range<usize>)> {
    let (mut table, mut found) = (root, None);
    for (index, name) in path.iter().enumerate() {
        let Some((key, value)) = table.get_key_value(name.as_str()) else { break };
        found = Some((index + 1, key.span()));
        let DeValue::Table(inner) = value.get_ref() else { break };
        table = inner;
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_first_place_of_each_kind_of_duplicate() {
        for (text, key, first) in [
            ("[web]\nport = 1\n[scan]\n[web]\n", "web", 1),
            ("[web]\nport = 1\n\nport = 2\n", "web.port", 2),
            ("[log]\n[web]\nport = 1\nhost = 'a'\nport = 2\n", "web.port", 3),
            ("web.port = 1\nweb.port = 2\n", "web.port", 1),
            ("web.port = 1\n[web]\nhost = 'a'\n", "web", 1),
            ("[sandbox.limits]\n[sandbox.limits]\n", "sandbox.limits", 1),
            ("[sandbox.limits]\ndisk = 1\n[sandbox]\nlimits.disk = 2\n", "sandbox.limits", 1),
            ("[download]\nhomeservers = { a = 'x', a = 'y' }\n", "download.homeservers.a", 2),
            ("[scan]\nlist = [\n['a'],\n]\n\"list\" = 1\n", "scan.list", 2),
        ] {
            let (_, errors) = DeTable::parse_recoverable(text);
            let second = errors.first().and_then(toml::de::Error::span).unwrap();
            let duplicate = find(text, &second).unwrap_or_else(|| panic!("{text}"));
            assert_eq!(duplicate.path.join("."), key, "{text}");
            let line = text[..duplicate.first.start].matches('\n').count() + 1;
            assert_eq!(line, first, "{text}");
        }
    }
}
