//! Lines for sessions of the operator page.

use std::time::SystemTime;

use serde::Serialize;

use crate::text::escape_json;

/// Begin or end of a session at the operator's request.
#[derive(Clone, Debug)]
pub struct AuditSession<'a> {
    /// "`sign_in`" or "`sign_out`".
    pub event: &'static str,
    /// Name of the operator's token.
    pub token_name: &'a str,
    /// Address or user that requested it.
    pub peer: &'a str,
}

/// Returns the line for a session.
pub(super) fn format_session(session: &AuditSession<'_>, time: SystemTime) -> Vec<u8> {
    #[derive(Serialize)]
    struct SessionLine<'a> {
        time: String,
        session: &'static str,
        token_name: &'a str,
        peer: &'a str,
    }
    let line = SessionLine {
        time: humantime::format_rfc3339_millis(time).to_string(),
        session: session.event,
        token_name: session.token_name,
        peer: session.peer,
    };
    // Cannot fail: serialization fails only for maps with non-string keys.
    let line = serde_json::to_string(&line).unwrap_or_default();
    format!("{}\n", escape_json(&line)).into_bytes()
}
