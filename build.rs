//! Makes the rules of file types leaner than they come: this program asks for a file's media type alone, and two
//! nodes in five can but describe a file whose type is decided. They cost memory for as long as the program runs,
//! and time in each examination.
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

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Named {
    name: Same,
    rule: Rule,
}

#[derive(Serialize, Deserialize)]
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
    let lean: MagicDb = serde_json::from_str(&serde_json::to_string(&all)?)?;
    let mut bytes = Vec::new();
    lean.serialize(&mut bytes)?;
    let directory = env::var_os("OUT_DIR").ok_or("cargo tells no OUT_DIR")?;
    Ok(fs::write(Path::new(&directory).join("filetypes"), bytes)?)
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
