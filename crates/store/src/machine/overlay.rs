//! [`Overlay`]: changes not yet committed, on top of a view.

use std::collections::BTreeMap;
use std::ops::{Bound, ControlFlow};

use bytes::Bytes;

use super::recent::Recent;
use crate::backend::{BackendError, Direction, Space, View, Visit, Write};

/// A view that sees its own changes; they become a batch in the end. Ordered, so that the batch
/// is the same everywhere.
pub(super) struct Overlay<'v, V: View> {
    base: &'v V,
    /// What is known of `base` without reading it.
    recent: Option<&'v Recent>,
    spaces: [BTreeMap<Bytes, Option<Bytes>>; Space::COUNT],
}

impl<'v, V: View> Overlay<'v, V> {
    pub fn new(base: &'v V) -> Self {
        Self { base, recent: None, spaces: Default::default() }
    }

    /// For who applies: on top of the applied state, of which `recent` knows a part.
    pub fn of_applied(base: &'v V, recent: &'v Recent) -> Self {
        Self { recent: Some(recent), ..Self::new(base) }
    }

    fn read(&self, space: Space, key: &[u8]) -> Result<Option<Bytes>, BackendError> {
        let Some(recent) = self.recent.filter(|_| space == Space::Latest) else {
            return self.base.get(space, key);
        };
        if let Some(known) = recent.get(key) {
            return Ok(known);
        }
        let record = self.base.get(space, key)?;
        recent.set(key, record.clone());
        Ok(record)
    }

    pub fn put(&mut self, space: Space, key: Bytes, value: Bytes) {
        self.spaces[space as usize].insert(key, Some(value));
    }

    pub fn delete(&mut self, space: Space, key: Bytes) {
        self.spaces[space as usize].insert(key, None);
    }

    pub fn into_ops(self) -> Vec<Write> {
        let spaces = Space::ALL.into_iter().zip(self.spaces);
        spaces
            .flat_map(|(space, map)| map.into_iter().map(move |(key, value)| (space, key, value)))
            .collect()
    }
}

impl<V: View> View for Overlay<'_, V> {
    fn get(&self, space: Space, key: &[u8]) -> Result<Option<Bytes>, BackendError> {
        match self.spaces[space as usize].get(key) {
            Some(changed) => Ok(changed.clone()),
            None => self.read(space, key),
        }
    }

    fn scan(
        &self,
        space: Space,
        start: &[u8],
        end: Option<&[u8]>,
        direction: Direction,
        visit: Visit<'_>,
    ) -> Result<(), BackendError> {
        if end.is_some_and(|end| start >= end) {
            return Ok(());
        }
        let upper = end.map_or(Bound::Unbounded, Bound::Excluded);
        let changed = self.spaces[space as usize].range::<[u8], _>((Bound::Included(start), upper));
        let changed: Box<dyn Iterator<Item = (&Bytes, &Option<Bytes>)>> = match direction {
            Direction::Forward => Box::new(changed),
            Direction::Backward => Box::new(changed.rev()),
        };
        let mut changed = changed.peekable();
        let mut stopped = false;
        let mut emit = |key: &[u8], value: &[u8]| {
            let flow = visit(key, value);
            stopped = flow.is_break();
            flow
        };
        self.base.scan(space, start, end, direction, &mut |key, value| {
            // The changes that come before this key; a change of the key itself replaces it.
            while let Some((own, new)) = changed.next_if(|(own, _)| !precedes(key, own, direction))
            {
                if let Some(new) = new {
                    emit(own, new)?;
                }
                if own.as_ref() == key {
                    return ControlFlow::Continue(());
                }
            }
            emit(key, value)
        })?;
        if !stopped {
            for (own, new) in changed {
                if let Some(new) = new
                    && visit(own, new).is_break()
                {
                    break;
                }
            }
        }
        Ok(())
    }
}

/// Does a scan in `direction` meet `a` strictly before `b`?
fn precedes(a: &[u8], b: &[u8], direction: Direction) -> bool {
    match direction {
        Direction::Forward => a < b,
        Direction::Backward => a > b,
    }
}

/// [`View::scan`] with a visitor that can fail.
pub(super) fn try_scan<E: From<BackendError>>(
    view: &impl View,
    space: Space,
    start: &[u8],
    end: Option<&[u8]>,
    direction: Direction,
    mut visit: impl FnMut(&[u8], &[u8]) -> Result<ControlFlow<()>, E>,
) -> Result<(), E> {
    let mut failure = None;
    view.scan(space, start, end, direction, &mut |key, value| match visit(key, value) {
        Ok(flow) => flow,
        Err(error) => {
            failure = Some(error);
            ControlFlow::Break(())
        }
    })?;
    failure.map_or(Ok(()), Err)
}
