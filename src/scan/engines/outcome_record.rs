//! The stored form of an outcome: JSON, without what only the log needs. Operators' policies are not part of it; they apply
//! when a request is answered, as to outcomes in memory.
//!
//! Records of version 1, without a number, have the most severe finding only and no results of engines. They stay valid where
//! that suffices.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use mcs_filetype::MediaType;
use serde::{Deserialize, Serialize};

use super::{
    file_outcome::{FileFinding, FileOutcome},
    names::{RULES, engine_name},
    outcome::{Outcome, OutcomeText},
    summary::{EngineSummary, FAILED},
};
use crate::{
    media::{hex, parse_hex},
    scan::verdict::NotCleanKind,
};

/// Version of the form.
const VERSION: u8 = 2;

/// Identifies the program and the versions of the engines.
pub(super) type ScanTag = [u8; 8];

/// A stored outcome, and facts about its scan.
#[derive(Clone, Debug)]
pub struct DecodedOutcome {
    pub outcome: FileOutcome,
    /// SHA-256 of the content; `None` for a record of an earlier version of the program.
    pub content: Option<[u8; 32]>,
    /// The program and the engines of the scan; `None` if a version was unknown, and for a record of version 1.
    pub scanned_by: Option<ScanTag>,
}

/// Reason why a record cannot be decoded as an outcome.
#[derive(Debug, thiserror::Error)]
pub enum OutcomeRecordError {
    /// The record has another form.
    #[error("a stored outcome cannot be read")]
    Json(#[from] serde_json::Error),
    /// A name is unknown.
    #[error("a stored outcome contains an unknown {0}")]
    Unknown(&'static str),
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct OutcomeRecord {
    #[serde(default = "first_version")]
    version: u8,
    /// SHA-256 of the content, in hexadecimal digits: the name of the record does not reveal it to operators.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    content: Option<String>,
    /// End of the scan, milliseconds since 1970.
    scanned: u64,
    /// [`ScanTag`] in hexadecimal digits.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    scanned_by: Option<String>,
    has_finished: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    detected: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    finding: Option<FindingRecord>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    findings: Vec<FindingRecord>,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    ended_early: bool,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    results: Vec<ResultRecord>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    encrypted: Option<TextRecord>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    limit: Option<TextRecord>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    unreadable: Option<TextRecord>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    inconsistent: Option<TextRecord>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    too_large: Vec<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    exit_code: Option<i32>,
    /// Whether an engine did not finish.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    lacked_engine: bool,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct FindingRecord {
    is_infected: bool,
    text: TextRecord,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    exit_code: Option<i32>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    engine: Option<String>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    rules: Vec<String>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct ResultRecord {
    engine: String,
    result: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    finding: Option<String>,
    /// Milliseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    duration: Option<u64>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct TextRecord {
    name: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    location: Option<String>,
}

impl FileOutcome {
    /// Returns whether an engine found malware. Such outcomes stay valid when the versions of the engines change.
    #[must_use]
    pub fn is_infected(&self) -> bool {
        self.findings.iter().any(|finding| finding.kind == NotCleanKind::Infected)
    }

    /// Returns the stored form for a content with this SHA-256, scanned by this program and these engines; `None` for an
    /// outcome that must not be stored, because an engine failed and none found anything: the failure may be over soon.
    #[must_use]
    pub fn to_record(&self, content: &[u8; 32], scanned_by: Option<ScanTag>) -> Option<Vec<u8>> {
        if !self.failures.is_empty() && self.findings.is_empty() {
            return None;
        }
        let since_epoch = self.scanned.duration_since(UNIX_EPOCH).unwrap_or_default();
        let text = |text: &Option<OutcomeText>| {
            text.as_ref().map(|OutcomeText { name, location, .. }| TextRecord {
                name: name.clone(),
                location: location.clone(),
            })
        };
        let record = OutcomeRecord {
            version: VERSION,
            content: Some(hex(content)),
            scanned: u64::try_from(since_epoch.as_millis()).ok()?,
            has_finished: self.has_finished,
            detected: self.detected.as_ref().map(ToString::to_string),
            scanned_by: scanned_by.map(|tag| hex(&tag)),
            finding: None,
            findings: self.findings.iter().map(FindingRecord::from).collect(),
            // The failures are not stored: a finding that is only observed must not hide them.
            ended_early: self.ended_early || !self.failures.is_empty(),
            results: self.results.iter().map(ResultRecord::from).collect(),
            encrypted: text(&self.encrypted),
            limit: text(&self.limit),
            unreadable: text(&self.unreadable),
            inconsistent: text(&self.inconsistent),
            too_large: self.too_large.iter().map(|name| (*name).to_owned()).collect(),
            exit_code: self.exit_code,
            lacked_engine: self.lacked_engine || !self.failures.is_empty(),
        };
        serde_json::to_vec(&record).ok()
    }

    /// Reads the stored form.
    ///
    /// # Errors
    /// If the record is of another version.
    pub fn from_record(record: &[u8]) -> Result<DecodedOutcome, OutcomeRecordError> {
        let record: OutcomeRecord = serde_json::from_slice(record)?;
        let content = record.content.as_deref().map(|digits| known(parse_hex(digits), "content"));
        let tag = record.scanned_by.as_deref().map(|digits| known(parse_hex(digits), "tag"));
        let detected = record.detected.as_deref();
        let detected = detected.map(|name| known(MediaType::from_name(name), "type"));
        let too_large = record.too_large.iter().map(|name| engine(name));
        let scanned = UNIX_EPOCH.checked_add(Duration::from_millis(record.scanned));
        let text = |text: Option<TextRecord>| text.map(OutcomeText::from);
        // One finding that there were more of, perhaps.
        let is_first_version = record.version == 1;
        let findings = match (record.version, record.finding) {
            (1, finding) if record.findings.is_empty() && record.results.is_empty() => {
                finding.into_iter().map(FindingRecord::decode_first_version).collect()
            }
            (VERSION, None) => record.findings.into_iter().map(FindingRecord::decode).collect(),
            _ => Err(OutcomeRecordError::Unknown("version")),
        };
        let findings: Vec<_> = findings?;
        let results = record.results.into_iter().map(ResultRecord::decode);
        let outcome = Self {
            detected: detected.transpose()?,
            ended_early: record.ended_early || (is_first_version && !findings.is_empty()),
            findings,
            results: results.collect::<Result<_, _>>()?,
            encrypted: text(record.encrypted),
            limit: text(record.limit),
            unreadable: text(record.unreadable),
            inconsistent: text(record.inconsistent),
            too_large: too_large.collect::<Result<_, _>>()?,
            has_finished: record.has_finished,
            exit_code: record.exit_code,
            lacked_engine: record.lacked_engine,
            ..Self::at(scanned.unwrap_or_else(SystemTime::now))
        };
        Ok(DecodedOutcome { outcome, content: content.transpose()?, scanned_by: tag.transpose()? })
    }
}

/// Returns the version of records without a number.
fn first_version() -> u8 {
    1
}

fn known<T>(value: Option<T>, what: &'static str) -> Result<T, OutcomeRecordError> {
    value.ok_or(OutcomeRecordError::Unknown(what))
}

/// Returns the engine with this name.
fn engine(name: &str) -> Result<&'static str, OutcomeRecordError> {
    known(engine_name(name), "engine")
}

impl From<TextRecord> for OutcomeText {
    fn from(TextRecord { name, location }: TextRecord) -> Self {
        Self { location, ..Self::from(name) }
    }
}

impl From<&FileFinding> for FindingRecord {
    fn from(finding: &FileFinding) -> Self {
        let name = finding.output.as_ref().to_owned();
        Self {
            is_infected: finding.kind == NotCleanKind::Infected,
            text: TextRecord { name, location: finding.location.clone() },
            exit_code: finding.exit_code,
            engine: finding.engine.map(str::to_owned),
            rules: finding.rules.clone(),
        }
    }
}

impl FindingRecord {
    fn decode(self) -> Result<FileFinding, OutcomeRecordError> {
        let Self { is_infected, text, exit_code, engine: name, rules } = self;
        Ok(FileFinding {
            kind: if is_infected { NotCleanKind::Infected } else { NotCleanKind::Refused },
            engine: name.as_deref().map(engine).transpose()?,
            output: text.name.into(),
            location: text.location,
            rules,
            exit_code,
            first_line: String::new(),
        })
    }

    /// Decodes a finding whose rules are named in its text only.
    fn decode_first_version(self) -> Result<FileFinding, OutcomeRecordError> {
        let mut finding = self.decode()?;
        if finding.engine == Some(RULES) {
            finding.rules = finding.output.split(", ").map(str::to_owned).collect();
        }
        Ok(finding)
    }
}

impl From<&EngineSummary> for ResultRecord {
    fn from(summary: &EngineSummary) -> Self {
        let millis = |duration: Duration| u64::try_from(duration.as_millis()).ok();
        Self {
            engine: summary.engine.to_owned(),
            result: summary.result.to_owned(),
            finding: summary.finding.as_deref().map(str::to_owned),
            duration: summary.duration.and_then(millis),
        }
    }
}

impl ResultRecord {
    fn decode(self) -> Result<EngineSummary, OutcomeRecordError> {
        let result = Outcome::NAMES.into_iter().chain([FAILED]).find(|name| *name == self.result);
        Ok(EngineSummary {
            engine: engine(&self.engine)?,
            result: known(result, "result")?,
            finding: self.finding.map(String::into_boxed_str),
            duration: self.duration.map(Duration::from_millis),
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::scan::{
        engines::{EngineFailure, Outcome},
        error::ScanError,
    };

    fn any_text() -> impl Strategy<Value = OutcomeText> {
        ("\\PC{0,20}", proptest::option::of("\\PC{0,20}"))
            .prop_map(|(name, location)| OutcomeText { location, ..OutcomeText::from(name) })
    }

    fn any_outcome() -> impl Strategy<Value = Outcome> {
        prop_oneof![
            Just(Outcome::Clean),
            Just(Outcome::TooLarge),
            any_text().prop_map(Outcome::Infected),
            any_text().prop_map(Outcome::Refused),
            any_text().prop_map(Outcome::Encrypted),
            any_text().prop_map(Outcome::Limit),
            any_text().prop_map(Outcome::Unreadable),
            any_text().prop_map(Outcome::Inconsistent),
        ]
    }

    proptest! {
        #[test]
        fn outcome_is_read_as_it_was_stored(
            first in any_outcome(),
            second in any_outcome(),
            detected in any::<bool>(),
            ended_early in any::<bool>(),
            millis in any::<Option<u64>>(),
            rules in proptest::collection::vec("[A-Za-z_]{1,9}", 0..3),
            tag in any::<Option<ScanTag>>(),
        ) {
            let mut outcome = FileOutcome::for_test([("clamd", Ok(first)), ("rules", Ok(second))]);
            outcome.detected = detected.then(|| MediaType::from_name("image/png").unwrap());
            outcome.scanned = UNIX_EPOCH + Duration::from_millis(1_234_567_890_123);
            outcome.ended_early = ended_early;
            for result in &mut outcome.results {
                result.duration = millis.map(Duration::from_millis);
            }
            for finding in &mut outcome.findings {
                finding.rules = rules.clone();
            }
            let record = outcome.to_record(&[1; 32], tag).unwrap();
            let decoded = FileOutcome::from_record(&record).unwrap();
            prop_assert_eq!(decoded.content, Some([1; 32]));
            prop_assert_eq!(decoded.scanned_by, tag);
            let read = decoded.outcome;
            prop_assert_eq!(format!("{read:?}"), format!("{:?}", outcome.without_lines()));
        }

        #[test]
        fn other_bytes_are_an_error(bytes in any::<Vec<u8>>()) {
            let _ = FileOutcome::from_record(&bytes);
        }
    }

    #[test]
    fn failures_are_stored_only_with_a_finding() {
        let failed = || Err(ScanError::Engine("clamd", EngineFailure::NotRun));
        let clean = FileOutcome::for_test([("clamd", failed()), ("rules", Ok(Outcome::Clean))]);
        assert!(clean.to_record(&[1; 32], None).is_none());
        let found = Outcome::Infected("Name".into());
        let infected = FileOutcome::for_test([("clamd", failed()), ("rules", Ok(found))]);
        let record = infected.to_record(&[1; 32], None).unwrap();
        let read = FileOutcome::from_record(&record).unwrap().outcome;
        assert!(read.is_infected() && read.failures.is_empty() && read.ended_early);
        assert_eq!(read.results[0].result, "failed");
        // Incidents are created only for the findings of complete scans.
        assert!(read.lacked_engine && read.infection(|_| true).is_none());
    }

    #[test]
    fn records_of_other_versions_are_errors() {
        for record in [
            "",
            "{}",
            "{\"scanned\":1,\"has_finished\":true,\"other\":1}",
            "{\"scanned\":1,\"has_finished\":true,\"detected\":\"no type\"}",
            "{\"scanned\":1,\"has_finished\":true,\"too_large\":[\"other\"]}",
            "{\"scanned\":1,\"has_finished\":true,\"version\":0}",
            "{\"scanned\":1,\"has_finished\":true,\"version\":3}",
            "{\"scanned\":1,\"has_finished\":true,\"results\":[{\"engine\":\"rules\",\"result\":\"clean\"}]}",
            "{\"scanned\":1,\"has_finished\":true,\"version\":2,\"results\":[{\"engine\":\"rules\",\"result\":\"other\"}]}",
            "{\"scanned\":1,\"has_finished\":true,\"version\":2,\"results\":[{\"engine\":\"other\",\"result\":\"clean\"}]}",
            "{\"scanned\":1,\"has_finished\":true,\"version\":2,\"scanned_by\":\"00\"}",
            "{\"scanned\":1,\"has_finished\":true,\"version\":2,\"finding\":{\"is_infected\":true,\"text\":{\"name\":\"A\"}}}",
        ] {
            assert!(FileOutcome::from_record(record.as_bytes()).is_err(), "{record}");
        }
        let oldest = "{\"scanned\":1,\"has_finished\":true}";
        assert!(FileOutcome::from_record(oldest.as_bytes()).unwrap().outcome.is_clean());
    }

    /// As earlier versions of the program wrote them.
    #[test]
    fn records_of_the_first_version_have_one_finding_of_perhaps_several() {
        let record = r#"{"content":"0101010101010101010101010101010101010101010101010101010101010101","scanned":1,"has_finished":true,"finding":{"is_infected":true,"text":{"name":"A, B","location":"a > b"},"engine":"rules"}}"#;
        let DecodedOutcome { outcome, content, scanned_by } =
            FileOutcome::from_record(record.as_bytes()).unwrap();
        assert_eq!((content, scanned_by), (Some([1; 32]), None));
        assert!(outcome.is_infected() && outcome.ended_early && outcome.results.is_empty());
        assert_eq!(outcome.findings[0].rules, ["A", "B"]);
        assert_eq!(outcome.findings[0].location.as_deref(), Some("a > b"));
        let without_engine = record.replace(",\"engine\":\"rules\"", "");
        let decoded = FileOutcome::from_record(without_engine.as_bytes()).unwrap();
        assert_eq!(decoded.outcome.finding_engine(), None);
    }
}
