//! Which matches of rules are reported, and which of them count.

/// Selects rules by their names.
#[derive(Clone, Copy, Default, Debug)]
pub(crate) struct RuleFilter<'r> {
    /// Rules whose matches are not reported.
    pub(crate) ignored: &'r [&'r str],
    /// Rules whose matches do not end the evaluation.
    pub(crate) observed: &'r [&'r str],
    /// Whether that applies to all rules.
    pub(crate) observes_all: bool,
}

impl RuleFilter<'_> {
    pub(crate) fn ignores(&self, rule: &str) -> bool {
        self.ignored.contains(&rule)
    }

    pub(crate) fn observes(&self, rule: &str) -> bool {
        self.observes_all || self.observed.contains(&rule)
    }
}
