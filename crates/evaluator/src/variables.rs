//! External variables of rules.

use boreal::{Compiler, Scanner};

use crate::{
    structure::ContentStructure,
    unpack::{Kind, MediaObject},
};

/// Variables with the position of an object in the media file: public rules use the first three, which scanners of file
/// systems define.
const POSITION: [&str; 4] = ["filename", "filepath", "extension", "container"];

/// Variable with the number of containers around an object.
const DEPTH: &str = "depth";

/// Variable with the name of the media type.
const TYPE: &str = "filetype";

/// Variable that public rules use and that is always empty.
const OWNER: &str = "owner";

/// Variables with the structure of text, which depends on the content only.
const STRUCTURE: [&str; 5] = ["root", "elements", "settings", "fields", "startup_code"];

/// Variable with the offset where text starts.
const TEXT_START: &str = "text_start";

/// Variable that says whether text is a script for Windows' command line.
const IS_BATCH: &str = "is_batch";

/// Which variables a compiler defines.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Variables {
    /// Those that differ between objects with the same content.
    pub(crate) position: bool,
    /// The name of the media type.
    pub(crate) file_type: bool,
}

impl Variables {
    /// Defines the variables for the rules that are compiled next.
    pub(crate) fn define(self, compiler: &mut Compiler) {
        compiler.define_symbol(OWNER, "");
        for name in STRUCTURE {
            compiler.define_symbol(name, "");
        }
        compiler.define_symbol(TEXT_START, 0_i64);
        compiler.define_symbol(IS_BATCH, false);
        if self.file_type {
            compiler.define_symbol(TYPE, "");
        }
        if self.position {
            for name in POSITION {
                compiler.define_symbol(name, "");
            }
            compiler.define_symbol(DEPTH, 0_i64);
        }
    }
}

/// Sets the variables of compiled rules to the values of an object. `file_type` is empty if types are not determined.
pub(crate) fn set(
    scanner: &mut Scanner,
    object: &MediaObject<'_>,
    file_type: &str,
    structure: &ContentStructure,
) {
    let path = object.file_path();
    let name = path.rsplit(['/', '\\']).next().unwrap_or_default();
    let extension = name.rsplit_once('.').map(|(_, extension)| extension);
    let container = object.container.map(Kind::name);
    let values = [name, &path, extension.unwrap_or_default(), container.unwrap_or_default()];
    for (variable, value) in POSITION.into_iter().zip(values) {
        // The variable is unknown to rules that were compiled without it.
        let _unknown = scanner.define_symbol(variable, value);
    }
    let _unknown = scanner.define_symbol(TYPE, file_type);
    let _unknown = scanner.define_symbol(DEPTH, i64::from(object.depth));
    let ContentStructure {
        text_start,
        root,
        elements,
        settings,
        is_batch,
        fields,
        startup_code,
        ..
    } = structure;
    for (variable, value) in
        STRUCTURE.into_iter().zip([root, elements, settings, fields, startup_code])
    {
        let _unknown = scanner.define_symbol(variable, value.as_slice());
    }
    let text_start = i64::try_from(*text_start).unwrap_or(i64::MAX);
    let _unknown = scanner.define_symbol(TEXT_START, text_start);
    let _unknown = scanner.define_symbol(IS_BATCH, *is_batch);
}
