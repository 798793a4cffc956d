//! Reading ranges, at the latest revision and at older ones.

use std::cmp::Ordering;
use std::ops::ControlFlow;

use bytes::{Bytes, BytesMut};

use super::Refusal;
use super::check::unknown;
use super::codec::{
    self, Change, Header, Moment, decode_record, index_prefix, split_index_key, split_record,
    unescape,
};
use super::overlay::try_scan;
use crate::backend::{BackendError, Direction, Space, View};
use crate::command::Rejection;
use crate::types::{
    EventType, KeyRange, KeyValue, RangeRequest, RangeResponse, Revision, SortOrder, SortTarget,
};

/// The revisions of the state that is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct ReadPoint {
    pub revision: Revision,
    pub compact_revision: Revision,
}

impl ReadPoint {
    /// Can `revision` (0: the latest) be read here?
    pub fn check(self, revision: Revision) -> Result<(), Rejection> {
        if revision > self.revision {
            return Err(Rejection::FutureRevision(self.revision));
        }
        if revision != 0 && revision < self.compact_revision {
            return Err(Rejection::Compacted(self.compact_revision));
        }
        Ok(())
    }
}

pub(super) fn range<V: View>(
    view: &V,
    request: &RangeRequest,
    at: ReadPoint,
) -> Result<RangeResponse, Refusal> {
    at.check(request.revision)?;
    let mut selection = Selection::new(request)?;
    if request.revision != 0 && request.revision != at.revision {
        selection.read_old(view)?;
    } else if request.range.is_single() {
        if let Some(record) = view.get(Space::Latest, &request.range.key)? {
            selection.offer_owned(request.range.key.clone(), &record)?;
        }
    } else {
        selection.read_latest(view)?;
    }
    Ok(selection.finish(at.revision))
}

/// What a request picks from the keys it is offered.
struct Selection<'r> {
    request: &'r RangeRequest,
    order: SortOrder,
    target: SortTarget,
    /// Enough keys to answer, one more than the limit included.
    take: usize,
    with_value: bool,
    count: u64,
    kvs: Vec<KeyValue>,
}

impl<'r> Selection<'r> {
    fn new(request: &'r RangeRequest) -> Result<Self, BackendError> {
        let known = |_| unknown("sort order");
        let target = SortTarget::try_from(request.sort_target).map_err(known)?;
        let order = match SortOrder::try_from(request.sort_order).map_err(known)? {
            // As in etcd: who names a target wants it sorted.
            SortOrder::None if target != SortTarget::Key => SortOrder::Ascend,
            order => order,
        };
        let limit = usize::try_from(request.limit).unwrap_or(usize::MAX);
        let take = match (request.count_only, target, limit) {
            (true, _, _) => 0,
            (false, SortTarget::Key, 1..) => limit.saturating_add(1),
            _ => usize::MAX,
        };
        let with_value = !request.keys_only || target == SortTarget::Value;
        Ok(Self { request, order, target, take, with_value, count: 0, kvs: Vec::new() })
    }

    /// Keys come in the order in which they are returned, unless they are sorted by something
    /// else afterwards.
    fn direction(&self) -> Direction {
        match (self.target, self.order) {
            (SortTarget::Key, SortOrder::Descend) => Direction::Backward,
            _ => Direction::Forward,
        }
    }

    fn wants(&self, header: Header) -> bool {
        let within = |value, min, max| value >= min && (max == 0 || value <= max);
        let r = self.request;
        within(header.mod_revision, r.min_mod_revision, r.max_mod_revision)
            && within(header.create_revision, r.min_create_revision, r.max_create_revision)
    }

    /// Counts a key, and keeps it when it is wanted. Beyond the limit nothing is decoded.
    fn offer(&mut self, key: &[u8], record: &[u8]) -> Result<(), BackendError> {
        self.count += 1;
        if self.kvs.len() < self.take && self.wants(split_record(record)?.0) {
            self.kvs.push(codec::copy_record(key, record, self.with_value)?);
        }
        Ok(())
    }

    /// The same without copying the value.
    fn offer_owned(&mut self, key: Bytes, record: &Bytes) -> Result<(), BackendError> {
        self.count += 1;
        if self.kvs.len() < self.take && self.wants(split_record(record)?.0) {
            self.kvs.push(decode_record(key, record)?);
        }
        Ok(())
    }

