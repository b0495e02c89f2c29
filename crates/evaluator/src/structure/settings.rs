//! Settings files: sections and keys (INI, URL, SCF, theme, desktop entry), or keys with a type (RDP).
//!
//! Windows finds a section wherever it is in a file, and ignores lines that are neither sections nor keys. A text that
//! mentions a section is no settings file, so most lines have to be sections or keys.

/// Number of words of a sentence.
const SENTENCE: usize = 4;

/// Maximum length of a section or key, bytes.
const MAX_NAME: usize = 128;

/// Number of other lines after which a text is no settings file, whatever follows.
const MAX_OTHER: usize = 500;

/// Returns the sections as `[name]` and the keys as `[section]name=` or `name:type:`, in lower case, a line each. Empty for
/// other texts.
pub(super) fn names(text: &[u8]) -> Vec<u8> {
    let mut names = vec![b'\n'];
    let mut section = Vec::new();
    let (mut settings, mut others) = (0_usize, 0_usize);
    for line in text.split(|byte| matches!(byte, b'\n' | b'\r')) {
        let line = line.trim_ascii();
        if matches!(line, [] | [b';' | b'#', ..]) {
            continue;
        }
        if let Some(name) = name(line) {
            settings += 1;
            let name = name.to_ascii_lowercase();
            if name.starts_with(b"[") {
                section.clone_from(&name);
            } else {
                names.extend(&section);
            }
            names.extend(name);
            names.push(b'\n');
        } else {
            let words = line.split(u8::is_ascii_whitespace).filter(|word| !word.is_empty());
            // A sentence is stronger evidence of another text than a single word.
            others += if words.count() >= SENTENCE { 2 } else { 1 };
        }
        if others >= MAX_OTHER {
            return Vec::new();
        }
    }
    if settings > others { names } else { Vec::new() }
}

/// Returns the section, or the key with the character or type behind it.
fn name(line: &[u8]) -> Option<Vec<u8>> {
    let limited = line.get(..MAX_NAME).unwrap_or(line);
    if line.starts_with(b"[") {
        let end = limited.iter().position(|byte| *byte == b']')?;
        let rest = line.get(end + 1..)?.trim_ascii();
        let is_section = matches!(rest, [] | [b';' | b'#', ..]);
        return is_section.then(|| limited.get(..=end).map(<[u8]>::to_vec))?;
    }
    let end = limited.iter().position(|byte| matches!(byte, b'=' | b':'))?;
    let key = limited.get(..end)?.trim_ascii();
    let is_key = |byte: &u8| {
        byte.is_ascii_alphanumeric() || !byte.is_ascii() || b" _-.\\/[]{}%@\"".contains(byte)
    };
    let words = key.split(u8::is_ascii_whitespace).filter(|word| !word.is_empty()).count();
    if !key.iter().all(is_key) || words == 0 || words > SENTENCE {
        return None;
    }
    match limited.get(end..)? {
        [b'=', ..] => Some([key, b"="].concat()),
        [b':', kind @ (b's' | b'i' | b'b' | b'S' | b'I' | b'B'), b':', ..] => {
            Some([key, &[b':', *kind, b':']].concat())
        }
        _ => None,
    }
}
