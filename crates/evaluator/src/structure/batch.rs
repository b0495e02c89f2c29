//! Scripts for Windows' command line (BAT, CMD).
//!
//! The command line executes a file line by line, and continues after a line that it does not understand, so no line is
//! decisive. A text is a script if most of its lines are commands, and one of them is a command for certain.

/// Commands, sorted.
const COMMANDS: [&[u8]; 67] = [
    b"assoc",
    b"attrib",
    b"bitsadmin",
    b"call",
    b"cd",
    b"certutil",
    b"chcp",
    b"chdir",
    b"cls",
    b"cmd",
    b"color",
    b"copy",
    b"cscript",
    b"curl",
    b"del",
    b"dir",
    b"echo",
    b"endlocal",
    b"erase",
    b"exit",
    b"explorer",
    b"findstr",
    b"for",
    b"goto",
    b"icacls",
    b"if",
    b"ipconfig",
    b"md",
    b"mkdir",
    b"mklink",
    b"mode",
    b"move",
    b"mshta",
    b"msiexec",
    b"net",
    b"netsh",
    b"path",
    b"pause",
    b"ping",
    b"popd",
    b"powershell",
    b"prompt",
    b"pushd",
    b"pwsh",
    b"rd",
    b"reg",
    b"regsvr32",
    b"rem",
    b"ren",
    b"rename",
    b"rmdir",
    b"robocopy",
    b"rundll32",
    b"sc",
    b"schtasks",
    b"set",
    b"setlocal",
    b"setx",
    b"shift",
    b"shutdown",
    b"start",
    b"taskkill",
    b"timeout",
    b"title",
    b"type",
    b"wscript",
    b"xcopy",
];

/// Commands that texts and programs of other kinds also begin lines with, sorted.
const COMMON: [&[u8]; 17] = [
    b"call", b"cd", b"color", b"copy", b"curl", b"dir", b"echo", b"exit", b"for", b"if", b"mkdir",
    b"move", b"path", b"set", b"shift", b"title", b"type",
];

/// Options and words that make a command certain, in lower case.
const CERTAIN: [(&[u8], &[&[u8]]); 22] = [
    (b"bitsadmin", &[b"/"]),
    (b"call", &[b":", b"%"]),
    (b"cd", &[b"/d ", b"%"]),
    (b"certutil", &[b"-", b"/"]),
    (b"cmd", &[b"/c", b"/k"]),
    (b"cscript", &[b"/", b"%"]),
    (b"del", &[b"/", b"%"]),
    (b"exit", &[b"/b"]),
    (b"for", &[b"/f ", b"/d ", b"/r ", b"/l ", b"%%"]),
    (b"goto", &[b":"]),
    (
        b"if",
        &[
            b"/i ",
            b"exist ",
            b"defined ",
            b"errorlevel ",
            b"not exist ",
            b"not defined ",
            b"\"%",
            b"%",
            b"not \"%",
        ],
    ),
    (b"mshta", &[b"http", b"javascript:", b"vbscript:", b"\"", b"\\\\"]),
    (b"msiexec", &[b"/"]),
    (b"powershell", &[b"-", b"/", b"\""]),
    (b"reg", &[b"add ", b"delete ", b"import "]),
    (b"regsvr32", &[b"/"]),
    (b"schtasks", &[b"/"]),
    (b"set", &[b"/a ", b"/p "]),
    (b"setlocal", &[b"enable", b"disable"]),
    (b"start", &[b"\"\"", b"/", b"%"]),
    (b"taskkill", &[b"/"]),
    (b"timeout", &[b"/"]),
];

/// Number of lines that are examined.
const MAX_LINES: usize = 300;

/// Maximum length of the examined part of a line, bytes.
const MAX_LENGTH: usize = 512;

/// Number of words of a sentence.
const SENTENCE: usize = 4;

/// Number of other lines more than commands after which a text is no script.
const MAX_OTHER: usize = 12;

/// What a line is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum BatchLine {
    /// `@echo off`
    Start,
    /// A command of Windows' command line for certain.
    Certain,
    /// A command, or a text or program of another kind.
    Probable,
    /// Like [`Self::Probable`], and frequent in other texts.
    Possible,
    /// Comment, label, parenthesis.
    Neutral,
    Other,
    Sentence,
}

/// Returns whether a text is a script.
pub(super) fn is_batch(text: &[u8]) -> bool {
    let (mut certain, mut probable, mut possible, mut others) =
        (0_usize, 0_usize, 0_usize, 0_usize);
    let lines = text.split(|byte| matches!(byte, b'\n' | b'\r'));
    let lines = lines.map(<[u8]>::trim_ascii).filter(|line| !line.is_empty());
    let mut is_first = true;
    let mut is_continued = false;
    for line in lines.take(MAX_LINES) {
        let kind = if is_continued { BatchLine::Neutral } else { classify(line) };
        is_continued = line.ends_with(b"^");
        match kind {
            // No other text begins like this.
            BatchLine::Start if is_first => return true,
            BatchLine::Start | BatchLine::Certain => certain += 1,
            BatchLine::Probable => probable += 1,
            BatchLine::Possible => possible += 1,
            BatchLine::Neutral => {}
            BatchLine::Other => others += 1,
            // Stronger evidence of another text than a single word.
            BatchLine::Sentence => others += 2,
        }
        is_first &= kind == BatchLine::Neutral;
        if others > certain + probable + possible + MAX_OTHER {
            return false;
        }
    }
    // A certain command counts twice.
    certain > 0 && 2 * certain + probable + possible > others || probable > 1 && others == 0
}

