//! The cache: every object of the applied state, decoded once, with the last changes.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::RwLock;
use quorate_objects::{Kind, kinds};
use tokio::sync::watch;

use crate::error::RegistryError;
use crate::object::{Object, ObjectKey};

/// What happened to an object.
#[derive(Clone, Debug)]
pub(crate) struct Change {
    /// Counts changes of all kinds; cursors of watchers point at it.
    pub seq: u64,
    /// The revision of the change.
    pub revision: u64,
    /// Before; `None` when it was created.
    pub old: Option<Arc<Object>>,
    /// After; `None` when it was deleted.
    pub new: Option<Arc<Object>>,
}

/// A change from before the first list.
pub(crate) struct Past {
    pub kind: &'static Kind,
    pub revision: u64,
    pub old: Option<Arc<Object>>,
    pub new: Option<Arc<Object>>,
}

type Indexed = HashMap<String, BTreeMap<ObjectKey, Arc<Object>>>;

/// The objects and their indexes, all at one revision.
#[derive(Default)]
pub struct View {
    revision: u64,
    objects: HashMap<&'static Kind, BTreeMap<String, BTreeMap<String, Arc<Object>>>>,
    by_owner: Indexed,
    by_node: Indexed,
    /// Pods without a controller, by namespace.
    orphan_pods: Indexed,
}

impl View {
    /// Everything up to this revision is here.
    #[must_use]
    pub fn revision(&self) -> u64 {
        self.revision
    }

    /// One object.
    #[must_use]
    pub fn get(&self, kind: &'static Kind, namespace: &str, name: &str) -> Option<&Arc<Object>> {
        let namespace = if kind.namespaced { namespace } else { "" };
        self.objects.get(kind)?.get(namespace)?.get(name)
    }

    /// All objects of a kind, in order of namespace and name.
    pub fn iter(
        &self,
        kind: &'static Kind,
        namespace: Option<&str>,
    ) -> impl Iterator<Item = &Arc<Object>> {
        let namespace = namespace.filter(|ns| kind.namespaced && !ns.is_empty());
        let all = self.objects.get(kind).into_iter();
        let (one, many) = match namespace {
            Some(namespace) => (all.clone().next().and_then(|m| m.get(namespace)), None),
            None => (None, Some(all.flat_map(BTreeMap::values))),
        };
        one.into_iter().chain(many.into_iter().flatten()).flat_map(BTreeMap::values)
    }

    /// The objects with an owner reference to `uid`.
    pub fn by_owner(&self, uid: &str) -> impl Iterator<Item = &Arc<Object>> {
        self.by_owner.get(uid).into_iter().flat_map(BTreeMap::values)
    }

    /// The pods bound to a node.
    pub fn pods_on(&self, node: &str) -> impl Iterator<Item = &Arc<Object>> {
        self.by_node.get(node).into_iter().flat_map(BTreeMap::values)
    }

    /// The pods of a namespace that no controller owns.
    pub fn orphan_pods(&self, namespace: &str) -> impl Iterator<Item = &Arc<Object>> {
        self.orphan_pods.get(namespace).into_iter().flat_map(BTreeMap::values)
    }

    /// Puts `new` in the place of what was there, which is returned.
    fn replace(&mut self, key: &ObjectKey, new: Option<Arc<Object>>) -> Option<Arc<Object>> {
        let namespaces = self.objects.entry(key.kind).or_default();
        let names = namespaces.entry(key.namespace.clone()).or_default();
        let old = match &new {
            Some(new) => names.insert(key.name.clone(), Arc::clone(new)),
            None => names.remove(&key.name),
        };
        if names.is_empty() {
            namespaces.remove(&key.namespace);
        }
        if let Some(old) = &old {
            self.index(key, old, false);
            old.grow_old();
        }
        if let Some(new) = &new {
            self.index(key, new, true);
        }
        old
    }

    /// After a change of a definition: its objects are shown as it says now.
    fn renew(&mut self, definition: &str) {
        let Some(kind) = kinds::find(|kind| kind.is_custom() && kind.resource() == definition)
        else {
            return;
        };
        let old: Vec<_> = self.iter(kind, None).map(Arc::clone).collect();
        for object in old.into_iter().filter(|object| !std::ptr::eq(object.kind, kind)) {
            match object.as_kind(kind) {
                Ok(renewed) => drop(self.replace(&renewed.key(), Some(Arc::new(renewed)))),
                Err(error) => tracing::error!(?object, %error, "is shown as it was"),
            }
        }
    }

