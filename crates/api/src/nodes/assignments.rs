//! What a node shall run, and what it needs to know for that: first all, then what changes.
//!
//! The watch pulls from the registry's ring only when the session can take another message, so
//! a slow agent costs no memory: it falls out of the ring and gets a fresh full set.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::{Container, Pod, PodSpec};
use quorate_objects::{Kind, Selector, kinds};
use quorate_proto::v1;
use quorate_proto::v1::master_message::Message as ToAgent;
use quorate_registry::{
    EventKind, Object, ObjectEvent, ObjectKey, ObjectWatcher, Registry, RegistryError, View,
};
use quorate_store::Term;
use tonic::Status;

use super::Shared;
use super::table::Session;
use crate::convert;
use crate::error::unavailable;

/// How long the cache may take to reach what the store has applied.
const CATCH_UP: Duration = Duration::from_secs(10);
const RETRY: Duration = Duration::from_millis(200);
/// Changes of one message.
const MAX_CHANGES: usize = 1024;

/// Sends the node's assignments while this master leads in `term`; returns why it ended.
pub(crate) async fn send(shared: &Shared, session: &Session, term: Term) -> Status {
    loop {
        // Everything that the leader's term begins with must be in what the agent hears first.
        let applied = *shared.store.applied().borrow();
        if let Err(error) = shared.registry.cache().wait(applied, CATCH_UP).await {
            tracing::warn!(%error, "the cache is behind, assignments wait");
            tokio::time::sleep(RETRY).await;
            continue;
        }
        match send_full_and_follow(&shared.registry, session, term).await {
            Ok(()) => return session.reason(),
            Err(RegistryError::Gone { .. }) => {
                tracing::info!("the agent was too slow for changes, it gets all again");
            }
            Err(RegistryError::Unavailable { reason, .. }) => return unavailable(reason),
            Err(error) => {
                tracing::error!(%error, "assignments begin again");
                tokio::time::sleep(RETRY).await;
            }
        }
    }
}

async fn send_full_and_follow(
    registry: &Registry,
    session: &Session,
    term: Term,
) -> Result<(), RegistryError> {
    let mut known = Known::new(&session.node);
    let (mut delta, mut revision) =
        registry.cache().read(|view| (known.everything(view), view.revision()));
    let mut watcher = registry.watch(None, None, Selector::everything(), revision)?;
    let mut full = true;
    loop {
        if full || !delta.is_empty() {
            let message = delta.encode(term, revision, full);
            full = false;
            if session.send(ToAgent::Assignments(message)).await.is_none() {
                return Ok(());
            }
        }
        delta = Delta::default();
        revision = gather(&mut watcher, &mut known, &mut delta).await?;
        registry.cache().read(|view| known.complete(view, &mut delta));
    }
}

/// Waits for a change and takes in all that are there; returns the revision reached.
async fn gather(
    watcher: &mut ObjectWatcher,
    known: &mut Known,
    delta: &mut Delta,
) -> Result<u64, RegistryError> {
    let mut event = watcher.next().await?;
    for _ in 0..MAX_CHANGES {
        known.take(&event, delta);
        // Only what is there already; it does not wait.
        match futures::FutureExt::now_or_never(watcher.next()) {
            Some(next) => event = next?,
            None => return Ok(watcher.progress()),
        }
    }
    known.take(&event, delta);
    Ok(event.revision.saturating_sub(1))
}

/// What one message carries.
#[derive(Default)]
struct Delta {
    set: BTreeMap<ObjectKey, Arc<Object>>,
    removed: BTreeMap<ObjectKey, String>,
}

impl Delta {
    fn is_empty(&self) -> bool {
        self.set.is_empty() && self.removed.is_empty()
    }

    fn encode(&self, term: Term, revision: u64, full: bool) -> v1::Assignments {
        let removed = self.removed.iter().map(|(key, uid)| v1::ObjectKey {
            kind: Some(convert::kind_ref(key.kind)),
            namespace: key.namespace.clone(),
            name: key.name.clone(),
            uid: uid.clone(),
        });
        v1::Assignments {
            term,
            revision,
            full,
            set: self.set.values().map(|object| convert::object(object)).collect(),
            removed: removed.collect(),
        }
    }
}

/// What the agent has been told, or is about to be.
struct Known {
    node: String,
    /// Revision and uid of each object.
    sent: HashMap<ObjectKey, (u64, String)>,
    /// What the node's pods refer to, by pod.
    references: BTreeMap<ObjectKey, BTreeSet<ObjectKey>>,
}

impl Known {
    fn new(node: &str) -> Self {
        Self { node: node.to_owned(), sent: HashMap::new(), references: BTreeMap::new() }
    }

    /// The full set.
    fn everything(&mut self, view: &View) -> Delta {
        let mut delta = Delta::default();
        let services = view.iter(&kinds::SERVICE, None);
        let common = services.chain(view.iter(&kinds::ENDPOINT_SLICE, None));
        let node = self.node.clone();
        for object in common.chain(view.pods_on(&node)) {
            self.set(object, &mut delta);
        }
        if let Some(node) = view.get(&kinds::NODE, "", &self.node) {
            self.set(node, &mut delta);
        }
        self.complete(view, &mut delta);
        delta
    }

