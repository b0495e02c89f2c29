//! Lines for changes by operators.

use std::time::SystemTime;

use serde::Serialize;

use crate::text::escape_json;

/// What a change is about.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum ChangeSubject {
    /// SHA-256 in hexadecimal digits.
    Content(String),
    /// Media URI.
    Mxc(String),
    /// Everything.
    All(bool),
}

/// How far a change is.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum ChangeState {
    /// Before the change.
    Requested,
    /// The change was made, and removed these numbers of entries.
    Done { verdicts: usize, media: usize },
    /// The decision about a file was made or removed: "allow" or "block", before and after. Or the file was scanned again:
    /// the name of the verdict, before and after.
    Decided { before: Option<&'static str>, after: Option<&'static str> },
    /// The change is incomplete.
    Failed,
}

/// Change by an operator.
#[derive(Clone, Debug)]
pub struct AuditChange<'a> {
    /// Name of the change.
    pub change: &'static str,
    pub subject: &'a ChangeSubject,
    /// Name of the operator's token.
    pub token_name: &'a str,
    /// Address or user that requested it.
    pub peer: &'a str,
    /// How the operator was authenticated: "token" or "session".
    pub access: &'a str,
    /// Reason that the operator gave.
    pub comment: Option<&'a str>,
    pub state: ChangeState,
}

/// State of a file without a decision or a verdict.
const NO_DECISION: &str = "none";

/// The line for a change was not written.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("the audit log cannot be written")]
pub struct NotRecorded;

/// Returns the line for a change.
pub(super) fn format_change(change: &AuditChange<'_>, time: SystemTime) -> Vec<u8> {
    #[derive(Serialize)]
    struct ChangeJson<'a> {
        time: String,
        change: &'static str,
        #[serde(flatten)]
        subject: &'a ChangeSubject,
        state: &'static str,
        token_name: &'a str,
        peer: &'a str,
        access: &'a str,
        comment: Option<&'a str>,
        #[serde(skip_serializing_if = "Option::is_none")]
        removed_verdicts: Option<usize>,
        #[serde(skip_serializing_if = "Option::is_none")]
        removed_media: Option<usize>,
        #[serde(skip_serializing_if = "Option::is_none")]
        before: Option<&'static str>,
        #[serde(skip_serializing_if = "Option::is_none")]
        after: Option<&'static str>,
    }
    let (state, verdicts, media) = match change.state {
        ChangeState::Requested => ("requested", None, None),
        ChangeState::Done { verdicts, media } => ("done", Some(verdicts), Some(media)),
        ChangeState::Decided { .. } => ("done", None, None),
        ChangeState::Failed => ("failed", None, None),
    };
    let (before, after) = match change.state {
        ChangeState::Decided { before, after } => {
            (Some(before.unwrap_or(NO_DECISION)), Some(after.unwrap_or(NO_DECISION)))
        }
        _ => (None, None),
    };
    let line = ChangeJson {
        time: humantime::format_rfc3339_millis(time).to_string(),
        change: change.change,
        subject: change.subject,
        state,
        token_name: change.token_name,
        peer: change.peer,
        access: change.access,
        comment: change.comment,
        removed_verdicts: verdicts,
        removed_media: media,
        before,
        after,
    };
    // Cannot fail: serialization fails only for maps with non-string keys.
    let line = serde_json::to_string(&line).unwrap_or_default();
    format!("{}\n", escape_json(&line)).into_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn change(subject: &ChangeSubject, state: ChangeState) -> AuditChange<'_> {
        AuditChange {
            change: "forget",
            subject,
            token_name: "alice",
            peer: "uid 0",
            access: "token",
            comment: Some("a\n\u{202e}b"),
            state,
        }
    }

    #[test]
    fn line_names_the_change() {
        let subject = ChangeSubject::Mxc("mxc://a.example/b".to_owned());
        let done = ChangeState::Done { verdicts: 1, media: 2 };
        let line = format_change(&change(&subject, done), SystemTime::UNIX_EPOCH);
        assert_eq!(
            String::from_utf8(line).unwrap(),
            "{\"time\":\"1970-01-01T00:00:00.000Z\",\"change\":\"forget\",\"mxc\":\"mxc://a.example/b\",\
             \"state\":\"done\",\"token_name\":\"alice\",\"peer\":\"uid 0\",\"access\":\"token\",\"comment\":\"a\\n\\u202eb\",\
             \"removed_verdicts\":1,\"removed_media\":2}\n"
        );
    }
}