    fn index(&mut self, key: &ObjectKey, object: &Arc<Object>, add: bool) {
        for owner in object.meta.owner_references.iter().flatten() {
            set_index(&mut self.by_owner, &owner.uid, key, object, add);
        }
        if *key.kind == kinds::POD && quorate_objects::pod::controller_of(&object.meta).is_none() {
            set_index(&mut self.orphan_pods, &key.namespace, key, object, add);
        }
        // Only pods have this field.
        if let Some(node) = object.field("spec.nodeName").filter(|node| !node.is_empty()) {
            set_index(&mut self.by_node, node, key, object, add);
        }
    }

    fn keys(&self) -> Vec<ObjectKey> {
        let kinds = self.objects.values();
        let objects = kinds.flat_map(BTreeMap::values).flat_map(BTreeMap::values);
        objects.map(|object| object.key()).collect()
    }
}

fn set_index(index: &mut Indexed, at: &str, key: &ObjectKey, object: &Arc<Object>, add: bool) {
    if add {
        index.entry(at.to_owned()).or_default().insert(key.clone(), Arc::clone(object));
        return;
    }
    if let Some(entries) = index.get_mut(at) {
        entries.remove(key);
        if entries.is_empty() {
            index.remove(at);
        }
    }
}

/// The last changes of one kind.
#[derive(Default)]
struct Ring {
    changes: VecDeque<Change>,
    /// Changes up to this revision may be missing.
    floor: u64,
    /// The number of the last change that is missing.
    floor_seq: u64,
}

#[derive(Default)]
struct State {
    view: View,
    rings: HashMap<&'static Kind, Ring>,
    seq: u64,
    synced: bool,
}

/// Every object, as of the revision that this master has applied (a moment ago).
///
/// Reads lock for as long as they run and never wait for the network.
pub struct Cache {
    state: RwLock<State>,
    revision: watch::Sender<u64>,
    capacity: usize,
}

impl Cache {
    pub(crate) fn new(capacity: usize) -> Self {
        Self { state: RwLock::default(), revision: watch::Sender::new(0), capacity }
    }

    /// How many changes of a kind are kept.
    pub(crate) fn capacity(&self) -> usize {
        self.capacity
    }

    /// One object; `namespace` is ignored for kinds without.
    #[must_use]
    pub fn get(&self, kind: &'static Kind, namespace: &str, name: &str) -> Option<Arc<Object>> {
        self.state.read().view.get(kind, namespace, name).cloned()
    }

    /// All objects of a kind (in one namespace), in order of namespace and name.
    #[must_use]
    pub fn list(&self, kind: &'static Kind, namespace: Option<&str>) -> Vec<Arc<Object>> {
        self.state.read().view.iter(kind, namespace).cloned().collect()
    }

    /// The objects with an owner reference to `uid`.
    #[must_use]
    pub fn by_owner(&self, uid: &str) -> Vec<Arc<Object>> {
        self.state.read().view.by_owner(uid).cloned().collect()
    }

    /// The pods bound to a node.
    #[must_use]
    pub fn pods_on(&self, node: &str) -> Vec<Arc<Object>> {
        self.state.read().view.pods_on(node).cloned().collect()
    }

    /// The pods of a namespace that no controller owns.
    #[must_use]
    pub fn orphan_pods(&self, namespace: &str) -> Vec<Arc<Object>> {
        self.state.read().view.orphan_pods(namespace).cloned().collect()
    }

    /// Several reads at one revision. Keep it short: writers wait meanwhile.
    pub fn read<T>(&self, reader: impl FnOnce(&View) -> T) -> T {
        reader(&self.state.read().view)
    }

    /// Everything up to this revision is here.
    #[must_use]
    pub fn revision(&self) -> u64 {
        self.state.read().view.revision
    }

    /// Has the first list been read?
    #[must_use]
    pub fn synced(&self) -> bool {
        self.state.read().synced
    }

