//! What a node shall run, and what it needs to know for that: first all, then what changes.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::{
    Container, PersistentVolume, PersistentVolumeClaim, Pod, PodSpec,
};
use quorate_objects::{Kind, kinds, storage};
use quorate_proto::v1;
use quorate_proto::v1::master_message::Message as ToAgent;
use quorate_registry::{Cache, Object, ObjectKey, View};
use quorate_store::Term;
use tonic::Status;

use super::Shared;
use super::feeds::{Dirty, Subscription};
use super::session::Turn;
use super::table::Session;
use crate::convert;

/// How long the cache may take to reach what the store has applied.
const CATCH_UP: Duration = Duration::from_secs(10);
/// The authority's certificate, which nodes give to every pod that may want to reach the masters.
const ROOT_CA: &str = "kube-root-ca.crt";
const RETRY: Duration = Duration::from_millis(200);

/// Waits until everything that a leader's term begins with is in the cache.
pub(crate) async fn caught_up(shared: &Shared) {
    loop {
        let applied = *shared.store.applied().borrow();
        match shared.registry.cache().wait(applied, CATCH_UP).await {
            Ok(()) => return,
            Err(error) => tracing::warn!(%error, "the cache is behind, assignments wait"),
        }
        tokio::time::sleep(RETRY).await;
    }
}

/// Sends the node's assignments while this master leads in `term`; returns why it ended.
pub(super) async fn send(
    shared: &Shared,
    session: &Session,
    term: Term,
    mut turn: Turn<'_>,
) -> Status {
    let holding = turn.wait_for(session.holding(term)).await;
    let mut subscription = shared.feeds.subscribe(&session.node, session.without_services);
    let cache = shared.registry.cache();
    let mut full = holding.is_none();
    let mut known = Known::new(session, holding.unwrap_or_default());
    let mut dirty = Dirty::All;
    loop {
        let complete = dirty == Dirty::All;
        if complete {
            turn.again().await;
        }
        let (delta, revision) = known.look(cache, &mut subscription, &dirty);
        let tell = complete || !delta.is_empty();
        let message = tell.then(|| delta.encode(term, revision, full, complete));
        // It is not held while the agent is waited for.
        turn.pass();
        if let Some(message) = message
            && session.send(ToAgent::Assignments(message)).await.is_none()
        {
            return session.reason();
        }
        dirty = subscription.feed().changes().await;
        full = dirty == Dirty::All;
        if full {
            known = Known::new(session, v1::Holding::default());
        }
    }
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

    fn encode(&self, term: Term, revision: u64, full: bool, complete: bool) -> v1::Assignments {
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
            complete,
            set: self.set.values().map(|object| convert::object(object)).collect(),
            removed: removed.collect(),
        }
    }
}

/// What the agent has been told, or is about to be.
struct Known {
    node: String,
    without_services: bool,
    /// Revision and uid of each object.
    sent: HashMap<ObjectKey, (u64, String)>,
    /// What the node's pods refer to, by pod.
    references: BTreeMap<ObjectKey, BTreeSet<ObjectKey>>,
}

impl Known {
    fn new(session: &Session, holding: v1::Holding) -> Self {
        let sent = holding.objects.into_iter().filter_map(|held| {
            let kind = held.kind.unwrap_or_default();
            let kind = Kind::by_gvk(&kind.api_version, &kind.kind)?;
            let key = ObjectKey::new(kind, &held.namespace, &held.name);
            Some((key, (held.revision, held.uid)))
        });
        Self {
            node: session.node.clone(),
            without_services: session.without_services,
            sent: sent.collect(),
            references: BTreeMap::new(),
        }
    }

    /// What of `dirty` the agent must be told, at the revision returned.
    fn look(
        &mut self,
        cache: &Cache,
        subscription: &mut Subscription,
        dirty: &Dirty,
    ) -> (Delta, u64) {
        let mut delta = Delta::default();
        cache.read(|view| match dirty {
            Dirty::Nothing => {}
            Dirty::All => self.everything(view, &mut delta),
            Dirty::Keys(keys) => keys.iter().for_each(|key| self.take(view, key, &mut delta)),
        });
        let direct: BTreeSet<ObjectKey> = self.references.values().flatten().cloned().collect();
        // First noted, then read: a change in between is noted. What claims are bound to is read
        // from them, so they are looked at again once they are noted.
        let mut wanted = direct.clone();
        loop {
            wanted.extend(cache.read(|view| volumes(view, &direct)));
            subscription.refer(wanted.clone());
            if cache.read(|view| volumes(view, &direct)).iter().all(|key| wanted.contains(key)) {
                break;
            }
        }
        let revision = cache.read(|view| {
            self.complete(view, &wanted, &mut delta);
            view.revision()
        });
        (delta, revision)
    }

    fn everything(&mut self, view: &View, delta: &mut Delta) {
        let node = self.node.clone();
        let held: Vec<_> = self.sent.keys().cloned().collect();
        if !self.without_services {
            let services = view.iter(&kinds::SERVICE, None);
            for object in services.chain(view.iter(&kinds::ENDPOINT_SLICE, None)) {
                self.set(object, delta);
            }
        }
        for object in view.pods_on(&node).chain(view.get(&kinds::NODE, "", &node)) {
            self.set(object, delta);
        }
        let doomed = view.iter(&kinds::PERSISTENT_VOLUME, None);
        for object in doomed.filter(|object| is_doomed_on(object, &node)) {
            self.set(object, delta);
        }
        // What is referred to and is there is looked at when all that pods refer to is known.
        let gone = |key: &ObjectKey| view.get(key.kind, &key.namespace, &key.name).is_none();
        for key in held.iter().filter(|key| !is_referred_to(key.kind) || gone(key)) {
            self.take(view, key, delta);
        }
    }