    fn take(&mut self, event: &ObjectEvent, delta: &mut Delta) {
        let Some(object) = &event.object else { return };
        let key = object.key();
        let concerned = self.concerns(object, &key);
        if concerned && event.kind != EventKind::Deleted {
            self.set(object, delta);
        } else {
            self.remove(&key, delta);
        }
    }

    fn concerns(&self, object: &Object, key: &ObjectKey) -> bool {
        let kind = object.kind;
        if is(kind, &kinds::POD) {
            return object.field("spec.nodeName") == Some(self.node.as_str());
        }
        if is(kind, &kinds::NODE) {
            return object.name() == self.node;
        }
        if is(kind, &kinds::SERVICE) || is(kind, &kinds::ENDPOINT_SLICE) {
            return true;
        }
        self.references.values().any(|references| references.contains(key))
    }

    fn set(&mut self, object: &Arc<Object>, delta: &mut Delta) {
        let key = object.key();
        if is(object.kind, &kinds::POD) {
            self.references.insert(key.clone(), references(object));
        }
        // What `complete` reads from the cache may be ahead of the events: never go back.
        let told =
            |(revision, uid): &(u64, String)| uid == object.uid() && *revision >= object.revision;
        if !self.sent.get(&key).is_some_and(told) {
            self.sent.insert(key.clone(), (object.revision, object.uid().to_owned()));
            delta.removed.remove(&key);
            delta.set.insert(key, Arc::clone(object));
        }
    }

    fn remove(&mut self, key: &ObjectKey, delta: &mut Delta) {
        self.references.remove(key);
        if let Some((_, uid)) = self.sent.remove(key) {
            delta.set.remove(key);
            delta.removed.insert(key.clone(), uid);
        }
    }

    /// Adds what pods refer to from now on, and takes out what none refers to any longer.
    fn complete(&mut self, view: &View, delta: &mut Delta) {
        let wanted: BTreeSet<ObjectKey> = self.references.values().flatten().cloned().collect();
        let has = |key: &ObjectKey| self.sent.contains_key(key);
        let missing: Vec<_> = wanted.iter().filter(|key| !has(key)).collect();
        let found = missing.into_iter().filter_map(|k| view.get(k.kind, &k.namespace, &k.name));
        let found: Vec<_> = found.cloned().collect();
        for object in found {
            self.set(&object, delta);
        }
        let unused = |key: &&ObjectKey| is_referred_to(key.kind) && !wanted.contains(*key);
        let unused: Vec<_> = self.sent.keys().filter(unused).cloned().collect();
        for key in unused {
            self.remove(&key, delta);
        }
    }
}

fn is(kind: &'static Kind, other: &'static Kind) -> bool {
    kind.kind == other.kind && kind.group == other.group
}

fn is_referred_to(kind: &'static Kind) -> bool {
    is(kind, &kinds::CONFIG_MAP) || is(kind, &kinds::SECRET)
}

/// The ConfigMaps and Secrets that a pod needs on its node.
fn references(object: &Object) -> BTreeSet<ObjectKey> {
    let mut found = BTreeSet::new();
    let pod = match object.typed::<Pod>() {
        Ok(pod) => pod,
        Err(error) => {
            tracing::error!(pod = object.name(), %error, "a pod cannot be read");
            return found;
        }
    };
    let Some(spec) = &pod.spec else { return found };
    let mut add = |kind: &'static Kind, name: Option<&String>| {
        if let Some(name) = name {
            found.insert(ObjectKey::new(kind, object.namespace(), name));
        }
    };
    of_volumes(spec, &mut add);
    for secret in spec.image_pull_secrets.iter().flatten() {
        add(&kinds::SECRET, Some(&secret.name));
    }
    for container in spec.init_containers.iter().flatten().chain(&spec.containers) {
        of_environment(container, &mut add);
    }
    found
}

type Add<'a> = dyn FnMut(&'static Kind, Option<&String>) + 'a;

fn of_volumes(spec: &PodSpec, add: &mut Add<'_>) {
    for volume in spec.volumes.iter().flatten() {
        add(&kinds::CONFIG_MAP, volume.config_map.as_ref().map(|source| &source.name));
        add(&kinds::SECRET, volume.secret.as_ref().and_then(|source| source.secret_name.as_ref()));
        let projected = volume.projected.iter().filter_map(|p| p.sources.as_ref());
        for source in projected.flatten() {
            add(&kinds::CONFIG_MAP, source.config_map.as_ref().map(|source| &source.name));
            add(&kinds::SECRET, source.secret.as_ref().map(|source| &source.name));
        }
    }
}

fn of_environment(container: &Container, add: &mut Add<'_>) {
    for from in container.env_from.iter().flatten() {
        add(&kinds::CONFIG_MAP, from.config_map_ref.as_ref().map(|source| &source.name));
        add(&kinds::SECRET, from.secret_ref.as_ref().map(|source| &source.name));
    }
    let sources = container.env.iter().flatten().filter_map(|env| env.value_from.as_ref());
    for source in sources {
        add(&kinds::CONFIG_MAP, source.config_map_key_ref.as_ref().map(|key| &key.name));
        add(&kinds::SECRET, source.secret_key_ref.as_ref().map(|key| &key.name));
    }
}
