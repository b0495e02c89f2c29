//! Makes the rules of file types leaner than they come: this program asks for a file's media type alone, and two
//! nodes in five can but describe a file whose type is decided. They cost memory for as long as the program runs,
//! and time in each examination. And lays them out on shelves, so that of the three rules in four that want a certain first
//! byte few are looked at for any one file.
//!
//! What a rule finds stays the same. The engine takes the first rule that has anything to say, and the first type on
//! its way; so a node goes if something has been said for certain before it is reached, no type can come of it, and
//! no `default`, which is for when nothing at its depth held, can see whether it held. Rules of texts stay whole: where
//! the first answer for a text is one that `file` does not give, `scan::filetype` takes the next by how much of each rule
//! held. It has tests that hold both forms against each other.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    env,
    error::Error,
    fs,
    path::Path,
};

use pure_magic::MagicDb;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

/// The engine's rules, as it serializes them.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Database {
    rule_id: Same,
    rules: Vec<Rule>,
    /// What a node may `use`.
    dependencies: BTreeMap<String, Named>,
    finalized: Same,
}

#[derive(Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Named {
    name: Same,
    rule: Rule,
}

#[derive(Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Rule {
    id: Same,
    /// Where it was written.
    source: Option<Same>,
    entries: Node,
    /// Names of files; nobody asks by them.
    extensions: Vec<Same>,
    score: Same,
    is_text: Same,
    finalized: Same,
    max_score: Same,
}

#[derive(Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Node {
    root: Same,
    entry: Entry,
    /// Looked at where this one holds.
    children: Vec<Node>,
    mimetype: Option<Same>,
    apple: Option<Same>,
    strength_mod: Option<Same>,
    exts: Vec<Same>,
}

#[derive(Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Entry {
    line: Same,
    depth: u8,
    offset: Same,
    test: Same,
    test_strength: Same,
    message: Option<Same>,
    stream_gate: Same,
}

/// Said where all rules are to be asked. As in `scan::filetype::shelves`.
const ELSEWHERE: &str = r#"{"String":"(elsewhere)"}"#;

/// What stays as it is. Some numbers have 128 bits, which a `Value` cannot hold.
type Same = Box<RawValue>;

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo::rerun-if-changed=build.rs");
    let mut all: Database = serde_json::from_str(&serde_json::to_string(&magic_db::load()?)?)?;
    let naming = naming(&all.dependencies);
    let named = all.dependencies.values_mut().map(|named| &mut named.rule);
    for rule in all.rules.iter_mut().chain(named) {
        rule.source = None;
        rule.extensions.clear();
        if rule.is_text.get() != "true" {
            rule.entries = leanest(&rule.entries, &naming);
        }
    }
    let directory = env::var_os("OUT_DIR").ok_or("cargo tells no OUT_DIR")?;
    let file = |name: &str| Path::new(&directory).join(name);
    write(&file("filetypes"), &all)?;
    let Shelves { by_first_byte, others, texts } = shelves(&all)?;
    for (class, rules) in by_first_byte.iter().enumerate() {
        write(&file(&format!("filetypes-first-{class}")), rules)?;
    }
    for (part, rules) in others.iter().enumerate() {
        write(&file(&format!("filetypes-other-{part}")), rules)?;
    }
    write(&file("filetypes-texts"), &texts)
}

/// As the program reads them.
fn write(path: &Path, rules: &Database) -> Result<(), Box<dyn Error>> {
    let rules: MagicDb = serde_json::from_str(&serde_json::to_string(rules)?)?;
    let mut bytes = Vec::new();
    rules.serialize(&mut bytes)?;
    Ok(fs::write(path, bytes)?)
}

/// Rules by what they want of a file's first byte. All are numbered in the order of the whole, as their source.
struct Shelves {
    /// Those that want a certain one, by its lower half.
    by_first_byte: Vec<Database>,
    /// All others, in two parts: the first quarter of the order, in which most types that people send are found, and the rest.
    others: [Database; 2],
    /// Of the others those that the engine passes by where a file is no text.
    texts: Database,
}

/// As in `scan::filetype::shelves`.
const CLASSES: u8 = 16;

