//! The pages for operators say what is there: links lead somewhere, keys are keys, lines of the log are written
//! by the program, and what was reckoned comes out of the defaults.
#![allow(
    clippy::allow_attributes,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a panic is how a test fails, in its helpers too"
)]

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

use toml::{Table, Value};

fn at(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

fn read(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// All files below a folder whose names end so.
fn files(folder: &Path, ending: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).expect("a folder") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            found.extend(files(&path, ending));
        } else if path.to_str().is_some_and(|name| name.ends_with(ending)) {
            found.push(path);
        }
    }
    found
}

fn pages() -> Vec<(PathBuf, String)> {
    let mut pages = files(&at("docs"), ".md");
    assert!(pages.len() > 5);
    pages.extend(["README.md", "CHANGELOG.md", "sandbox/README.md"].map(at));
    pages.into_iter().map(|page| (page.clone(), read(&page))).collect()
}

/// A page's lines that are in no block of code.
fn prose(text: &str) -> impl Iterator<Item = &str> {
    let mut in_block = false;
    text.lines().filter(move |line| {
        let fence = line.trim_start().starts_with("```");
        in_block ^= fence;
        !in_block && !fence
    })
}

/// Blocks of code in this language.
fn blocks(text: &str, language: &str) -> Vec<String> {
    let mut blocks = Vec::new();
    let mut open: Option<(String, usize)> = None;
    for line in text.lines() {
        let bare = line.trim_start();
        match &mut open {
            None if bare.strip_prefix("```") == Some(language) => {
                open = Some((String::new(), line.len() - bare.len()));
            }
            Some(_) if bare.starts_with("```") => blocks.extend(open.take().map(|(text, _)| text)),
            Some((block, indent)) => {
                block.push_str(line.get(*indent..).unwrap_or(bare));
                block.push('\n');
            }
            None => {}
        }
    }
    blocks
}

/// What stands between backticks in a line.
fn spans(line: &str) -> impl Iterator<Item = &str> {
    line.split('`').skip(1).step_by(2)
}

/// A heading's name in links.
fn slug(heading: &str) -> String {
    let kept = heading.trim().to_lowercase();
    let kept = kept.chars().filter(|&c| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_'));
    kept.map(|c| if c == ' ' { '-' } else { c }).collect()
}

#[test]
fn links_lead_to_files_and_headings_that_are_there() {
    let mut count = 0;
    for (page, text) in pages() {
        for line in prose(&text) {
            for link in line.split("](").skip(1) {
                let link = link.split(')').next().unwrap();
                if link.contains("://") {
                    continue;
                }
                count += 1;
                let (path, anchor) = link.split_once('#').unwrap_or((link, ""));
                let target = match path {
                    "" => page.clone(),
                    path => page.parent().unwrap().join(path),
                };
                assert!(target.exists(), "{}: {link} leads nowhere", page.display());
                if !anchor.is_empty() {
                    let target = read(&target);
                    let mut headings = prose(&target).filter(|line| line.starts_with('#'));
                    assert!(
                        headings.any(|line| slug(line.trim_start_matches('#')) == anchor),
                        "{}: {link} names no heading",
                        page.display()
                    );
                }
            }
        }
    }
    assert!(count > 40, "{count}");
}

/// Keys of `default.toml`, those that are commented out too; and its sections.
fn keys() -> (BTreeSet<String>, BTreeSet<String>) {
    let (mut keys, mut sections, mut section) = (BTreeSet::new(), BTreeSet::new(), String::new());
    for line in read(&at("config/default.toml")).lines() {
        if let Some(name) = line.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
            name.clone_into(&mut section);
            sections.insert(section.clone());
            continue;
        }
        let line = line.strip_prefix("# ").unwrap_or(line);
        if let Some((key, _)) = line.split_once(" = ")
            && key.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_')
        {
            keys.insert(format!("{section}.{key}"));
        }
    }
    assert!(keys.len() > 60, "{keys:?}");
    (keys, sections)
}

