//! Settings and tasks of evaluators.

use mcs_filetype::MimeRules;
use serde::{Deserialize, Serialize};

use crate::unpack::UnpackSettings;

/// What a resident evaluator loads and does; the argument of its process.
#[derive(Clone, PartialEq, Eq, Default, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EvaluatorSettings {
    /// Names of rules whose matches are not reported.
    pub ignored: Vec<String>,
    /// What does not end the evaluation.
    pub observed: ObservedFindings,
    /// How files are unpacked for the rules.
    pub unpack: UnpackSettings,
    /// Whether types are determined. Required by the next two settings.
    pub detects_types: bool,
    /// Whether rules use the variable `filetype`: types of all objects are determined for it.
    pub sets_file_type: bool,
    /// The types that are allowed inside a media file.
    pub inner_types: MimeRules,
}

/// Findings that are reported, and do not end the evaluation: others may follow that count.
#[derive(Clone, PartialEq, Eq, Default, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ObservedFindings {
    /// Names of rules.
    pub rules: Vec<String>,
    /// Whether all rules are observed.
    pub all_rules: bool,
    /// Whether blocked hashes are observed.
    pub hashes: bool,
}

/// What a job does besides the inspection. The argument of the job.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct EvaluatorTask {
    /// Whether the rules are evaluated.
    pub evaluates_rules: bool,
    /// Whether [`EvaluatorSettings::inner_types`] apply, as rules.
    pub limits_types: bool,
    /// Whether the lists of hashes are searched.
    pub searches_hashes: bool,
}

impl EvaluatorTask {
    /// The inspection alone.
    pub const INSPECT: Self =
        Self { evaluates_rules: false, limits_types: false, searches_hashes: false };

    /// Returns the task of a job with this argument.
    pub(crate) fn from_argument(argument: u32) -> Option<Self> {
        let task = Self {
            evaluates_rules: argument & 1 != 0,
            limits_types: argument & 2 != 0,
            searches_hashes: argument & 4 != 0,
        };
        (task.argument() == argument).then_some(task)
    }

    /// Returns the argument, for [`Resident::evaluate`](mcs_sandbox::Resident::evaluate).
    #[must_use]
    pub fn argument(self) -> u32 {
        u32::from(self.evaluates_rules)
            | u32::from(self.limits_types) << 1
            | u32::from(self.searches_hashes) << 2
    }
}
