//! Prunes the file type rules and splits them into buckets.
//!
//! The program needs only a file's media type. Two nodes in five can only add a description once the type is decided;
//! they would cost memory permanently and time in each detection. Three rules in four test the first byte for a certain
//! value; buckets by first byte leave few rules to evaluate for any one file.
//!
//! Pruning does not change the results. The engine returns the first rule with a non-empty message, and the first type
//! on the path. A node is removed if a non-empty message is certain before the node is reached, no type can result from
//! it, and no `default` (which matches if nothing else at its depth matched) depends on whether it matched. Tests of
//! this crate compare both forms.
//!
//! Before that, the rules are changed where the engine evaluates them differently from libmagic (module `regexes`).

// Beside this file, so that both stay short.
#[path = "build/regexes.rs"]
mod regexes;

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, HashSet},
    env,
    error::Error,
    fs,
    path::Path,
};

use pure_magic::MagicDb;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

/// Rules in the engine's JSON serialization.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct RuleDatabase {
    rule_id: RawJson,
    rules: Vec<RuleData>,
    /// Named rules that nodes may `use`.
    dependencies: BTreeMap<String, NamedRule>,
    finalized: RawJson,
}

#[derive(Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct NamedRule {
    name: RawJson,
    rule: RuleData,
}

#[derive(Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct RuleData {
    id: RawJson,
    /// Source file of the rule. [`split_into_buckets`] stores the rule's position in the overall order here.
    source: Option<RawJson>,
    entries: RuleNode,
    /// File name extensions; unused.
    extensions: Vec<RawJson>,
    score: RawJson,
    is_text: RawJson,
    finalized: RawJson,
    max_score: RawJson,
}

#[derive(Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct RuleNode {
    root: RawJson,
    entry: RuleEntry,
    /// Evaluated if this node matches.
    children: Vec<RuleNode>,
    mimetype: Option<RawJson>,
    apple: Option<RawJson>,
    strength_mod: Option<RawJson>,
    exts: Vec<RawJson>,
}

#[derive(Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct RuleEntry {
    line: RawJson,
    depth: u8,
    offset: RawJson,
    test: RawJson,
    test_strength: RawJson,
    message: Option<RawJson>,
    stream_gate: RawJson,
}

/// Types of the rules that `magic-db` adds to libmagic's. `file` does not report them: such a text may be HTML.
const ADDED_BY_MAGIC_DB: [&str; 4] =
    ["text/x-rust", "text/x-raku", "text/vnd.typst", "image/x-bitmap"];

/// Message of nodes that require all rules to be evaluated. Must match `ELSEWHERE` in `src/buckets.rs`.
const ELSEWHERE: &str = r#"{"String":"(elsewhere)"}"#;

/// JSON that is passed through unchanged. Some numbers have 128 bits, which `serde_json::Value` cannot represent.
type RawJson = Box<RawValue>;

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-changed=build");
    let directory = env::var_os("OUT_DIR").ok_or("OUT_DIR is not set")?;
    let file = |name: &str| Path::new(&directory).join(name);
    let mut all: RuleDatabase = serde_json::from_str(&serde_json::to_string(&magic_db::load()?)?)?;
    // `file` does not have these rules.
    let added = all.dependencies.iter().filter(|(_, named)| named.rule.entries.has_added_type());
    let added: HashSet<String> = added.map(|(name, _)| name.clone()).collect();
    all.rules.retain(|rule| !rule.entries.has_added_type() && !rule.entries.may_use(&added));
    all.dependencies.retain(|name, _| !added.contains(name));
    let named = all.dependencies.values_mut().map(|named| &mut named.rule);
    for rule in all.rules.iter_mut().chain(named) {
        let is_text = rule.is_text.get() == "true";
        rule.entries.rewrite_regexes(is_text)?;
        rule.entries.ignore_text_gate()?;
        if rule.entries.is_test_for_docstring() {
            rule.entries.mimetype = None;
        }
    }
    // Before 5.46, this rule precedes the other rules for Python.
    let docstring = all.rules.iter().position(|rule| rule.entries.is_test_for_docstring());
    let python = all.rules.iter().position(|rule| {
        rule.is_text.get() == "true"
            && rule.source.as_ref().is_some_and(|s| s.get() == r#""python""#)
    });
    if let (Some(docstring), Some(python)) = (docstring, python) {
        let rule = all.rules.remove(docstring);
        all.rules.insert(python.min(docstring), rule);
    }
    write(&file("filetypes-unpruned"), &all.with_rules(|rule| rule.is_text.get() != "true"))?;
    write(&file("filetypes-unpruned-texts"), &all.with_rules(|rule| rule.is_text.get() == "true"))?;
    let typed_names = find_typed_names(&all.dependencies);
    let named = all.dependencies.values_mut().map(|named| &mut named.rule);
    for rule in all.rules.iter_mut().chain(named) {
        rule.source = None;
        rule.extensions.clear();
        rule.entries = prune(&rule.entries, &typed_names);
    }
    let texts = all.with_rules(|rule| rule.is_text.get() == "true");
    let all = all.with_rules(|rule| rule.is_text.get() != "true");
    write(&file("filetypes"), &all)?;
    write(&file("filetypes-texts"), &texts)?;
    fs::write(file("filetypes-types"), types([&all, &texts])?)?;
    let RuleBuckets { by_first_byte, others } = split_into_buckets(&all)?;
    for (class, rules) in by_first_byte.iter().enumerate() {
        write(&file(&format!("filetypes-first-{class}")), rules)?;
    }
    for (part, rules) in others.iter().enumerate() {
        write(&file(&format!("filetypes-other-{part}")), rules)?;
    }
    Ok(())
}

