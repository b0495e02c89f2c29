//! What evaluators do.

use mcs_filetype::MimeRules;
use serde::{Deserialize, Serialize};

use crate::unpack::UnpackSettings;

/// What a resident evaluator loads and does; the argument of its process.
#[derive(Clone, PartialEq, Eq, Default, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EvaluatorSettings {
    /// Names of rules whose matches are not reported.
    pub ignored: Vec<String>,
    /// How files are unpacked for the rules.
    pub unpack: UnpackSettings,
    /// Whether types are determined, which the next two need as well.
    pub detects_types: bool,
    /// Whether rules use the variable `filetype`: types of all objects are determined for it.
    pub sets_file_type: bool,
    /// The types that are allowed inside a media file.
    pub inner_types: MimeRules,
}

/// What a job does. The argument of the job.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum EvaluatorTask {
    /// Inspects the file.
    Inspect,
    /// Inspects the file and evaluates the rules and [`EvaluatorSettings::inner_types`].
    Evaluate,
    /// Inspects the file and evaluates the rules.
    EvaluateAllTypes,
}

impl EvaluatorTask {
    /// Returns the task of a job with this argument.
    pub(crate) fn from_argument(argument: u32) -> Option<Self> {
        let all = [Self::Inspect, Self::Evaluate, Self::EvaluateAllTypes];
        all.into_iter().find(|task| task.argument() == argument)
    }

    /// Returns the argument, for [`Resident::evaluate`](mcs_sandbox::Resident::evaluate).
    #[must_use]
    pub fn argument(self) -> u32 {
        match self {
            Self::Inspect => 0,
            Self::Evaluate => 1,
            Self::EvaluateAllTypes => 2,
        }
    }
}
