//! Looks up the digests of the objects of one media file in lists of hashes.

use std::ops::ControlFlow;

use mcs_hashlist::{DigestKind, Digests, HashMatch, ListAction};
use md5::Md5;
use sha1::{Digest as _, Sha1};
use sha2::{Digest as _, Sha256};

use crate::{
    hash_list_set::HashListSet,
    report::HashFinding,
    unpack::{MediaObject, Visitor},
};

/// Looks up each object before the rules examine it, if there are any.
pub(crate) struct HashVisitor<'a> {
    lists: &'a HashListSet,
    rules: Option<&'a mut dyn Visitor>,
    finding: Option<HashFinding>,
    /// Whether a finding does not end the evaluation.
    is_observed: bool,
}

impl<'a> HashVisitor<'a> {
    pub(crate) fn new(lists: &'a HashListSet, rules: Option<&'a mut dyn Visitor>) -> Self {
        Self { lists, rules, finding: None, is_observed: false }
    }

    /// Continues after a finding.
    pub(crate) fn observing(self, is_observed: bool) -> Self {
        Self { is_observed, ..self }
    }

    /// Returns the first object with a blocked digest.
    pub(crate) fn into_finding(self) -> Option<HashFinding> {
        self.finding
    }

    /// Returns the entry for an object. SHA-1 and MD5 are computed only if an entry needs them.
    fn lookup(&self, sha256: &[u8; 32], bytes: &[u8]) -> Option<HashMatch<'a>> {
        let lists = self.lists.lists();
        lists.lookup(&Digests {
            sha256: *sha256,
            sha1: lists.needs(DigestKind::Sha1).then(|| Sha1::digest(bytes).into()),
            md5: lists.needs(DigestKind::Md5).then(|| Md5::digest(bytes).into()),
            size: bytes.len() as u64,
        })
    }
}

impl Visitor for HashVisitor<'_> {
    fn visit(&mut self, object: &MediaObject<'_>) -> ControlFlow<()> {
        let digest = match object.digest {
            Some(digest) => Some(digest),
            None if object.container.is_none() => Some(Sha256::digest(object.bytes).into()),
            // Text that an unpacker derived from an object, such as decoded text: not a file.
            None => None,
        };
        let entry = digest.and_then(|digest| self.lookup(&digest, object.bytes));
        // The service applies allow entries for whole media files when it answers a request.
        if let Some(HashMatch { action: ListAction::Block, list, name }) = entry {
            let name = name.filter(|name| !name.is_empty()).unwrap_or(list);
            self.finding.get_or_insert_with(|| HashFinding {
                name: name.to_owned(),
                path: object.report_path(),
            });
            if !self.is_observed {
                return ControlFlow::Break(());
            }
        }
        match &mut self.rules {
            Some(rules) => rules.visit(object),
            None => ControlFlow::Continue(()),
        }
    }

    fn skips(&mut self, digest: &[u8; 32], bytes: &[u8]) -> bool {
        // Block entries have precedence.
        self.lookup(digest, bytes).is_some_and(|entry| entry.action == ListAction::Allow)
    }
}
