//! Checks the documentation against the code: links, configuration keys, log lines, metrics, and
//! figures computed from the defaults.
#![allow(
    clippy::allow_attributes,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "tests and their helpers fail by panicking"
)]

mod api;
mod kubernetes;

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

use toml::{Table, Value};

/// Returns an absolute path from a path relative to the repository.
fn repo_path(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

fn read(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// Returns all files below a directory whose names end with `suffix`.
fn files(directory: &Path, suffix: &str) -> Vec<PathBuf> {
    let mut matching = Vec::new();
    for entry in fs::read_dir(directory).expect("read directory") {
        let path = entry.expect("directory entry").path();
        if path.is_dir() {
            matching.extend(files(&path, suffix));
        } else if path.to_str().is_some_and(|name| name.ends_with(suffix)) {
            matching.push(path);
        }
    }
    matching
}

fn pages() -> Vec<(PathBuf, String)> {
    let mut pages = files(&repo_path("docs"), ".md");
    assert!(pages.len() > 5);
    let more = ["README.md", "CHANGELOG.md", "sandbox/README.md"];
    let for_developers = ["ARCHITECTURE.md", "CONTRIBUTING.md", "SECURITY.md"];
    pages.extend(more.into_iter().chain(for_developers).map(repo_path));
    pages.extend(files(&repo_path("crates"), "README.md"));
    pages.into_iter().map(|page| (page.clone(), read(&page))).collect()
}

/// Returns a page's lines outside of code blocks.
fn prose(text: &str) -> impl Iterator<Item = &str> {
    let mut in_block = false;
    text.lines().filter(move |line| {
        let fence = line.trim_start().starts_with("```");
        in_block ^= fence;
        !in_block && !fence
    })
}

/// Returns the code blocks of a page in this language.
fn blocks(text: &str, language: &str) -> Vec<String> {
    let mut blocks = Vec::new();
    let mut open: Option<(String, usize)> = None;
    for line in text.lines() {
        let trimmed = line.trim_start();
        match &mut open {
            None if trimmed.strip_prefix("```") == Some(language) => {
                open = Some((String::new(), line.len() - trimmed.len()));
            }
            Some(_) if trimmed.starts_with("```") => {
                blocks.extend(open.take().map(|(text, _)| text));
            }
            Some((block, indent)) => {
                block.push_str(line.get(*indent..).unwrap_or(trimmed));
                block.push('\n');
            }
            None => {}
        }
    }
    blocks
}

/// Returns the code spans (text between backticks) of a line.
fn code_spans(line: &str) -> impl Iterator<Item = &str> {
    line.split('`').skip(1).step_by(2)
}

/// Returns a heading's anchor, by GitHub's rules.
fn slug(heading: &str) -> String {
    let heading = heading.trim().to_lowercase();
    let allowed = heading.chars().filter(|&c| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_'));
    allowed.map(|c| if c == ' ' { '-' } else { c }).collect()
}

#[test]
fn links_point_to_existing_files_and_headings() {
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
                assert!(target.exists(), "{}: {link} points to a missing file", page.display());
                if !anchor.is_empty() {
                    let target = read(&target);
                    let mut headings = prose(&target).filter(|line| line.starts_with('#'));
                    assert!(
                        headings.any(|line| slug(line.trim_start_matches('#')) == anchor),
                        "{}: {link} points to a missing heading",
                        page.display()
                    );
                }
            }
        }
    }
    assert!(count > 40, "{count}");
}