#[test]
fn keys_that_are_named_are_those_of_the_default_configuration() {
    let (keys, sections) = keys();
    let mut count = 0;
    for (page, text) in pages() {
        for word in prose(&text).flat_map(spans).flat_map(|span| span.split([' ', ',', '=', '/'])) {
            let words = |word: &str| {
                let is_name = |name: &str| {
                    !name.is_empty() && name.bytes().all(|b| b.is_ascii_lowercase() || b == b'_')
                };
                word.split('.').all(is_name)
            };
            // A script's or another file's name is no key.
            let is_file = [".sh", ".toml", ".md", ".rs", ".yar", ".so", ".conf"];
            if let Some((section, _)) = word.rsplit_once('.')
                && words(word)
                && sections.contains(section)
                && !is_file.iter().any(|ending| word.ends_with(ending))
            {
                count += 1;
                let is_known = keys.contains(word) || sections.contains(word);
                assert!(is_known, "{}: {word} is no key", page.display());
            }
            if let Some(variable) = word.strip_prefix("MCS_")
                && let Some((section, key)) = variable.to_lowercase().split_once("__")
                && words(key)
            {
                count += 1;
                let key = format!("{section}.{key}");
                assert!(keys.contains(&key), "{}: {word} is no variable", page.display());
            }
        }
        for block in blocks(&text, "toml") {
            let table: Table =
                block.parse().unwrap_or_else(|error| panic!("{}: {error}", page.display()));
            for key in leaves("", &table, &keys) {
                count += 1;
                assert!(keys.contains(&key), "{}: {key} is no key", page.display());
            }
        }
    }
    let shown = read(&at("docs/proxies/scanner.toml")).parse().expect("TOML");
    for key in leaves("", &shown, &keys) {
        assert!(keys.contains(&key), "scanner.toml: {key} is no key");
    }
    assert!(count > 100, "{count}");
}

/// The paths of a table's values; a table that is a key's value counts as one.
fn leaves(path: &str, table: &Table, keys: &BTreeSet<String>) -> Vec<String> {
    let full = |key: &str| if path.is_empty() { key.to_owned() } else { format!("{path}.{key}") };
    let of = |(key, value): (&String, &Value)| match (full(key), value) {
        (path, Value::Table(inner)) if !keys.contains(&path) => leaves(&path, inner, keys),
        (path, _) => vec![path],
    };
    table.iter().flat_map(of).collect()
}

#[test]
fn every_section_has_its_line_in_the_page_on_configuration() {
    let page = read(&at("docs/configuration.md"));
    for section in keys().1 {
        assert!(page.contains(&format!("`[{section}]`")), "{section}");
    }
}

/// What the program itself may say: its sources without their tests, each on one line, with `…` for what is filled in.
fn sources() -> String {
    let mut sources = String::new();
    for file in files(&at("src"), ".rs").into_iter().chain(files(&at("sandbox/src"), ".rs")) {
        if file.components().any(|part| part.as_os_str() == "tests") || file.ends_with("tests.rs") {
            continue;
        }
        let text = read(&file);
        let program = text.split("#[cfg(test)]\nmod tests {").next().unwrap();
        let mut lines = program.lines();
        while let Some(line) = lines.next() {
            let mut line = line.trim_start();
            // A string that goes on in the next line, or a comment, which says nothing.
            while let Some(begun) = line.strip_suffix('\\') {
                sources.push_str(begun);
                line = lines.next().unwrap_or("").trim_start();
            }
            if !line.starts_with("//") {
                sources.push_str(line);
            }
            sources.push('\n');
        }
    }
    let mut filled = String::new();
    let mut rest = sources.as_str();
    while let Some((before, after)) = rest.split_once('{') {
        filled.push_str(before);
        match after.split_once('}') {
            Some((inner, after)) if inner.len() < 20 && !inner.contains(['\n', ' ', '"', '{']) => {
                filled.push('…');
                rest = after;
            }
            _ => {
                filled.push('{');
                rest = after;
            }
        }
    }
    filled + rest
}

