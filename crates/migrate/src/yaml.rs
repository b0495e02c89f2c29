//! YAML as far as a configuration needs it: a small tree in which every node knows its line.
//!
//! The text may be anything: its size, its depth and its nodes are bounded, an alias shares its
//! anchor's node instead of copying it, and nothing here recurses. <https://yaml.org/spec/1.2.2/>

use std::{collections::HashMap, rc::Rc};

use saphyr_parser::{Event, Parser, ScalarStyle, Span, Tag};

/// Larger text is no configuration of a page or two.
pub(super) const MAX_SIZE: usize = 256 * 1024;

/// Both scanners' files are at most four deep.
const MAX_DEPTH: usize = 16;

/// What the core schema's tags begin with; others would change what a value is.
const CORE: &str = "tag:yaml.org,2002:";

/// Why a text is no YAML that can be read here; lines count from 1.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum YamlError {
    /// The text is longer than a configuration.
    #[error("it is larger than {} KiB, which is no configuration", MAX_SIZE / 1024)]
    TooLarge,
    /// The parser says.
    #[error("line {line}: not YAML: {message}")]
    Syntax {
        /// Where.
        line: usize,
        /// In the parser's words.
        message: String,
    },
    /// Lists and mappings within each other.
    #[error("line {0}: nested deeper than {MAX_DEPTH} levels")]
    TooDeep(usize),
    /// What YAML allows and no such file has.
    #[error("line {line}: {what} is not read here; write the values out")]
    Unsupported {
        /// Where.
        line: usize,
        /// What it is.
        what: &'static str,
    },
    /// Comments alone, or nothing.
    #[error("there is nothing in it")]
    Empty,
}

/// A value and where it begins. No `Debug`: it may be a secret.
pub(super) struct Node {
    pub(super) line: usize,
    pub(super) value: Yaml,
    /// Levels below and with this one.
    height: usize,
}

pub(super) enum Yaml {
    Null,
    Text(String),
    List(Vec<Rc<Node>>),
    Map(Vec<Entry>),
}

pub(super) struct Entry {
    pub(super) key: String,
    pub(super) line: usize,
    pub(super) node: Rc<Node>,
}

/// A list or mapping that has not ended yet.
struct Open {
    line: usize,
    anchor: usize,
    height: usize,
    content: Content,
}

enum Content {
    List(Vec<Rc<Node>>),
    /// With the key whose value comes next.
    Map(Vec<Entry>, Option<(String, usize)>),
}

/// The only document of the text.
pub(super) fn parse(text: &str) -> Result<Rc<Node>, YamlError> {
    if text.len() > MAX_SIZE {
        return Err(YamlError::TooLarge);
    }
    let mut builder = Builder::default();
    for event in Parser::new_from_str(text) {
        let (event, span) = event.map_err(|error| YamlError::Syntax {
            line: error.marker().line(),
            message: error.info().to_owned(),
        })?;
        builder.take(event, &span)?;
    }
    builder.root.ok_or(YamlError::Empty)
}

#[derive(Default)]
struct Builder {
    open: Vec<Open>,
    /// Finished nodes by their anchor, so that none can hold itself.
    anchors: HashMap<usize, Rc<Node>>,
    root: Option<Rc<Node>>,
}

impl Builder {
    fn take(&mut self, event: Event<'_>, span: &Span) -> Result<(), YamlError> {
        let line = span.start.line();
        match event {
            Event::DocumentStart(_) if self.root.is_some() => {
                return Err(YamlError::Unsupported { line, what: "a second document" });
            }
            Event::Scalar(text, style, anchor, tag) => {
                check_tag(tag.as_deref(), line)?;
                let is_null = style == ScalarStyle::Plain
                    && matches!(&*text, "" | "~" | "null" | "Null" | "NULL");
                let value = if is_null { Yaml::Null } else { Yaml::Text(text.into_owned()) };
                self.close(Node { line, value, height: 1 }, anchor)?;
            }
            Event::SequenceStart(anchor, tag) => {
                check_tag(tag.as_deref(), line)?;
                self.open(line, anchor, Content::List(Vec::new()))?;
            }
            Event::MappingStart(anchor, tag) => {
                check_tag(tag.as_deref(), line)?;
                self.open(line, anchor, Content::Map(Vec::new(), None))?;
            }
            Event::SequenceEnd | Event::MappingEnd => {
                if let Some(Open { line, anchor, height, content }) = self.open.pop() {
                    let value = match content {
                        Content::List(list) => Yaml::List(list),
                        Content::Map(entries, _) => Yaml::Map(entries),
                    };
                    self.close(Node { line, value, height: height + 1 }, anchor)?;
                }
            }
            Event::Alias(anchor) => {
                let what = "an alias of something that has not ended";
                let node = self.anchors.get(&anchor).cloned();
                self.place(node.ok_or(YamlError::Unsupported { line, what })?, line)?;
            }
            Event::DocumentStart(_)
            | Event::DocumentEnd
            | Event::StreamStart
            | Event::StreamEnd
            | Event::Nothing => {}
        }
        Ok(())
    }

    fn open(&mut self, line: usize, anchor: usize, content: Content) -> Result<(), YamlError> {
        if self.open.len() >= MAX_DEPTH {
            return Err(YamlError::TooDeep(line));
        }
        self.open.push(Open { line, anchor, height: 0, content });
        Ok(())
    }

    fn close(&mut self, node: Node, anchor: usize) -> Result<(), YamlError> {
        let line = node.line;
        let node = Rc::new(node);
        if anchor != 0 {
            self.anchors.insert(anchor, Rc::clone(&node));
        }
        self.place(node, line)
    }