    /// The revision, as it grows.
    #[must_use]
    pub fn subscribe(&self) -> watch::Receiver<u64> {
        self.revision.subscribe()
    }

    /// Waits until everything up to `revision` is here.
    ///
    /// # Errors
    /// [`RegistryError::Timeout`]
    pub async fn wait(&self, revision: u64, timeout: Duration) -> Result<(), RegistryError> {
        let mut receiver = self.revision.subscribe();
        let wait = receiver.wait_for(|seen| *seen >= revision.max(1));
        match tokio::time::timeout(timeout, wait).await {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(_)) => Err(RegistryError::Unavailable {
                reason: "the master is shutting down".into(),
                leader: None,
            }),
            Err(_) => Err(RegistryError::Timeout(format!(
                "this master's cache has not reached revision {revision} (it is at {})",
                self.revision()
            ))),
        }
    }

    /// Takes the first list, as of `revision`, and the changes that led to it: all after `floor`.
    pub(crate) fn begin(
        &self,
        revision: u64,
        list: BTreeMap<ObjectKey, Arc<Object>>,
        floor: u64,
        history: Vec<Past>,
    ) {
        let mut state = self.state.write();
        for kind in kinds() {
            state.rings.entry(kind).or_default().floor = floor;
        }
        for (key, object) in list {
            state.view.replace(&key, Some(object));
        }
        for Past { kind, revision, old, new } in history {
            state.record(kind, revision, (old, new), self.capacity);
        }
        state.synced = true;
        state.view.revision = revision;
        drop(state);
        self.revision.send_replace(revision);
    }

    /// Applies changes of whole revisions, up to `revision`.
    pub(crate) fn apply(
        &self,
        revision: u64,
        changes: impl IntoIterator<Item = (ObjectKey, u64, Option<Arc<Object>>)>,
    ) {
        let mut state = self.state.write();
        for (key, at, new) in changes {
            state.apply_one(&key, at, new, self.capacity);
            if *key.kind == kinds::CUSTOM_RESOURCE_DEFINITION {
                state.view.renew(&key.name);
            }
        }
        state.view.revision = state.view.revision.max(revision);
        let revision = state.view.revision;
        drop(state);
        self.revision.send_replace(revision);
    }

    /// Replaces everything by the list at `revision`; watchers see the differences. What was
    /// deleted and made anew under its name is another object, and they see both.
    pub(crate) fn reset(&self, revision: u64, list: BTreeMap<ObjectKey, Arc<Object>>) {
        let mut state = self.state.write();
        let gone: Vec<_> =
            state.view.keys().into_iter().filter(|key| !list.contains_key(key)).collect();
        for key in gone {
            state.apply_one(&key, revision, None, self.capacity);
        }
        for (key, object) in list {
            match state.view.get(key.kind, &key.namespace, &key.name) {
                Some(old) if *old == object => continue,
                Some(old) if old.uid() != object.uid() => {
                    state.apply_one(&key, revision, None, self.capacity);
                }
                _ => {}
            }
            state.apply_one(&key, revision, Some(object), self.capacity);
        }
        state.view.revision = revision;
        drop(state);
        self.revision.send_replace(revision);
    }

    /// All objects of a kind (in one namespace) in order of namespace and name, as they are, or
    /// as they were at a revision: the newest state with the later changes taken back.
    pub(crate) fn objects_at(
        &self,
        kind: &'static Kind,
        namespace: Option<&str>,
        revision: Option<u64>,
    ) -> Result<(Vec<Arc<Object>>, u64), RegistryError> {
        let state = self.state.read();
        let newest = state.view.revision;
        let revision = revision.unwrap_or(newest);
        let mut before = BTreeMap::new();
        if let Some(ring) = state.rings.get(kind) {
            if revision < ring.floor {
                return Err(RegistryError::Gone { requested: revision, oldest: ring.floor });
            }
            let start = ring.changes.partition_point(|change| change.revision <= revision);
            for Change { old, new, .. } in ring.changes.range(start..) {
                // The first change after the revision knows what was there.
                if let Some(object) = old.as_ref().or(new.as_ref()) {
                    before.entry((object.namespace(), object.name())).or_insert(old.as_ref());
                }
            }
        }
        let then = |object| match before.get(&place(object)) {
            None => Some(Arc::clone(object)),
            Some(old) => old.cloned(),
        };
        let mut list: Vec<_> = state.view.iter(kind, namespace).filter_map(then).collect();
        let here = namespace.filter(|ns| kind.namespaced && !ns.is_empty());
        let deleted = before.values().flatten().filter(|old| {
            here.is_none_or(|ns| ns == old.namespace())
                && state.view.get(kind, old.namespace(), old.name()).is_none()
        });
        let length = list.len();
        list.extend(deleted.map(|old| Arc::clone(old)));
        if list.len() > length {
            list.sort_unstable_by(|a, b| place(a).cmp(&place(b)));
        }
        Ok((list, revision))
    }

    /// All objects that match, with the cursor from which changes follow without a gap.
    pub(crate) fn list_and_cursor(
        &self,
        kind: Option<&'static Kind>,
        namespace: Option<&str>,
    ) -> (Vec<Arc<Object>>, u64, u64) {
        let state = self.state.read();
        let wanted = kinds().into_iter().filter(|k| kind.is_none_or(|kind| kind == *k));
        let list = wanted.flat_map(|k| state.view.iter(k, namespace)).cloned().collect();
        (list, state.view.revision, state.seq)
    }

    /// Are there changes after this number?
    pub(crate) fn list_is_behind(&self, seq: u64) -> bool {
        self.state.read().seq > seq
    }

    /// Up to `limit` changes after the cursor, in order, with the revision up to which nothing
    /// is missing then.
    pub(crate) fn changes(
        &self,
        kind: Option<&'static Kind>,
        cursor: Cursor,
        limit: usize,
    ) -> Result<(Vec<Change>, u64, u64), RegistryError> {
        let state = self.state.read();
        let mut found = Vec::new();
        for (ring_kind, ring) in &state.rings {
            if kind.is_some_and(|kind| kind != *ring_kind) {
                continue;
            }
            let behind = match cursor {
                Cursor::After(revision) => revision < ring.floor,
                Cursor::Seq(seq, _) => seq < ring.floor_seq,
            };
            if behind {
                let requested = match cursor {
                    Cursor::After(revision) | Cursor::Seq(_, revision) => revision,
                };
                return Err(RegistryError::Gone { requested, oldest: ring.floor });
            }
            let start = ring.changes.partition_point(|change| match cursor {
                Cursor::After(revision) => change.revision <= revision,
                Cursor::Seq(seq, _) => change.seq <= seq,
            });
            found.extend(ring.changes.range(start..).take(limit).cloned());
        }
        found.sort_unstable_by_key(|change| change.seq);
        if found.len() > limit {
            found.truncate(limit);
        }
        let (seq, revision) = match found.last() {
            // There may be more behind a full answer.
            Some(last) if found.len() == limit => (last.seq, last.revision.saturating_sub(1)),
            _ => (state.seq, state.view.revision),
        };
        Ok((found, seq, revision))
    }
}

fn place(object: &Arc<Object>) -> (&str, &str) {
    (object.namespace(), object.name())
}

/// How far a watcher has come.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Cursor {
    /// Wants what comes after this revision.
    After(u64),
    /// Has seen the changes up to this number, and everything up to this revision.
    Seq(u64, u64),
}

impl State {
    fn apply_one(&mut self, key: &ObjectKey, revision: u64, new: Option<Arc<Object>>, cap: usize) {
        let old = self.view.replace(key, new.clone());
        if old.is_some() || new.is_some() {
            self.record(key.kind, revision, (old, new), cap);
        }
    }

    fn record(
        &mut self,
        kind: &'static Kind,
        revision: u64,
        (old, new): (Option<Arc<Object>>, Option<Arc<Object>>),
        cap: usize,
    ) {
        self.seq += 1;
        let ring = self.rings.entry(kind).or_default();
        if ring.changes.len() >= cap.max(1)
            && let Some(lost) = ring.changes.pop_front()
        {
            ring.floor = ring.floor.max(lost.revision);
            ring.floor_seq = lost.seq;
        }
        ring.changes.push_back(Change { seq: self.seq, revision, old, new });
    }
}

#[cfg(test)]
#[path = "cache_test.rs"]
mod tests;