#[test]
fn lines_of_the_log_that_are_explained_are_written_by_the_program() {
    let (sources, page) = (sources(), read(&at("docs/troubleshooting.md")));
    let (symptoms, lines) = page.split_once("## By line in the log").expect("two tables");
    let mut count = 0;
    let mut check = |message: &str| {
        count += 1;
        assert!(sources.contains(message), "nothing says {message:?}");
    };
    for row in lines.lines().filter(|line| line.starts_with("| `")) {
        let cell = row.split(" | ").next().unwrap();
        spans(cell).for_each(&mut check);
        quoted(row).for_each(&mut check);
    }
    // Of the symptoms, what clients are told, and lines of the log. Quotation marks are for nothing else there.
    let rows = symptoms.lines().filter(|line| line.starts_with("| "));
    rows.flat_map(quoted).for_each(&mut check);
    for level in ["answered", "failed", "refused"] {
        check(&format!("\"{level}\""));
    }
    assert!(count > 50, "{count}");
}

/// What stands in quotation marks in a line, if it is more than a word.
fn quoted(line: &str) -> impl Iterator<Item = &str> {
    line.split('"').skip(1).step_by(2).filter(|text| text.split(' ').count() > 2)
}

#[test]
fn metrics_that_are_named_are_those_that_are_exported() {
    let sources = read(&at("src/metrics.rs")) + &read(&at("src/operations/gauges.rs"));
    let mut count = 0;
    for (page, text) in pages() {
        for name in prose(&text).flat_map(spans) {
            if !name.starts_with("mcs_") && !name.starts_with("process_") {
                continue;
            }
            count += 1;
            let bare = name.strip_prefix("mcs_").unwrap_or(name).trim_end_matches("_total");
            let is_there = sources.contains(&format!("\"{bare}\""))
                || sources.contains(&format!("\"{name}\""));
            assert!(is_there, "{}: {name} is no metric", page.display());
        }
    }
    assert!(count > 4, "{count}");
}

/// A size as `default.toml` writes it, in MiB.
fn mebibytes(default: &Table, path: &str) -> u64 {
    let (section, key) = path.rsplit_once('.').unwrap();
    let table = section.split('.').fold(default, |table, name| table[name].as_table().unwrap());
    let size = table[key].as_str().unwrap();
    match (size.strip_suffix("MiB"), size.strip_suffix("GiB")) {
        (Some(number), _) => number.parse().unwrap(),
        (_, Some(number)) => number.parse::<u64>().unwrap() * 1024,
        _ => panic!("{path} = {size}"),
    }
}

#[test]
fn the_figures_of_the_page_on_sizing_come_out_of_the_defaults() {
    const BASE: u64 = 256;
    const SCRIPT: u64 = 10;
    let page = read(&at("docs/sizing.md"));
    let default: Table = read(&at("config/default.toml")).parse().expect("TOML");
    let of = |path| mebibytes(&default, path);
    let workers = u64::try_from(default["scan"]["workers"].as_integer().unwrap()).unwrap();
    let spool = of("scan.max_spool_size");
    let with = |spool, disk| {
        BASE + of("result_cache.max_total_size") + workers + spool + 4 * (disk + SCRIPT)
    };
    let gibibytes = |mebibytes: u64| {
        let tenths = (mebibytes * 10 + 512) / 1024;
        format!("{}.{} GiB", tenths / 10, tenths % 10)
    };
    let all = gibibytes(with(spool, of("sandbox.limits.disk")));
    assert!(page.contains(&format!("= {all}\nat the very worst")), "{all}");
    let less = gibibytes(with(1024, 128));
    assert!(page.contains(&format!("which makes {less}.")), "{less}");
    let fit = spool * 95 / 100 / (2 * of("download.max_size"));
    assert!(page.contains(&format!("; {fit} with the defaults")), "{fit}");
}