fn shelves(all: &Database) -> Result<Shelves, Box<dyn Error>> {
    let mut by_first_byte: BTreeMap<u8, Vec<Rule>> =
        (0..CLASSES).map(|class| (class, Vec::new())).collect();
    let (mut frequent, mut rest, mut texts) = (Vec::new(), Vec::new(), Vec::new());
    for (place, rule) in all.rules.iter().enumerate() {
        let mut rule = rule.clone();
        rule.entries.settle(false, false)?;
        rule.source = Some(raw(&place.to_string())?);
        match rule.entries.entry.first_byte() {
            Some(byte) => by_first_byte.entry(byte % CLASSES).or_default().push(rule),
            None if rule.entries.entry.stream_gate.get() == r#""SkipOnBinary""# => texts.push(rule),
            None if place < all.rules.len() / 4 => frequent.push(rule),
            None => rest.push(rule),
        }
    }
    let mut named = all.dependencies.clone();
    for named in named.values_mut() {
        named.rule.entries.settle(false, false)?;
    }
    let database = |rules: Vec<Rule>| {
        let mut used = HashSet::new();
        for rule in &rules {
            rule.entries.collect_used(&named, &mut used);
        }
        let dependencies = named
            .iter()
            .filter(|(name, _)| used.contains(*name))
            .map(|(k, v)| (k.clone(), v.clone()));
        Database {
            rule_id: all.rule_id.clone(),
            dependencies: dependencies.collect(),
            rules,
            finalized: all.finalized.clone(),
        }
    };
    Ok(Shelves {
        by_first_byte: by_first_byte.into_values().map(database).collect(),
        others: [frequent, rest].map(database),
        texts: database(texts),
    })
}

/// A JSON string.
fn raw(text: &str) -> Result<Same, serde_json::Error> {
    serde_json::value::to_raw_value(text)
}

impl Entry {
    /// The byte that a file has to begin with, if its test wants a certain one there.
    fn first_byte(&self) -> Option<u8> {
        #[derive(Deserialize)]
        struct Text {
            test_val: HashMap<String, Same>,
            cmp_op: String,
            length: Option<Same>,
            mods: u64,
        }
        #[derive(Deserialize)]
        struct Number {
            ty: String,
            transform: Option<Transform>,
            cmp_op: String,
            test_val: HashMap<String, Same>,
        }
        #[derive(Deserialize)]
        struct Transform {
            op: String,
            num: HashMap<String, Same>,
        }
        if self.offset.get() != r#"{"Direct":{"Start":0}}"# {
            return None;
        }
        let kinds: HashMap<String, Same> = serde_json::from_str(self.test.get()).ok()?;
        if let Some(text) = kinds.get("String") {
            let text: Text = serde_json::from_str(text.get()).ok()?;
            // The first modifier is for the engine: to pass it by where a file is a text.
            let plain = text.cmp_op == "Eq" && text.length.is_none() && text.mods <= 1;
            let wanted: Vec<u8> = serde_json::from_str(text.test_val.get("Value")?.get()).ok()?;
            return wanted.first().copied().filter(|_| plain);
        }
        let number: Number = serde_json::from_str(kinds.get("Scalar")?.get()).ok()?;
        let (order, size) = match number.ty.trim_start_matches('u') {
            "byte" => ("be", 1),
            "beshort" => ("be", 2),
            "belong" => ("be", 4),
            "bequad" => ("be", 8),
            "leshort" | "lelong" | "lequad" => ("le", 1),
            "short" | "long" | "quad" if cfg!(target_endian = "little") => ("le", 1),
            _ => return None,
        };
        // Of a number as it is written here, the byte that comes first in a file.
        let first = |written: &HashMap<String, Same>| {
            let value: i128 = serde_json::from_str(written.get(&number.ty)?.get()).ok()?;
            let byte = if order == "be" { value >> (8 * (size - 1)) } else { value };
            u8::try_from(byte & 0xff).ok()
        };
        let masked = match &number.transform {
            None => false,
            Some(Transform { op, num }) => op != "And" || first(num) != Some(0xff),
        };
        let wanted = serde_json::from_str(number.test_val.get("Value")?.get()).ok()?;
        first(&wanted).filter(|_| number.cmp_op == "Eq" && !masked)
    }
}

