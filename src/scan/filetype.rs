//! (being written)
/// A media type as `file --mime-type` names it.
#[derive(Clone, PartialEq, Eq, Debug, Hash)]
pub struct MediaType(std::sync::Arc<str>);
impl MediaType {
    /// e.g. `image/png`.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}
/// What the operator lets out.
#[derive(Clone, PartialEq, Eq, Debug)]
#[expect(missing_docs, reason = "being written")]
pub enum MimeRules {
    All,
    Only(Vec<String>),
    AllBut(Vec<String>),
}