/// Returns the types in the rules, one a line.
fn types(databases: [&RuleDatabase; 2]) -> Result<String, serde_json::Error> {
    let mut types = BTreeSet::new();
    for database in databases {
        let named = database.dependencies.values().map(|named| &named.rule);
        for rule in database.rules.iter().chain(named) {
            rule.entries.collect_types(&mut types)?;
        }
    }
    Ok(types.into_iter().collect::<Vec<_>>().join("\n"))
}

/// Writes rules in the engine's binary format.
fn write(path: &Path, rules: &RuleDatabase) -> Result<(), Box<dyn Error>> {
    let rules: MagicDb = serde_json::from_str(&serde_json::to_string(rules)?)?;
    let mut bytes = Vec::new();
    rules.serialize(&mut bytes)?;
    Ok(fs::write(path, bytes)?)
}

/// Rules grouped by the first byte that they require. Each rule's `source` is its position in the overall order.
struct RuleBuckets {
    /// Rules that require a certain first byte, by its lower half.
    by_first_byte: Vec<RuleDatabase>,
    /// Rules without a required first byte: the first quarter of the overall order, which detects most types that
    /// users send, and the rest.
    others: [RuleDatabase; 2],
}

/// Number of buckets by first byte. Must match `BY_FIRST_BYTE` in `src/buckets.rs`.
const CLASSES: u8 = 16;

fn split_into_buckets(all: &RuleDatabase) -> Result<RuleBuckets, Box<dyn Error>> {
    let mut by_first_byte: BTreeMap<u8, Vec<RuleData>> =
        (0..CLASSES).map(|class| (class, Vec::new())).collect();
    let (mut frequent, mut rest) = (Vec::new(), Vec::new());
    for (position, rule) in all.rules.iter().enumerate() {
        let mut rule = rule.clone();
        rule.entries.reduce_to_first_match(false, false)?;
        rule.source = Some(raw_string(&position.to_string())?);
        match rule.entries.entry.first_byte() {
            Some(byte) => by_first_byte.entry(byte % CLASSES).or_default().push(rule),
            None if position < all.rules.len() / 4 => frequent.push(rule),
            None => rest.push(rule),
        }
    }
    let mut named = all.dependencies.clone();
    for named in named.values_mut() {
        named.rule.entries.reduce_to_first_match(false, false)?;
    }
    let database = |rules: Vec<RuleData>| {
        let mut used = HashSet::new();
        for rule in &rules {
            rule.entries.collect_used(&named, &mut used);
        }
        let dependencies = named
            .iter()
            .filter(|(name, _)| used.contains(*name))
            .map(|(k, v)| (k.clone(), v.clone()));
        RuleDatabase {
            rule_id: all.rule_id.clone(),
            dependencies: dependencies.collect(),
            rules,
            finalized: all.finalized.clone(),
        }
    };
    Ok(RuleBuckets {
        by_first_byte: by_first_byte.into_values().map(database).collect(),
        others: [frequent, rest].map(database),
    })
}

/// Returns a JSON string.
fn raw_string(text: &str) -> Result<RawJson, serde_json::Error> {
    serde_json::value::to_raw_value(text)
}

impl RuleDatabase {
    /// Returns a database with only some of the rules.
    fn with_rules(&self, keep: impl Fn(&RuleData) -> bool) -> Self {
        Self {
            rule_id: self.rule_id.clone(),
            rules: self.rules.iter().filter(|rule| keep(rule)).cloned().collect(),
            dependencies: self.dependencies.clone(),
            finalized: self.finalized.clone(),
        }
    }
}

