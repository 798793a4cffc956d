//! What is known of the log without reading the disk, with its most recent entries.

use std::collections::VecDeque;
use std::io;
use std::ops::Range;

use super::sizes::Sizes;
use crate::types::{Entry, LogId, Vote};

struct Cached {
    entry: Entry,
    size: usize,
    /// On disk once the writer has reported this ticket.
    ticket: u64,
}

/// Invariant: the cached entries are the last ones of the log, without a hole, and contain every
/// entry that is not on disk yet.
pub(super) struct Tail {
    pub(super) vote: Option<Vote>,
    committed: Option<LogId>,
    /// Is `committed` newer than what the writer last took?
    committed_changed: bool,
    purged: Option<LogId>,
    last: Option<LogId>,
    cached: VecDeque<Cached>,
    bytes: usize,
    limit: usize,
    next_ticket: u64,
    durable_ticket: u64,
    pub(super) sizes: Sizes,
}

impl Tail {
    pub(super) fn new(
        limit: usize,
        vote: Option<Vote>,
        committed: Option<LogId>,
        purged: Option<LogId>,
        last: Option<LogId>,
    ) -> Self {
        Self {
            vote,
            committed,
            committed_changed: false,
            purged,
            last,
            cached: VecDeque::new(),
            bytes: 0,
            limit,
            next_ticket: 1,
            durable_ticket: 0,
            sizes: Sizes::default(),
        }
    }

    pub(super) fn purged(&self) -> Option<LogId> {
        self.purged
    }

    pub(super) fn last(&self) -> Option<LogId> {
        self.last
    }

    pub(super) fn committed(&self) -> Option<LogId> {
        self.committed
    }

    pub(super) fn set_committed(&mut self, committed: Option<LogId>) {
        if self.committed != committed {
            self.committed = committed;
            self.committed_changed = true;
        }
    }

    /// The committed id, when the writer has not taken it yet.
    pub(super) fn take_committed(&mut self) -> Option<LogId> {
        if !std::mem::take(&mut self.committed_changed) {
            return None;
        }
        self.committed
    }

    /// A number for the entries of one append.
    pub(super) fn ticket(&mut self) -> u64 {
        let ticket = self.next_ticket;
        self.next_ticket += 1;
        ticket
    }

    pub(super) fn append(&mut self, entry: Entry, size: usize, ticket: u64) -> io::Result<()> {
        let expected = self.last.map_or(0, |last| last.index + 1);
        // The first entry of an empty log may have any index (tests of openraft start anywhere).
        if self.last.is_some() && entry.log_id.index != expected {
            return Err(io::Error::other(format!(
                "append of index {} leaves a hole, {expected} is next",
                entry.log_id.index
            )));
        }
        self.last = Some(entry.log_id);
        self.sizes.append(entry.log_id.index, size);
        self.bytes += size;
        self.cached.push_back(Cached { entry, size, ticket });
        Ok(())
    }

    /// Everything appended with a ticket up to this one is on disk.
    pub(super) fn durable(&mut self, ticket: u64) {
        self.durable_ticket = self.durable_ticket.max(ticket);
        while self.bytes > self.limit {
            match self.cached.front() {
                Some(oldest) if oldest.ticket <= self.durable_ticket => {
                    self.bytes -= oldest.size;
                    self.cached.pop_front();
                }
                _ => break,
            }
        }
    }

    pub(super) fn truncate(&mut self, last: Option<LogId>) {
        let first_gone = last.map_or(0, |last| last.index + 1);
        self.sizes.truncate(first_gone);
        while let Some(newest) = self.cached.back() {
            if newest.entry.log_id.index < first_gone {
                break;
            }
            self.bytes -= newest.size;
            self.cached.pop_back();
        }
        self.last = self.last.min(last).max(self.purged);
    }

    pub(super) fn purge(&mut self, upto: LogId) {
        while let Some(oldest) = self.cached.front() {
            if oldest.entry.log_id.index > upto.index {
                break;
            }
            self.bytes -= oldest.size;
            self.cached.pop_front();
        }
        self.sizes.purge(upto.index);
        self.purged = self.purged.max(Some(upto));
        self.last = self.last.max(self.purged);
    }

    /// The part of `[start, end)` that the log may contain.
    pub(super) fn clamp(&self, start: u64, end: u64) -> Range<u64> {
        let first = self.purged.map_or(0, |purged| purged.index + 1);
        let after = self.last.map_or(0, |last| last.index + 1);
        let start = start.max(first);
        start..end.min(after).max(start)
    }

    /// The cached part of `range`; when it begins with `range.start`, at most about `bytes`.
    pub(super) fn read(&self, range: Range<u64>, bytes: usize) -> Vec<Entry> {
        let Some(first) = self.cached.front().map(|oldest| oldest.entry.log_id.index) else {
            return Vec::new();
        };
        let offset =
            |index: u64| usize::try_from(index.saturating_sub(first)).unwrap_or(usize::MAX);
        let (from, to) = (offset(range.start), offset(range.end).min(self.cached.len()));
        let mut entries = Vec::new();
        let mut size = 0;
        for cached in self.cached.range(from.min(to)..to) {
            entries.push(cached.entry.clone());
            size += cached.size;
            if size >= bytes {
                break;
            }
        }
        entries
    }
}