    /// Where the node belongs: as a key, as a value, as an element, or as the whole document.
    fn place(&mut self, node: Rc<Node>, line: usize) -> Result<(), YamlError> {
        let Some(parent) = self.open.last_mut() else {
            self.root = Some(node);
            return Ok(());
        };
        // Aliases of aliases build towers that no nesting in the text shows.
        parent.height = parent.height.max(node.height);
        if parent.height > MAX_DEPTH {
            return Err(YamlError::TooDeep(line));
        }
        match &mut parent.content {
            Content::List(list) => list.push(node),
            Content::Map(entries, key) => match (key.take(), &node.value) {
                (Some((key, line)), _) => entries.push(Entry { key, line, node }),
                (None, Yaml::Text(text)) if text == "<<" => {
                    return Err(YamlError::Unsupported { line, what: "a merge key (<<)" });
                }
                (None, Yaml::Text(text)) => *key = Some((text.clone(), line)),
                (None, _) => {
                    let what = "a key that is no text";
                    return Err(YamlError::Unsupported { line, what });
                }
            },
        }
        Ok(())
    }
}

fn check_tag(tag: Option<&Tag>, line: usize) -> Result<(), YamlError> {
    match tag {
        Some(tag) if tag.handle != CORE && tag.handle != "!!" => {
            Err(YamlError::Unsupported { line, what: "a tag (!)" })
        }
        Some(tag)
            if !["str", "int", "float", "bool", "null", "seq", "map"]
                .contains(&tag.suffix.as_str()) =>
        {
            Err(YamlError::Unsupported { line, what: "a tag (!!)" })
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use super::*;

    fn error(text: &str) -> YamlError {
        match parse(text) {
            Err(error) => error,
            Ok(_) => panic!("was read: {}", text.chars().take(40).collect::<String>()),
        }
    }

    #[test]
    fn values_know_their_lines() {
        let root = parse("# about\na:\n  b: [x, 'y']\n  c: ~\n").unwrap_or_else(|e| panic!("{e}"));
        let Yaml::Map(sections) = &root.value else { panic!("no map") };
        assert_eq!((sections[0].key.as_str(), sections[0].line), ("a", 2));
        let Yaml::Map(keys) = &sections[0].node.value else { panic!("no map") };
        let Yaml::List(list) = &keys[0].node.value else { panic!("no list") };
        assert!(matches!(&list[1].value, Yaml::Text(text) if text == "y"));
        assert!(matches!((&keys[1].node.value, keys[1].line), (Yaml::Null, 4)));
    }

    #[test]
    fn what_is_no_configuration_is_told_with_its_line() {
        assert_eq!(error(""), YamlError::Empty);
        assert_eq!(error("# nothing\n"), YamlError::Empty);
        assert!(matches!(error("a: 1\nb: [1, 2\n"), YamlError::Syntax { line: 2.., .. }));
        assert!(matches!(error("a: 'open"), YamlError::Syntax { .. }));
        for (text, at) in [
            ("a: 1\n---\nb: 2\n", 2),
            ("a: !include x\n", 1),
            ("a: 1\nb: !!python/name:os.system\n", 2),
            ("a: !!binary aGk=\n", 1),
            ("base: &b {x: 1}\nweb:\n  <<: *b\n", 3),
            ("a: &a [*a]\n", 1),
            ("[x]: 1\n", 1),
        ] {
            assert!(
                matches!(error(text), YamlError::Unsupported { line, .. } if line == at),
                "{text}"
            );
        }
        assert_eq!(error(&"x".repeat(MAX_SIZE + 1)), YamlError::TooLarge);
    }

    /// None takes long, whatever becomes of it: the bound is far above what a busy machine needs.
    #[test]
    fn hostile_text_is_read_or_refused_in_bounded_time() {
        let laughs = (0..20).fold("a0: &a0 [x]\n".to_owned(), |text, n| {
            let next = n + 1;
            format!("{text}a{next}: &a{next} [{}]\n", vec![format!("*a{n}"); 9].join(","))
        });
        assert!(matches!(error(&laughs), YamlError::TooDeep(_)));
        let size = MAX_SIZE - 16;
        for unit in [
            "[",
            "{",
            "- ",
            "? ",
            ": ",
            "&a ",
            "*a",
            "!",
            "!!",
            "'",
            "\"",
            "|",
            ">",
            "%",
            "\\",
            "\t",
            "#",
            "a: ",
            "a:\n ",
            "[a,",
            "{a: ",
            "- [",
            "? [",
            "&a [",
            "\n",
            "\n-",
            "---\n",
            "...\n",
            "a:\n",
            "x",
            "x ",
            "\u{85}",
            "\u{feff}",
            "'a': ",
            "\"\\u0041",
            "[\n",
            "{\n",
            "[[[]],",
            "- - ",
            "a: b: ",
            "\"\\\n",
            "? ? ",
            "[? ",
            "{? a: ",
            "&a a: *a\n",
            "|\n ",
            ">2\n  x\n",
        ] {
            let text = unit.repeat(size / unit.len());
            let start = Instant::now();
            let _read_or_refused = parse(&text);
            assert!(start.elapsed() < Duration::from_secs(20), "{unit:?}: {:?}", start.elapsed());
        }
        // Ever deeper, with lines of their own.
        let stairs: Vec<_> = (0..700).map(|n| format!("{}a:\n", " ".repeat(n))).collect();
        let stairs = stairs.concat();
        assert!(matches!(error(&stairs[..size.min(stairs.len())]), YamlError::TooDeep(_)));
    }
}