fn classify(line: &[u8]) -> BatchLine {
    let line = line.get(..MAX_LENGTH).unwrap_or(line);
    // A caret escapes the next character.
    let line: Vec<u8> =
        line.iter().filter(|byte| **byte != b'^').map(u8::to_ascii_lowercase).collect();
    let line = line.trim_ascii();
    let is_prefix = |byte: &u8| matches!(byte, b'@' | b'(' | b' ' | b'\t');
    let prefix = line.iter().take_while(|byte| is_prefix(byte)).count();
    let (prefix, command) = line.split_at_checked(prefix).unwrap_or_default();
    let is_silent = prefix.contains(&b'@');
    let length = command.iter().take_while(|byte| byte.is_ascii_alphanumeric()).count();
    let (word, rest) = command.split_at_checked(length).unwrap_or_default();
    let is_separated = matches!(
        rest.first(),
        None | Some(b' ' | b'\t' | b'.' | b',' | b';' | b'/' | b'\\' | b'(' | b':' | b'"' | b'&')
    );
    let arguments = rest.strip_prefix(b".exe").unwrap_or(rest).trim_ascii_start();
    if is_neutral(command) || word == b"rem" && is_separated {
        return BatchLine::Neutral;
    }
    // Languages for style sheets have similar rules and variables.
    if is_silent && (rest.starts_with(b":") || matches!(line.last(), Some(b'{' | b';'))) {
        return BatchLine::Other;
    }
    if is_separated && COMMANDS.binary_search(&word).is_ok() {
        let is_switch = word == b"echo" && is_on_or_off(arguments);
        if is_switch && is_silent {
            return BatchLine::Start;
        }
        let is_block = matches!(word, b"setlocal" | b"endlocal") && arguments.is_empty();
        let is_alone = is_switch || is_block;
        if is_silent || is_alone || is_certain(word, arguments) || has_variable(command) {
            return BatchLine::Certain;
        }
        return if COMMON.binary_search(&word).is_ok() {
            BatchLine::Possible
        } else {
            BatchLine::Probable
        };
    }
    let has_all_parameters = || memchr::memmem::find(command, b"%*").is_some();
    if has_variable(command)
        || is_silent && has_all_parameters()
        || command.starts_with(b"%") && is_variable(command)
    {
        return BatchLine::Certain;
    }
    let words = line.split(u8::is_ascii_whitespace).filter(|word| !word.is_empty()).count();
    let is_sentence = words >= SENTENCE && !line.iter().any(|byte| b"\\/%=|&<>".contains(byte));
    if is_sentence { BatchLine::Sentence } else { BatchLine::Other }
}

/// Returns whether a line is a comment, a label or the end of a block.
fn is_neutral(command: &[u8]) -> bool {
    match command {
        [] | [b')', ..] | [b':', b':', ..] => true,
        [b':', label @ ..] => !label.contains(&b' '),
        _ => false,
    }
}

/// Returns whether `echo` is switched on or off.
fn is_on_or_off(arguments: &[u8]) -> bool {
    let length = arguments.iter().take_while(|byte| byte.is_ascii_alphanumeric()).count();
    matches!(arguments.get(..length), Some(b"on" | b"off"))
}

fn is_certain(word: &[u8], arguments: &[u8]) -> bool {
    CERTAIN.iter().any(|(command, starts)| {
        *command == word && starts.iter().any(|start| arguments.starts_with(start))
    })
}

/// Returns whether a line contains a parameter, such as `%~dp0`.
fn has_variable(line: &[u8]) -> bool {
    line.windows(3).any(|bytes| matches!(bytes, [b'%', b'~', next] if next.is_ascii_alphanumeric()))
}

/// Returns whether a line begins with a variable.
fn is_variable(line: &[u8]) -> bool {
    let name = line.get(1..).unwrap_or_default();
    let is_name = |byte: &&u8| byte.is_ascii_alphanumeric() || b"_()".contains(byte);
    let length = name.iter().take_while(is_name).count();
    let end = name.get(length..).unwrap_or_default();
    length > 1 && (end.starts_with(b"%") || end.starts_with(b":~"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_are_sorted() {
        assert!(COMMANDS.is_sorted() && COMMON.is_sorted() && CERTAIN.is_sorted());
        assert!(COMMON.iter().all(|command| COMMANDS.contains(command)));
    }
}