/// Returns the keys (including commented-out keys) and sections of `default.toml`.
fn keys() -> (BTreeSet<String>, BTreeSet<String>) {
    let (mut keys, mut sections, mut section) = (BTreeSet::new(), BTreeSet::new(), String::new());
    for line in read(&repo_path("config/default.toml")).lines() {
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
fn documented_keys_exist_in_default_configuration() {
    let (keys, sections) = keys();
    let mut count = 0;
    for (page, text) in pages() {
        for word in
            prose(&text).flat_map(code_spans).flat_map(|span| span.split([' ', ',', '=', '/']))
        {
            let is_key_path = |word: &str| {
                let is_name = |name: &str| {
                    !name.is_empty() && name.bytes().all(|b| b.is_ascii_lowercase() || b == b'_')
                };
                word.split('.').all(is_name)
            };
            // File names are not keys.
            let file_suffixes = [".sh", ".toml", ".md", ".rs", ".yar", ".so", ".conf", ".db"];
            if let Some((section, _)) = word.rsplit_once('.')
                && is_key_path(word)
                && sections.contains(section)
                && !file_suffixes.iter().any(|suffix| word.ends_with(suffix))
            {
                count += 1;
                let is_known = keys.contains(word) || sections.contains(word);
                assert!(is_known, "{}: {word} is not a key", page.display());
            }
            if let Some(variable) = word.strip_prefix("MCS_")
                && let Some((section, key)) = variable.to_lowercase().split_once("__")
                && is_key_path(key)
            {
                count += 1;
                let key = format!("{section}.{key}");
                assert!(
                    keys.contains(&key),
                    "{}: {word} is not an environment variable",
                    page.display()
                );
            }
        }
        for block in blocks(&text, "toml") {
            let table: Table =
                block.parse().unwrap_or_else(|error| panic!("{}: {error}", page.display()));
            for key in leaf_paths("", &table, &keys) {
                count += 1;
                // A table for each target.
                let is_known = keys.contains(&key) || key == "notify";
                assert!(is_known, "{}: {key} is not a key", page.display());
            }
        }
    }
    let example = read(&repo_path("docs/proxies/scanner.toml")).parse().expect("TOML");
    for key in leaf_paths("", &example, &keys) {
        assert!(keys.contains(&key), "scanner.toml: {key} is not a key");
    }
    assert!(count > 100, "{count}");
}

/// Returns the key paths of a table's values. A table that is itself the value of a key is not descended into.
fn leaf_paths(path: &str, table: &Table, keys: &BTreeSet<String>) -> Vec<String> {
    let join = |key: &str| if path.is_empty() { key.to_owned() } else { format!("{path}.{key}") };
    let descend = |(key, value): (&String, &Value)| match (join(key), value) {
        (path, Value::Table(inner)) if !keys.contains(&path) => leaf_paths(&path, inner, keys),
        (path, _) => vec![path],
    };
    table.iter().flat_map(descend).collect()
}

#[test]
fn configuration_page_lists_every_section() {
    let page = read(&repo_path("docs/configuration.md"));
    for section in keys().1 {
        assert!(page.contains(&format!("`[{section}]`")), "{section}");
    }
}

/// Returns the program's sources without tests and comments, with continued strings joined to one line and
/// format arguments replaced by `…`.
fn sources() -> String {
    let mut sources = String::new();
    let directories = ["src", "sandbox/src", "crates"];
    for file in directories.iter().flat_map(|path| files(&repo_path(path), ".rs")) {
        if file.components().any(|part| part.as_os_str() == "tests") || file.ends_with("tests.rs") {
            continue;
        }
        let text = read(&file);
        let program = text.split("#[cfg(test)]\nmod tests {").next().unwrap();
        let mut lines = program.lines();
        while let Some(line) = lines.next() {
            let mut line = line.trim_start();
            // Joins strings that continue on the next line.
            while let Some(start) = line.strip_suffix('\\') {
                sources.push_str(start);
                line = lines.next().unwrap_or("").trim_start();
            }
            if !line.starts_with("//") {
                sources.push_str(line);
            }
            sources.push('\n');
        }
    }
    let mut with_placeholders = String::new();
    let mut rest = sources.as_str();
    while let Some((before, after)) = rest.split_once('{') {
        with_placeholders.push_str(before);
        match after.split_once('}') {
            Some((inner, after)) if inner.len() < 20 && !inner.contains(['\n', ' ', '"', '{']) => {
                with_placeholders.push('…');
                rest = after;
            }
            _ => {
                with_placeholders.push('{');
                rest = after;
            }
        }
    }
    with_placeholders + rest
}

#[test]
fn documented_log_lines_exist_in_sources() {
    let (sources, page) = (sources(), read(&repo_path("docs/troubleshooting.md")));
    let (symptoms, lines) = page.split_once("## By line in the log").expect("two tables");
    let mut count = 0;
    let mut check = |message: &str| {
        count += 1;
        assert!(sources.contains(message), "no source contains {message:?}");
    };
    for row in lines.lines().filter(|line| line.starts_with("| `")) {
        let cell = row.split(" | ").next().unwrap();
        code_spans(cell).for_each(&mut check);
        quoted(row).for_each(&mut check);
    }
    // In the table of symptoms, quotation marks are used only for client responses and log lines.
    let rows = symptoms.lines().filter(|line| line.starts_with("| "));
    rows.flat_map(quoted).for_each(&mut check);
    for level in ["answered", "failed", "refused"] {
        check(&format!("\"{level}\""));
    }
    assert!(count > 50, "{count}");
}

/// Returns the quoted texts of a line that have more than two words.
fn quoted(line: &str) -> impl Iterator<Item = &str> {
    line.split('"').skip(1).step_by(2).filter(|text| text.split(' ').count() > 2)
}

#[test]
fn documented_metrics_are_exported() {
    let metrics = files(&repo_path("src"), ".rs").into_iter();
    let is_source = |path: &Path| {
        let path = path.to_string_lossy();
        path.contains("/metrics") || path.contains("/telemetry/operations/")
    };
    let metrics = metrics.filter(|path| is_source(path));
    let sources: String = metrics.map(|path| read(&path)).collect();
    let mut count = 0;
    for (page, text) in pages() {
        for name in prose(&text).flat_map(code_spans) {
            if !name.starts_with("mcs_") && !name.starts_with("process_") {
                continue;
            }
            count += 1;
            // Counters are registered without the suffix, and some families without the prefix.
            let registered = name.trim_end_matches("_total");
            let bare = registered.strip_prefix("mcs_").unwrap_or(registered);
            let is_exported =
                [bare, registered].iter().any(|name| sources.contains(&format!("\"{name}\"")));
            assert!(is_exported, "{}: {name} is not a metric", page.display());
        }
    }
    assert!(count > 4, "{count}");
}

#[test]
fn alerts_link_to_existing_runbooks_and_each_runbook_has_an_alert() {
    let alerts = read(&repo_path("config/monitoring/alerts.yml"));
    let mut linked = BTreeSet::new();
    // The text before the first alert is not one.
    for alert in alerts.split("- alert: ").skip(1) {
        let name = alert.lines().next().unwrap();
        let link = alert.lines().find_map(|line| line.trim().strip_prefix("runbook: "));
        let link = link.unwrap_or_else(|| panic!("{name} has no runbook")).trim_matches('"');
        let (page, anchor) = link.split_once('#').unwrap_or_else(|| panic!("{name}: {link}"));
        let page = read(&repo_path(page));
        let headings: Vec<_> = prose(&page).filter_map(|line| line.strip_prefix("## ")).collect();
        assert!(headings.iter().any(|heading| slug(heading) == anchor), "{name}: {link}");
        linked.insert(anchor.to_owned());
    }
    let runbooks = read(&repo_path("docs/runbooks.md"));
    let sections = prose(&runbooks).filter_map(|line| line.strip_prefix("## ")).map(slug);
    assert_eq!(sections.collect::<BTreeSet<_>>(), linked);
    assert!(linked.len() > 20, "{linked:?}");
}

/// Returns a size from `default.toml` in MiB.
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
fn readme_builds_the_programs_as_the_packages_do() {
    let readme = read(&repo_path("README.md"));
    let build = "packaging/programs";
    let commands = blocks(&readme, "sh");
    let run = "target/package/matrix-content-scanner -c config/default.toml";
    assert_eq!(commands[0], format!("{build} && {run}\n"));
    assert_eq!(commands[1], "./test --install\n");
    for recipe in ["packaging/build", "packaging/Dockerfile", "benches/run"] {
        let uses = |line: &str| line.trim_start_matches("RUN ").split(' ').next() == Some(build);
        assert!(read(&repo_path(recipe)).lines().any(uses), "{recipe}");
    }
    // The helper that the script builds is static; the script fails otherwise.
    let script = read(&repo_path(build));
    assert!(script.contains("-p mcs-sandbox --bin mcs-sandbox -- -C target-feature=+crt-static"));
    assert!(script.contains("grep -w INTERP"));
    for program in ["matrix-content-scanner", "mcs-sandbox"] {
        assert!(script.contains(&format!("\"$out\"/{program}")), "{program}");
    }
}

#[test]
fn sizing_page_states_what_the_tasks_of_the_unit_suffice_for() {
    // Tasks of the service, and processes of the sandbox's helper for each script.
    const SERVICE: u64 = 512;
    const HELPER: u64 = 2;
    let unit = read(&repo_path("systemd/matrix-content-scanner.service"));
    let tasks = unit.lines().find_map(|line| line.strip_prefix("TasksMax=")).expect("TasksMax=");
    let default: Table = read(&repo_path("config/default.toml")).parse().expect("TOML");
    let processes = default["sandbox"]["limits"]["processes"].as_integer().unwrap();
    let scripts = (tasks.parse::<u64>().unwrap() - SERVICE) / (processes.unsigned_abs() + HELPER);
    let max_scripts = (scripts - 1) / 2;
    let page = read(&repo_path("docs/sizing.md")).replace('\n', " ");
    for text in [
        format!("`TasksMax=` ({tasks} in the unit)"),
        format!("{SERVICE} + (2 × `max_scripts` + 1) × (`sandbox.limits.processes` + {HELPER})"),
        format!(
            "default of {processes} processes, the unit's value suffices for a `max_scripts` of up to {max_scripts}."
        ),
    ] {
        assert!(page.contains(&text), "{text}");
    }
}

#[test]
fn performance_page_states_each_difference_of_benchmarks_from_the_shipped_configuration() {
    let page = read(&repo_path("docs/performance.md"));
    let table = page.split_once("`config/default.toml`").unwrap().1;
    let table = table.split_once("The cost of cache entries").unwrap().0;
    let sources: String =
        files(&repo_path("benches/src"), ".rs").iter().map(|path| read(path)).collect();
    assert!(sources.contains("const SHIPPED_CONFIG: &str = \"config/default.toml\";"));
    let (keys, _) = keys();
    let changed: BTreeSet<_> = keys
        .iter()
        .filter(|key| sources.contains(&format!("{key} = ")))
        .map(String::as_str)
        .collect();
    let stated = code_spans(table).filter(|span| keys.contains(*span)).collect();
    assert_eq!(changed, stated);
    assert!(changed.len() > 8, "{changed:?}");
}

#[test]
fn readme_names_the_toolchain_of_the_workspace() {
    let manifest: Table = read(&repo_path("Cargo.toml")).parse().expect("TOML");
    let version = manifest["workspace"]["package"]["rust-version"].as_str().unwrap();
    let readme = read(&repo_path("README.md"));
    assert!(readme.contains(&format!("Rust {version} or later")), "{version}");
}

#[test]
fn architecture_page_names_existing_files() {
    let page = read(&repo_path("ARCHITECTURE.md"));
    let mut count = 0;
    for path in page.lines().flat_map(code_spans).filter(|span| span.contains('/')) {
        // Endpoints of the HTTP interface.
        if path.contains(' ') {
            continue;
        }
        count += 1;
        assert!(repo_path(path).exists(), "{path}");
    }
    assert!(count > 30, "{count}");
}

#[test]
fn sizing_page_figures_match_defaults() {
    // Both in MiB, as stated on the page.
    const BASE_MEMORY: u64 = 256;
    const SCRIPT_MEMORY: u64 = 10;
    let page = read(&repo_path("docs/sizing.md"));
    let default: Table = read(&repo_path("config/default.toml")).parse().expect("TOML");
    let default_size = |path| mebibytes(&default, path);
    let workers = u64::try_from(default["scan"]["workers"].as_integer().unwrap()).unwrap();
    let spool = default_size("scan.max_spool_size");
    let total = |spool, disk| {
        let cache = default_size("result_cache.max_total_size");
        // As many jobs and scripts may be demoted.
        BASE_MEMORY + cache + 2 * workers + spool + 2 * 4 * (disk + SCRIPT_MEMORY)
    };
    let gibibytes = |mebibytes: u64| {
        let tenths = (mebibytes * 10 + 512) / 1024;
        format!("{}.{} GiB", tenths / 10, tenths % 10)
    };
    let worst_case = gibibytes(total(spool, default_size("sandbox.limits.disk")));
    assert!(page.contains(&format!("= {worst_case}\nat the very worst")), "{worst_case}");
    let reduced = gibibytes(total(1024, 128));
    assert!(page.contains(&format!("which makes {reduced}.")), "{reduced}");
    let fit = spool * 95 / 100 / (2 * default_size("download.max_size"));
    assert!(page.contains(&format!("; {fit} with the defaults")), "{fit}");
}
