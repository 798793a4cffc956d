//! What the content's hash was at the last revisions: members compare theirs at one that all have.

use std::collections::VecDeque;

use crate::types::Revision;

/// Revisions whose content's hash is remembered, at 8 bytes each.
const CONTENTS: usize = 32_768;

/// The hash of the content at the last revisions, without gaps.
#[derive(Default)]
pub(super) struct Contents {
    newest: Revision,
    hashes: VecDeque<u64>,
}

impl Contents {
    /// Takes the hashes of the revisions that end with `newest`.
    pub fn push(&mut self, newest: Revision, hashes: Vec<u64>) {
        self.newest = newest;
        self.hashes.extend(hashes);
        let excess = self.hashes.len().saturating_sub(CONTENTS);
        self.hashes.drain(..excess);
    }

    pub fn reset(&mut self, revision: Revision, hash: u64) {
        self.newest = revision;
        self.hashes.clear();
        self.hashes.push_back(hash);
    }

    pub fn last(&self) -> (Revision, u64) {
        (self.newest, self.hashes.back().copied().unwrap_or(0))
    }

    pub fn at(&self, revision: Revision) -> Option<u64> {
        let back = usize::try_from(self.newest.checked_sub(revision)?).ok()?;
        self.hashes.get(self.hashes.len().checked_sub(back + 1)?).copied()
    }
}