    fn take(&mut self, view: &View, key: &ObjectKey, delta: &mut Delta) {
        match view.get(key.kind, &key.namespace, &key.name) {
            Some(object) if self.concerns(object, key) => self.set(object, delta),
            _ => self.remove(key, delta),
        }
    }

    fn concerns(&self, object: &Object, key: &ObjectKey) -> bool {
        let kind = object.kind;
        if is(kind, &kinds::POD) {
            return object.field("spec.nodeName") == Some(self.node.as_str());
        }
        if is_doomed_on(object, &self.node) {
            return true;
        }
        if is_referred_to(kind) {
            return self.references.values().any(|references| references.contains(key));
        }
        true
    }

    fn set(&mut self, object: &Arc<Object>, delta: &mut Delta) {
        let key = object.key();
        if is(object.kind, &kinds::POD) {
            self.references.insert(key.clone(), references(object, self.without_services));
        }
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
    fn complete(&mut self, view: &View, wanted: &BTreeSet<ObjectKey>, delta: &mut Delta) {
        for key in wanted {
            if let Some(object) = view.get(key.kind, &key.namespace, &key.name) {
                self.set(object, delta);
            }
        }
        let doomed = |key: &ObjectKey| {
            let object = view.get(key.kind, &key.namespace, &key.name);
            object.is_some_and(|object| is_doomed_on(object, &self.node))
        };
        let unused =
            |key: &&ObjectKey| is_referred_to(key.kind) && !wanted.contains(*key) && !doomed(key);
        let unused: Vec<_> = self.sent.keys().filter(unused).cloned().collect();
        for key in unused {
            self.remove(&key, delta);
        }
    }
}

pub(super) fn is(kind: &'static Kind, other: &'static Kind) -> bool {
    kind.kind == other.kind && kind.group == other.group
}

fn is_referred_to(kind: &'static Kind) -> bool {
    let kinds = [
        &kinds::CONFIG_MAP,
        &kinds::SECRET,
        &kinds::PERSISTENT_VOLUME_CLAIM,
        &kinds::PERSISTENT_VOLUME,
    ];
    kinds.into_iter().any(|one| is(kind, one))
}

/// The node that is to remove the data of a volume.
pub(super) fn doomed_on(object: &Object) -> Option<String> {
    if !is(object.kind, &kinds::PERSISTENT_VOLUME) || !object.is_deleting() {
        return None;
    }
    let volume = object.typed::<PersistentVolume>().ok()?;
    storage::data_to_remove(&volume).map(|data| data.node.to_owned())
}

fn is_doomed_on(object: &Object, node: &str) -> bool {
    doomed_on(object).is_some_and(|on| on == node)
}

/// The volumes of claims among what is referred to.
fn volumes(view: &View, wanted: &BTreeSet<ObjectKey>) -> Vec<ObjectKey> {
    let claims = wanted.iter().filter(|key| is(key.kind, &kinds::PERSISTENT_VOLUME_CLAIM));
    let bound = |key: &ObjectKey| {
        let claim = view.get(key.kind, &key.namespace, &key.name)?;
        let claim = claim.typed::<PersistentVolumeClaim>().ok()?;
        let name = storage::volume_of(&claim)?;
        Some(ObjectKey::new(&kinds::PERSISTENT_VOLUME, "", name))
    };
    claims.filter_map(bound).collect()
}

/// Members of which a pod has at least one when it refers to anything else than the authority's
/// certificate, or does not want that one.
const REFERRING: [&str; 5] =
    ["volumes", "imagePullSecrets", "envFrom", "valueFrom", "automountServiceAccountToken"];

/// The ConfigMaps, Secrets and claims that a pod needs on its node. `hollow`: on a node whose pods
/// only pretend to run, nobody reaches the masters.
fn references(object: &Object, hollow: bool) -> BTreeSet<ObjectKey> {
    let mut found = BTreeSet::new();
    let mut add = |kind: &'static Kind, name: Option<&String>| {
        if let Some(name) = name {
            found.insert(ObjectKey::new(kind, object.namespace(), name));
        }
    };
    let certificate = ROOT_CA.to_owned();
    // A new leader looks at all pods, and most are not worth decoding.
    if !REFERRING.iter().any(|member| object.mentions(member)) {
        if !hollow {
            add(&kinds::CONFIG_MAP, Some(&certificate));
        }
        return found;
    }
    let pod = match object.typed::<Pod>() {
        Ok(pod) => pod,
        Err(error) => {
            tracing::error!(pod = object.name(), %error, "a pod cannot be read");
            return found;
        }
    };
    let Some(spec) = &pod.spec else { return found };
    of_volumes(spec, &mut add);
    if !hollow && spec.automount_service_account_token != Some(false) {
        add(&kinds::CONFIG_MAP, Some(&certificate));
    }
    for (_, claim) in storage::claims_of(&pod) {
        add(&kinds::PERSISTENT_VOLUME_CLAIM, Some(&claim));
    }
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

#[cfg(test)]
#[path = "assignments_test.rs"]
mod tests;