impl RuleEntry {
    /// Returns the first byte that a file must have to match, if the test requires a certain one.
    fn first_byte(&self) -> Option<u8> {
        #[derive(Deserialize)]
        struct StringTest {
            test_val: HashMap<String, RawJson>,
            cmp_op: String,
            length: Option<RawJson>,
            mods: u64,
        }
        #[derive(Deserialize)]
        struct ScalarTest {
            ty: String,
            transform: Option<ScalarTransform>,
            cmp_op: String,
            test_val: HashMap<String, RawJson>,
        }
        #[derive(Deserialize)]
        struct ScalarTransform {
            op: String,
            num: HashMap<String, RawJson>,
        }
        if self.offset.get() != r#"{"Direct":{"Start":0}}"# {
            return None;
        }
        let tests: HashMap<String, RawJson> = serde_json::from_str(self.test.get()).ok()?;
        if let Some(text) = tests.get("String") {
            let text: StringTest = serde_json::from_str(text.get()).ok()?;
            // The first modifier does not affect the comparison: the engine skips such tests for texts.
            let is_exact = text.cmp_op == "Eq" && text.length.is_none() && text.mods <= 1;
            let expected: Vec<u8> = serde_json::from_str(text.test_val.get("Value")?.get()).ok()?;
            return expected.first().copied().filter(|_| is_exact);
        }
        let number: ScalarTest = serde_json::from_str(tests.get("Scalar")?.get()).ok()?;
        let (order, size) = match number.ty.trim_start_matches('u') {
            "byte" => ("be", 1),
            "beshort" => ("be", 2),
            "belong" => ("be", 4),
            "bequad" => ("be", 8),
            "leshort" | "lelong" | "lequad" => ("le", 1),
            "short" | "long" | "quad" if cfg!(target_endian = "little") => ("le", 1),
            _ => return None,
        };
        // The byte of a number that comes first in a file.
        let first = |value: &HashMap<String, RawJson>| {
            let value: i128 = serde_json::from_str(value.get(&number.ty)?.get()).ok()?;
            let byte = if order == "be" { value >> (8 * (size - 1)) } else { value };
            u8::try_from(byte & 0xff).ok()
        };
        let is_masked = match &number.transform {
            None => false,
            Some(ScalarTransform { op, num }) => op != "And" || first(num) != Some(0xff),
        };
        let expected = serde_json::from_str(number.test_val.get("Value")?.get()).ok()?;
        first(&expected).filter(|_| number.cmp_op == "Eq" && !is_masked)
    }
}

/// Returns the named rules that can yield a type, directly or through the rules that they use.
fn find_typed_names(named: &BTreeMap<String, NamedRule>) -> HashSet<String> {
    let mut typed_names = HashSet::new();
    loop {
        let before = typed_names.len();
        for (name, named) in named {
            if named.rule.entries.can_yield_type(&typed_names) {
                typed_names.insert(name.clone());
            }
        }
        if typed_names.len() == before {
            return typed_names;
        }
    }
}

/// Returns a rule without the nodes that cannot affect the type.
///
/// Repeats until stable: a remaining `default` keeps other nodes, which may be `default`s themselves.
fn prune(rule: &RuleNode, typed_names: &HashSet<String>) -> RuleNode {
    let mut default_depths = HashSet::new();
    loop {
        let mut pruned = rule.clone();
        pruned.remove_descriptions(false, &default_depths, typed_names);
        let before = default_depths.len();
        pruned.visit(&mut |node| {
            if node.is_test("Default") {
                default_depths.insert(node.entry.depth);
            }
        });
        if default_depths.len() == before {
            return pruned;
        }
    }
}

impl RuleNode {
    /// Adds the types of this node and its children.
    fn collect_types(&self, types: &mut BTreeSet<String>) -> Result<(), serde_json::Error> {
        if let Some(name) = &self.mimetype {
            types.insert(serde_json::from_str(name.get())?);
        }
        self.children.iter().try_for_each(|child| child.collect_types(types))
    }

    /// Removes messages and nodes that can add text to the description but cannot change the MIME type.
    ///
    /// `has_message`: whether the ancestors of this node always produce a message before the node is evaluated.
    /// `default_depths`: the depths at which a `default` depends on whether a node matched.
    fn remove_descriptions(
        &mut self,
        has_message: bool,
        default_depths: &HashSet<u8>,
        typed_names: &HashSet<String>,
    ) {
        self.exts.clear();
        if has_message {
            self.entry.message = None;
        }
        let has_message = has_message || self.has_fixed_message();
        self.children.retain(|child| {
            let mut affects_default = false;
            child.visit(&mut |node| affects_default |= default_depths.contains(&node.entry.depth));
            !has_message || affects_default || child.can_yield_type(typed_names)
        });
        for child in &mut self.children {
            child.remove_descriptions(has_message, default_depths, typed_names);
        }
    }

