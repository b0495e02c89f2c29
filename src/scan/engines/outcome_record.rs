//! The stored form of an outcome: JSON, without what only the log needs. Operators' policies are not part of it; they apply
//! when a request is answered, as to outcomes in memory.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use mcs_filetype::MediaType;
use serde::{Deserialize, Serialize};

use super::{
    file_outcome::{FileFinding, FileOutcome},
    names::{CLAMD, HASHES, ICAP, RULES, SCRIPT},
    outcome::OutcomeText,
};
use crate::{
    media::{hex, parse_hex},
    scan::verdict::NotCleanKind,
};

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
    /// SHA-256 of the content, in hexadecimal digits: the name of the record does not reveal it to operators.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    content: Option<String>,
    /// End of the scan, milliseconds since 1970.
    scanned: u64,
    has_finished: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    detected: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    finding: Option<FindingRecord>,
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
        self.finding.as_ref().is_some_and(|finding| finding.kind == NotCleanKind::Infected)
    }

    /// Returns the stored form for a content with this SHA-256; `None` for an outcome that must not be stored, because an engine failed and none found
    /// anything: the failure may be over soon.
    #[must_use]
    pub fn to_record(&self, content: &[u8; 32]) -> Option<Vec<u8>> {
        if !self.failures.is_empty() && self.finding.is_none() {
            return None;
        }
        let since_epoch = self.scanned.duration_since(UNIX_EPOCH).unwrap_or_default();
        let text = |text: &Option<OutcomeText>| {
            text.as_ref().map(|OutcomeText { name, location }| TextRecord {
                name: name.clone(),
                location: location.clone(),
            })
        };
        let record = OutcomeRecord {
            content: Some(hex(content)),
            scanned: u64::try_from(since_epoch.as_millis()).ok()?,
            has_finished: self.has_finished,
            detected: self.detected.as_ref().map(ToString::to_string),
            finding: self.finding.as_ref().map(|finding| FindingRecord {
                is_infected: finding.kind == NotCleanKind::Infected,
                text: TextRecord {
                    name: finding.output.as_ref().to_owned(),
                    location: finding.location.clone(),
                },
                exit_code: finding.exit_code,
                engine: finding.engine.map(str::to_owned),
            }),
            encrypted: text(&self.encrypted),
            limit: text(&self.limit),
            unreadable: text(&self.unreadable),
            inconsistent: text(&self.inconsistent),
            too_large: self.too_large.iter().map(|name| (*name).to_owned()).collect(),
            exit_code: self.exit_code,
        };
        serde_json::to_vec(&record).ok()
    }

    /// Reads the stored form.
    ///
    /// # Errors
    /// If the record is of another version.
    pub fn from_record(record: &[u8]) -> Result<Self, OutcomeRecordError> {
        Ok(Self::from_named_record(record)?.0)
    }

    /// Reads the stored form, with the SHA-256 of the content if the record has it.
    ///
    /// # Errors
    /// If the record is of another version.
    pub fn from_named_record(
        record: &[u8],
    ) -> Result<(Self, Option<[u8; 32]>), OutcomeRecordError> {
        let record: OutcomeRecord = serde_json::from_slice(record)?;
        let content = record
            .content
            .map(|digits| parse_hex(&digits).ok_or(OutcomeRecordError::Unknown("content")));
        let detected = record
            .detected
            .map(|name| MediaType::from_name(&name).ok_or(OutcomeRecordError::Unknown("type")));
        let too_large = record.too_large.iter().map(|name| engine_name(name));
        let scanned = UNIX_EPOCH.checked_add(Duration::from_millis(record.scanned));
        let text = |text: Option<TextRecord>| text.map(OutcomeText::from);
        let outcome = Self {
            detected: detected.transpose()?,
            finding: record.finding.map(FindingRecord::decode).transpose()?,
            encrypted: text(record.encrypted),
            limit: text(record.limit),
            unreadable: text(record.unreadable),
            inconsistent: text(record.inconsistent),
            too_large: too_large.collect::<Result<_, _>>()?,
            has_finished: record.has_finished,
            exit_code: record.exit_code,
            ..Self::at(scanned.unwrap_or_else(SystemTime::now))
        };
        Ok((outcome, content.transpose()?))
    }
}

/// Returns the engine with this name.
fn engine_name(name: &str) -> Result<&'static str, OutcomeRecordError> {
    let mut known = [SCRIPT, RULES, HASHES, CLAMD, ICAP].into_iter();
    known.find(|known| *known == name).ok_or(OutcomeRecordError::Unknown("engine"))
}

impl From<TextRecord> for OutcomeText {
    fn from(TextRecord { name, location }: TextRecord) -> Self {
        Self { name, location }
    }
}

impl FindingRecord {
    fn decode(self) -> Result<FileFinding, OutcomeRecordError> {
        let Self { is_infected, text, exit_code, engine } = self;
        Ok(FileFinding {
            kind: if is_infected { NotCleanKind::Infected } else { NotCleanKind::Refused },
            engine: engine.as_deref().map(engine_name).transpose()?,
            output: text.name.into(),
            location: text.location,
            exit_code,
            first_line: String::new(),
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
            .prop_map(|(name, location)| OutcomeText { name, location })
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
        ) {
            let mut outcome = FileOutcome::for_test([("clamd", Ok(first)), ("rules", Ok(second))]);
            outcome.detected = detected.then(|| MediaType::from_name("image/png").unwrap());
            outcome.scanned = UNIX_EPOCH + Duration::from_millis(1_234_567_890_123);
            let read = FileOutcome::from_record(&outcome.to_record(&[1; 32]).unwrap()).unwrap();
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
        assert!(clean.to_record(&[1; 32]).is_none());
        let found = Outcome::Infected("Name".into());
        let infected = FileOutcome::for_test([("clamd", failed()), ("rules", Ok(found))]);
        let read = FileOutcome::from_record(&infected.to_record(&[1; 32]).unwrap()).unwrap();
        assert!(read.is_infected() && read.failures.is_empty());
    }

    #[test]
    fn records_of_other_versions_are_errors() {
        for record in [
            "",
            "{}",
            "{\"scanned\":1,\"has_finished\":true,\"other\":1}",
            "{\"scanned\":1,\"has_finished\":true,\"detected\":\"no type\"}",
            "{\"scanned\":1,\"has_finished\":true,\"too_large\":[\"other\"]}",
        ] {
            assert!(FileOutcome::from_record(record.as_bytes()).is_err(), "{record}");
        }
        let oldest = "{\"scanned\":1,\"has_finished\":true}";
        assert!(FileOutcome::from_record(oldest.as_bytes()).unwrap().is_clean());
    }
}