    fn read_latest(&mut self, view: &impl View) -> Result<(), BackendError> {
        let KeyRange { key, end } = &self.request.range;
        let end = (!self.request.range.is_unbounded()).then_some(end.as_ref());
        try_scan(view, Space::Latest, key, end, self.direction(), |key, record| {
            self.offer(key, record)?;
            Ok(ControlFlow::Continue(()))
        })
    }

    fn read_old(&mut self, view: &impl View) -> Result<(), BackendError> {
        let mut living = keys_at(view, &self.request.range, self.request.revision)?;
        if self.direction() == Direction::Backward {
            living.reverse();
        }
        for (prefix, moment) in living {
            if self.kvs.len() >= self.take {
                self.count += 1;
                continue;
            }
            let record = record_at(view, moment)?;
            self.offer_owned(unescape(&prefix)?, &record)?;
        }
        Ok(())
    }

    fn finish(mut self, revision: Revision) -> RangeResponse {
        if self.target != SortTarget::Key {
            let (target, descending) = (self.target, self.order == SortOrder::Descend);
            // Stable: equal ones stay in the order of their keys.
            self.kvs.sort_by(|a, b| {
                let order = compare(a, b, target);
                if descending { order.reverse() } else { order }
            });
        }
        let limit = usize::try_from(self.request.limit).unwrap_or(usize::MAX);
        let more = limit != 0 && self.kvs.len() > limit;
        if more {
            self.kvs.truncate(limit);
        }
        if self.request.keys_only {
            self.kvs.iter_mut().for_each(|kv| kv.value = Bytes::new());
        }
        RangeResponse { kvs: self.kvs, more, count: self.count, revision }
    }
}

fn compare(a: &KeyValue, b: &KeyValue, target: SortTarget) -> Ordering {
    match target {
        SortTarget::Key => a.key.cmp(&b.key),
        SortTarget::Version => a.version.cmp(&b.version),
        SortTarget::Create => a.create_revision.cmp(&b.create_revision),
        SortTarget::Mod => a.mod_revision.cmp(&b.mod_revision),
        SortTarget::Value => a.value.cmp(&b.value),
    }
}

/// The keys (as index prefixes) that existed at `revision`, in order, with their last change.
fn keys_at(
    view: &impl View,
    range: &KeyRange,
    revision: Revision,
) -> Result<Vec<(Bytes, Moment)>, BackendError> {
    let start = index_prefix(&range.key);
    let end = index_end(range);
    let mut living: Vec<(Bytes, Moment)> = Vec::new();
    let scan = |key: &[u8], value: &[u8]| {
        let (prefix, moment) = split_index_key(key)?;
        if moment.revision > revision {
            return Ok(ControlFlow::Continue(()));
        }
        // A key's changes come oldest first: the last one counts.
        let same = living.last().is_some_and(|(last, _)| last.as_ref() == prefix);
        let kept = if same { living.pop().map(|(prefix, _)| prefix) } else { None };
        if codec::parse_mark(value)? == EventType::Put {
            let prefix = kept.unwrap_or_else(|| Bytes::copy_from_slice(prefix));
            living.push((prefix, moment));
        }
        Ok::<_, BackendError>(ControlFlow::Continue(()))
    };
    try_scan(view, Space::Index, &start, end.as_deref(), Direction::Forward, scan)?;
    Ok(living)
}

fn index_end(range: &KeyRange) -> Option<BytesMut> {
    if range.is_single() {
        let mut end = index_prefix(&range.key);
        // Longer and larger than every moment that can follow the prefix.
        end.extend_from_slice(&[0xff; 13]);
        return Some(end);
    }
    (!range.is_unbounded()).then(|| index_prefix(&range.end))
}

/// The record that a put left in history.
pub(super) fn record_at(view: &impl View, moment: Moment) -> Result<Bytes, BackendError> {
    let change = view
        .get(Space::History, &moment.encode())?
        .ok_or_else(|| codec::corrupt("index: its history entry is missing"))?;
    let parsed = Change::decode(&change)?;
    Ok(change.slice(change.len() - parsed.record.len()..))
}

/// The last change of `key` before `moment`, when there is one.
pub(super) fn change_before(
    view: &impl View,
    key: &[u8],
    moment: Moment,
) -> Result<Option<(Moment, EventType)>, BackendError> {
    let start = index_prefix(key);
    let end = codec::index_key(key, moment);
    let mut found = None;
    try_scan(view, Space::Index, &start, Some(&end), Direction::Backward, |entry, value| {
        found = Some((split_index_key(entry)?.1, codec::parse_mark(value)?));
        Ok::<_, BackendError>(ControlFlow::Break(()))
    })?;
    Ok(found)
}
