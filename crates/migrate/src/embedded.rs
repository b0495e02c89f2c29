//! Finds the configuration in a Kubernetes manifest or in the values of a Helm chart: as a part of the file, or as the text of a key,
//! with the scripts beside it.

use std::{collections::BTreeMap, rc::Rc};

use crate::{
    source::{self, Predecessor},
    yaml::{self, MapEntry, Node, Yaml},
};

/// The configuration in a file.
pub(crate) struct Located {
    pub(crate) root: Rc<Node>,
    pub(crate) from: Predecessor,
    /// Path of the key that contains it; `None` if the file is the configuration.
    pub(crate) path: Option<String>,
    /// Texts of scripts in the file, by the names of their keys.
    pub(crate) scripts: BTreeMap<String, String>,
}

/// Reason why there is not exactly one configuration.
pub(crate) enum LocateError {
    NotFound,
    /// Their keys and lines.
    Several(String),
}

/// Finds the only configuration in the documents of a file.
pub(crate) fn locate(documents: &[Rc<Node>]) -> Result<Located, LocateError> {
    if let [root] = documents
        && let Some(from) = source::detect(root)
    {
        let root = Rc::clone(root);
        return Ok(Located { root, from, path: None, scripts: BTreeMap::new() });
    }
    let mut search = Search::default();
    for document in documents {
        search.visit_all(document);
    }
    let Search { mut found, scripts, .. } = search;
    match found.len() {
        0 => Err(LocateError::NotFound),
        1 => {
            let (path, root, from) = found.swap_remove(0);
            Ok(Located { root, from, path: Some(path), scripts })
        }
        _ => {
            let keys: Vec<_> = found
                .iter()
                .map(|(path, root, _)| format!("{path} (line {})", root.line))
                .collect();
            Err(LocateError::Several(keys.join(", ")))
        }
    }
}

#[derive(Default)]
struct Search {
    found: Vec<(String, Rc<Node>, Predecessor)>,
    scripts: BTreeMap<String, String>,
}

impl Search {
    /// Visits a document. Does not recurse; the size of what aliases expand to is limited by the parser.
    fn visit_all(&mut self, document: &Rc<Node>) {
        let mut open = vec![(String::new(), Rc::clone(document))];
        while let Some((path, node)) = open.pop() {
            match &node.value {
                Yaml::Null | Yaml::Text(_) => {}
                Yaml::List(elements) => {
                    let elements = elements.iter().enumerate().rev();
                    open.extend(
                        elements.map(|(at, node)| (format!("{path}[{at}]"), Rc::clone(node))),
                    );
                }
                Yaml::Map(entries) => {
                    // In reverse order, because the last one is visited first.
                    for entry in entries.iter().rev() {
                        let separator = if path.is_empty() { "" } else { "." };
                        let path = format!("{path}{separator}{}", entry.key);
                        if !self.visit(&path, entry) {
                            open.push((path, Rc::clone(&entry.node)));
                        }
                    }
                }
            }
        }
        self.found.sort_by_key(|(_, root, _)| root.line);
    }

    /// Returns whether the value is a configuration.
    fn visit(&mut self, path: &str, entry: &MapEntry) -> bool {
        let root = match &entry.node.value {
            Yaml::Text(text) if text.starts_with("#!") => {
                self.scripts.insert(entry.key.clone(), text.clone());
                return false;
            }
            Yaml::Text(text) if text.contains('\n') => yaml::parse_at(text, entry.node.line).ok(),
            Yaml::Map(_) => Some(Rc::clone(&entry.node)),
            _ => None,
        };
        let Some(root) = root.filter(|root| has_script(root)) else { return false };
        let Some(from) = source::detect(&root) else { return false };
        self.found.push((path.to_owned(), root, from));
        true
    }
}

/// Returns whether the value has `scan.script`. The names of other sections are common.
fn has_script(root: &Node) -> bool {
    let value = |node: &Node, key: &str| match &node.value {
        Yaml::Map(entries) => {
            entries.iter().find(|entry| entry.key == key).map(|entry| Rc::clone(&entry.node))
        }
        _ => None,
    };
    value(root, "scan").is_some_and(|scan| value(&scan, "script").is_some())
}