/// Those of the named rules that a type can come of, themselves or by what they use.
fn naming(named: &BTreeMap<String, Named>) -> HashSet<String> {
    let mut naming = HashSet::new();
    loop {
        let before = naming.len();
        for (name, named) in named {
            if named.rule.entries.can_name(&naming) {
                naming.insert(name.clone());
            }
        }
        if naming.len() == before {
            return naming;
        }
    }
}

/// A rule without what goes. A `default` that stays keeps others, which may be `default`s themselves.
fn leanest(rule: &Node, naming: &HashSet<String>) -> Node {
    let mut seen = HashSet::new();
    loop {
        let mut lean = rule.clone();
        lean.lean(false, &seen, naming);
        let before = seen.len();
        lean.visit(&mut |node| {
            if node.is("Default") {
                seen.insert(node.entry.depth);
            }
        });
        if seen.len() == before {
            return lean;
        }
    }
}

impl Node {
    /// `said`: whether something has been said for certain where this node is reached. `seen`: the depths at which
    /// it is seen whether a node held.
    fn lean(&mut self, said: bool, seen: &HashSet<u8>, naming: &HashSet<String>) {
        self.exts.clear();
        if said {
            self.entry.message = None;
        }
        let said = said || self.says();
        self.children.retain(|child| {
            let mut is_seen = false;
            child.visit(&mut |node| is_seen |= seen.contains(&node.entry.depth));
            !said || is_seen || child.can_name(naming)
        });
        for child in &mut self.children {
            child.lean(said, seen, naming);
        }
    }

    /// For the first rule that has anything to say, and no other use: leaves out what is looked at once a type is decided, and
    /// has what leads to all rules, which are not on one shelf, say [`ELSEWHERE`].
    fn settle(&mut self, said: bool, named: bool) -> Result<(), serde_json::Error> {
        if self.is("Indirect") {
            // Holds wherever it is reached.
            self.entry.test = raw("Clear")?;
            self.entry.message = Some(RawValue::from_string(ELSEWHERE.to_owned())?);
            self.children.clear();
            return Ok(());
        }
        let said = said || self.says();
        let named = named || self.mimetype.is_some();
        if said && named {
            self.children.clear();
        }
        self.children.iter_mut().try_for_each(|child| child.settle(said, named))
    }

    /// The rules that it leads to, and those that these lead to.
    fn collect_used(&self, named: &BTreeMap<String, Named>, used: &mut HashSet<String>) {
        self.visit(&mut |node| {
            for (name, rule) in named {
                let name = HashSet::from([name.clone()]);
                if node.is("Use") && node.uses_any(&name) && used.is_disjoint(&name) {
                    used.extend(name);
                    rule.rule.entries.collect_used(named, used);
                }
            }
        });
    }

    /// Whether it says something wherever it holds: a text that is not made of what the file has. What leads to other
    /// rules speaks through them.
    fn says(&self) -> bool {
        let text =
            self.entry.message.as_ref().and_then(|it| it.get().strip_prefix(r#"{"String":"#));
        !self.is("Use") && !self.is("Indirect") && text.is_some_and(|text| text != r#"""}"#)
    }

    /// Whether a type can come of it, or of what is looked at where it holds.
    fn can_name(&self, naming: &HashSet<String>) -> bool {
        let mut can = false;
        self.visit(&mut |node| {
            // What is indirect leads to all rules.
            can |= node.mimetype.is_some() || node.is("Indirect") || node.uses_any(naming);
        });
        can
    }

    /// Whether it leads to one of these rules.
    fn uses_any(&self, names: &HashSet<String>) -> bool {
        // Whether by the other byte order, and the rule's name.
        let test: Result<HashMap<String, (bool, String)>, _> =
            serde_json::from_str(self.entry.test.get());
        // What cannot be read may lead anywhere.
        let leads = |test: HashMap<String, (bool, String)>| {
            test.values().any(|(_, name)| names.contains(name))
        };
        self.is("Use") && test.map_or(true, leads)
    }

    fn visit(&self, look: &mut impl FnMut(&Self)) {
        look(self);
        for child in &self.children {
            child.visit(look);
        }
    }

    /// Whether its test is of this kind.
    fn is(&self, kind: &str) -> bool {
        let test = self.entry.test.get();
        let name = test.trim_start_matches(['{', '"']).split('"').next();
        name == Some(kind)
    }
}