    /// Reduces a rule to what finds the first match: removes nodes that are evaluated after the type is decided, and
    /// replaces references to all rules, which no single bucket contains, with the message [`ELSEWHERE`].
    fn reduce_to_first_match(
        &mut self,
        has_message: bool,
        has_type: bool,
    ) -> Result<(), serde_json::Error> {
        if self.is_test("Indirect") {
            // `Clear` always matches.
            self.entry.test = raw_string("Clear")?;
            self.entry.message = Some(RawValue::from_string(ELSEWHERE.to_owned())?);
            self.children.clear();
            return Ok(());
        }
        let has_message = has_message || self.has_fixed_message();
        let has_type = has_type || self.mimetype.is_some();
        if has_message && has_type {
            self.children.clear();
        }
        self.children
            .iter_mut()
            .try_for_each(|child| child.reduce_to_first_match(has_message, has_type))
    }

    /// Collects the named rules that this node uses, directly and indirectly.
    fn collect_used(&self, named: &BTreeMap<String, NamedRule>, used: &mut HashSet<String>) {
        self.visit(&mut |node| {
            for (name, rule) in named {
                let name = HashSet::from([name.clone()]);
                if node.is_test("Use") && node.uses_any(&name) && used.is_disjoint(&name) {
                    used.extend(name);
                    rule.rule.entries.collect_used(named, used);
                }
            }
        });
    }

    /// Returns whether this node has a non-empty message whenever it matches. The message must not contain file
    /// content. Nodes that refer to other rules have the messages of those rules.
    fn has_fixed_message(&self) -> bool {
        let message = self.entry.message.as_ref();
        let text = message.and_then(|message| message.get().strip_prefix(r#"{"String":"#));
        !self.is_test("Use")
            && !self.is_test("Indirect")
            && text.is_some_and(|text| text != r#"""}"#)
    }

    /// Returns whether a type can result from this node or its descendants.
    fn can_yield_type(&self, typed_names: &HashSet<String>) -> bool {
        let mut can_yield = false;
        self.visit(&mut |node| {
            // An indirect node refers to all rules.
            can_yield |=
                node.mimetype.is_some() || node.is_test("Indirect") || node.uses_any(typed_names);
        });
        can_yield
    }

    /// Returns whether this node uses one of these rules.
    fn uses_any(&self, names: &HashSet<String>) -> bool {
        // Whether the byte order is swapped, and the rule's name.
        let test: Result<HashMap<String, (bool, String)>, _> =
            serde_json::from_str(self.entry.test.get());
        // A test that cannot be parsed may refer to any rule.
        let uses = |test: HashMap<String, (bool, String)>| {
            test.values().any(|(_, name)| names.contains(name))
        };
        self.is_test("Use") && test.map_or(true, uses)
    }

    /// Returns whether this rule itself yields a type that `magic-db` adds to those of libmagic.
    fn has_added_type(&self) -> bool {
        let mut has_added = false;
        self.visit(&mut |node| {
            let name = node.mimetype.as_ref().map(|name| name.get().trim_matches('"'));
            has_added |= name.is_some_and(|name| ADDED_BY_MAGIC_DB.contains(&name));
        });
        has_added
    }

    /// Returns whether this node or a descendant uses one of these rules.
    fn may_use(&self, names: &HashSet<String>) -> bool {
        let mut uses = false;
        self.visit(&mut |node| uses |= node.uses_any(names));
        uses
    }

    /// Returns whether this is the rule for a leading docstring. `file` before 5.46 calls such a text a Python script,
    /// but its type is `text/plain`: messages begin like that, too.
    fn is_test_for_docstring(&self) -> bool {
        self.is_test("String") && self.entry.test.get().contains(r#""Value":[34,34,34]"#)
    }

    /// Evaluates the rule for every kind of file, except where it is only for binary files: `Detector` selects the
    /// rules for texts, and libmagic evaluates rules with both kinds of tests for every file.
    fn ignore_text_gate(&mut self) -> Result<(), serde_json::Error> {
        if self.entry.stream_gate.get() == r#""SkipOnBinary""# {
            self.entry.stream_gate = raw_string("Never")?;
        }
        self.children.iter_mut().try_for_each(Self::ignore_text_gate)
    }

    fn visit(&self, callback: &mut impl FnMut(&Self)) {
        callback(self);
        for child in &self.children {
            child.visit(callback);
        }
    }

    /// Returns whether this node's test is of this kind.
    fn is_test(&self, kind: &str) -> bool {
        let test = self.entry.test.get();
        let name = test.trim_start_matches(['{', '"']).split('"').next();
        name == Some(kind)
    }
}
