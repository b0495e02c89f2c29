//! Type detection at the end of an ingest.

use mcs_filetype::{Detector, MediaType};

use crate::media::{
    Body,
    ingest::{Ingest, IngestError, Ingested, Plaintext},
};

/// Finishes an ingest and detects the type of the plaintext, if there is one. Blocking.
pub(super) fn finish_and_detect(
    ingest: Ingest,
    detector: &Detector,
) -> Result<(Ingested, Option<MediaType>), IngestError> {
    let ingested = ingest.finish()?;
    let detect = |plaintext: &Plaintext| match &ingested.body {
        // The body in memory is the plaintext, which need not be read from the disk.
        Some(Body::Memory(bytes)) if ingested.body_hash == plaintext.hash => {
            Ok(detector.detect_bytes(bytes))
        }
        _ => detector.detect(&plaintext.file),
    };
    let detected = ingested.plaintext.as_ref().map(detect).transpose();
    Ok((ingested, detected.map_err(IngestError::Disk)?))
}
