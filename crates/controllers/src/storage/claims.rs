//! Claims get volumes.

use std::sync::Arc;

use async_trait::async_trait;
use k8s_openapi::api::core::v1::{Node, PersistentVolume, PersistentVolumeClaim, Pod};
use k8s_openapi::api::storage::v1::StorageClass;
use quorate_objects::storage::{self, BIND_COMPLETED, CLAIM_PROTECTION, SELECTED_NODE};
use quorate_objects::{kinds, node, pod};
use quorate_registry::{EventType, ObjectEvent};

use super::release;
use crate::context::{Context, key_of};
use crate::controller::{Controller, Requeue};
use crate::error::ControllerError;
use crate::queue::Key;

/// Of nodes on which containers only pretend to run.
const HOLLOW: &str = "quorate.dev/hollow";

/// The controller of PersistentVolumeClaims: it binds, and makes volumes.
pub struct Claims {
    context: Arc<Context>,
}

/// Why a claim stays as it is.
struct Pending {
    event_type: EventType,
    reason: &'static str,
    message: String,
}

impl Pending {
    fn normal(reason: &'static str, message: impl Into<String>) -> Self {
        Self { event_type: EventType::Normal, reason, message: message.into() }
    }

    fn warning(reason: &'static str, message: impl Into<String>) -> Self {
        Self { event_type: EventType::Warning, reason, message: message.into() }
    }
}

impl Claims {
    /// The controller, over its context.
    #[must_use]
    pub fn new(context: Arc<Context>) -> Self {
        Self { context }
    }

    fn key(&self, namespace: &str, name: &str) -> Key {
        let kind = &kinds::PERSISTENT_VOLUME_CLAIM;
        Key { kind, namespace: namespace.to_owned(), name: name.to_owned() }
    }

    /// A claim that is being deleted goes when no pod uses it any more.
    async fn let_go(&self, claim: &PersistentVolumeClaim) -> Result<(), ControllerError> {
        let name = claim.metadata.name.as_deref().unwrap_or_default();
        let uses = |object: &Arc<Pod>| {
            let there = pod::node_name(object).is_some() && !pod::is_terminal(object);
            there && storage::claims_of(object).any(|(_, used)| used == name)
        };
        let pods = self.context.list::<Pod>(claim.metadata.namespace.as_deref());
        if pods.iter().any(uses) {
            return Ok(());
        }
        let mut freed = claim.clone();
        if release(&mut freed.metadata, CLAIM_PROTECTION) {
            self.context.update(&freed).await?;
        }
        Ok(())
    }

    /// A claim that names its volume.
    async fn bind_to(
        &self,
        claim: &PersistentVolumeClaim,
        name: &str,
    ) -> Result<Option<Pending>, ControllerError> {
        let Some(volume) = self.context.get::<PersistentVolume>("", name) else {
            let annotations = claim.metadata.annotations.as_ref();
            if annotations.is_some_and(|all| all.contains_key(BIND_COMPLETED)) {
                self.set_phase(claim, "Lost", None).await?;
                let text = "Bound claim has lost its PersistentVolume. Data on it is lost!";
                return Ok(Some(Pending::warning("ClaimLost", text)));
            }
            let text = format!("volume \"{name}\" not found");
            return Ok(Some(Pending::warning("FailedBinding", text)));
        };
        if !storage::is_free_for(&volume, claim) {
            let text = format!("volume \"{name}\" already bound to a different claim.");
            return Ok(Some(Pending::warning("FailedBinding", text)));
        }
        if !storage::is_bound_to(&volume, claim) && !storage::suits(&volume, claim) {
            let text = format!(
                "Cannot bind to requested volume \"{name}\": its class, access modes, mode, \
                 labels or size are not what the claim asks for"
            );
            return Ok(Some(Pending::warning("VolumeMismatch", text)));
        }
        self.bind(claim, &volume).await?;
        Ok(None)
    }

    /// A claim that names none.
    async fn find_or_make(
        &self,
        claim: &PersistentVolumeClaim,
    ) -> Result<Option<Pending>, ControllerError> {
        let Some(name) = storage::class_of(claim) else { return self.classify(claim).await };
        let class = self.context.get::<StorageClass>("", name);
        let waits = class.as_ref().is_some_and(|class| storage::waits_for_pod(class));
        let node = claim.metadata.annotations.as_ref().and_then(|all| all.get(SELECTED_NODE));
        if waits && node.is_none_or(String::is_empty) {
            let text = "waiting for first consumer to be created before binding";
            let wrong = class.as_ref().and_then(|class| storage::impossible(claim, class));
            return Ok(Some(match wrong {
                Some(why) => Pending::warning("ProvisioningFailed", why),
                None => Pending::normal("WaitForFirstConsumer", text),
            }));
        }
        let node = node.filter(|_| waits);
        let node = match node.map(|name| (name, self.context.get::<Node>("", name))) {
            // The node has gone before there was anything on it: the scheduler chooses again.
            Some((name, None)) => return self.choose_again(claim, name).await,
            Some((_, node)) => node,
            None => None,
        };
        if let Some(volume) = self.free_volume(claim, node.as_deref()) {
            self.bind(claim, &volume).await?;
            return Ok(None);
        }
        let Some(class) = class else {
            let text = if name.is_empty() {
                "no persistent volumes available for this claim and no storage class is set".into()
            } else {
                format!("storageclass.storage.k8s.io \"{name}\" not found")
            };
            let reason = if name.is_empty() { "FailedBinding" } else { "ProvisioningFailed" };
            return Ok(Some(Pending::warning(reason, text)));
        };
        self.provision(claim, &class, node).await
    }

    /// A claim without a class gets the default one as soon as there is one.
    async fn classify(
        &self,
        claim: &PersistentVolumeClaim,
    ) -> Result<Option<Pending>, ControllerError> {
        let classes = self.context.list::<StorageClass>(None);
        let Some(name) = storage::default_class(classes.iter().map(AsRef::as_ref)) else {
            let text = "no persistent volumes available for this claim and no storage class is set";
            return Ok(match self.free_volume(claim, None) {
                Some(volume) => {
                    self.bind(claim, &volume).await?;
                    None
                }
                None => Some(Pending::warning("FailedBinding", text)),
            });
        };
        let mut changed = claim.clone();
        changed.spec.get_or_insert_default().storage_class_name = Some(name.to_owned());
        self.context.update(&changed).await?;
        Ok(None)
    }

    async fn choose_again(
        &self,
        claim: &PersistentVolumeClaim,
        node: &str,
    ) -> Result<Option<Pending>, ControllerError> {
        let mut changed = claim.clone();
        if let Some(annotations) = &mut changed.metadata.annotations {
            annotations.remove(SELECTED_NODE);
        }
        self.context.update(&changed).await?;
        let text = format!("node \"{node}\" is gone; another is chosen with the next pod");
        Ok(Some(Pending::warning("ProvisioningFailed", text)))
    }

    /// The volume that is the claim's already, or the smallest one that is free for it.
    fn free_volume(
        &self,
        claim: &PersistentVolumeClaim,
        node: Option<&Node>,
    ) -> Option<Arc<PersistentVolume>> {
        let all = self.context.list::<PersistentVolume>(None);
        let reaches = |volume: &PersistentVolume| {
            node.is_none_or(|node| {
                let labels = node.metadata.labels.clone().unwrap_or_default();
                storage::reaches(volume, node.metadata.name.as_deref().unwrap_or_default(), &labels)
            })
        };
        let usable = |volume: &&Arc<PersistentVolume>| {
            volume.metadata.deletion_timestamp.is_none()
                && storage::is_free_for(volume, claim)
                && (storage::is_bound_to(volume, claim) || storage::suits(volume, claim))
                && reaches(volume)
        };
        let best = all.iter().filter(usable).min_by_key(|volume| {
            let meant = storage::claim_ref(volume).is_some();
            (!meant, storage::capacity(volume), volume.metadata.name.clone())
        });
        best.cloned()
    }

    /// Makes a volume, if it is ours to make. `node`: where the claim's first pod will be.
    async fn provision(
        &self,
        claim: &PersistentVolumeClaim,
        class: &StorageClass,
        node: Option<Arc<Node>>,
    ) -> Result<Option<Pending>, ControllerError> {
        if class.provisioner == storage::NO_PROVISIONER {
            let text = "no persistent volumes available for this claim; make one, its class has no \
                        provisioner";
            return Ok(Some(Pending::warning("FailedBinding", text)));
        }
        if class.provisioner != storage::PROVISIONER {
            let text = format!(
                "Waiting for a volume to be created either by the external provisioner '{}' or \
                 manually by the system administrator.",
                class.provisioner
            );
            return Ok(Some(Pending::normal("ExternalProvisioning", text)));
        }
        if let Some(why) = storage::impossible(claim, class) {
            return Ok(Some(Pending::warning("ProvisioningFailed", why)));
        }
        let Some(node) = node.or_else(|| self.emptiest_node()) else {
            let text = "no node is ready, schedulable and without taints that a volume could be on";
            return Ok(Some(Pending::warning("ProvisioningFailed", text)));
        };
        let node = node.metadata.name.as_deref().unwrap_or_default();
        let volume = storage::provision(claim, class, node);
        let name = volume.metadata.name.clone().unwrap_or_default();
        let made = match self.context.create(&volume).await {
            Ok(made) => made.typed::<PersistentVolume>()?,
            // Of a leader before.
            Err(ControllerError::AlreadyExists(_)) => {
                let known = self.context.get::<PersistentVolume>("", &name);
                let known = known.filter(|volume| volume.metadata.deletion_timestamp.is_none());
                known.ok_or_else(|| ControllerError::Conflict(format!("volume {name} is busy")))?
            }
            Err(error) => return Err(error),
        };
        let text = format!("Successfully provisioned volume {name}");
        self.context.event(claim, EventType::Normal, "ProvisioningSucceeded", &text);
        self.bind(claim, &made).await?;
        Ok(None)
    }

    /// For volumes that do not wait for a pod: a node with few of them.
    fn emptiest_node(&self) -> Option<Arc<Node>> {
        let volumes = self.context.list::<PersistentVolume>(None);
        let count = |node: &Node| {
            let name = node.metadata.name.as_deref().unwrap_or_default();
            let here = |volume: &&Arc<PersistentVolume>| {
                storage::docker_volume(volume).is_some_and(|volume| volume.node == name)
            };
            volumes.iter().filter(here).count()
        };
        let open = |node: &Arc<Node>| {
            let spec = node.spec.clone().unwrap_or_default();
            let ready = node::is_ready(node);
            let tainted = |effect: &str| effect == "NoSchedule" || effect == "NoExecute";
            let tainted = spec.taints.iter().flatten().any(|taint| tainted(&taint.effect));
            let hollow = node.metadata.labels.iter().flatten().any(|(key, _)| key == HOLLOW);
            ready && spec.unschedulable != Some(true) && !tainted && !hollow
        };
        let nodes = self.context.list::<Node>(None);
        let open = nodes.into_iter().filter(open);
        open.min_by_key(|node| (count(node), node.metadata.name.clone()))
    }

    /// First the volume says whose it is, then the claim which it has.
    async fn bind(
        &self,
        claim: &PersistentVolumeClaim,
        volume: &PersistentVolume,
    ) -> Result<(), ControllerError> {
        let volume = if storage::is_bound_to(volume, claim) {
            volume.clone()
        } else {
            let mut bound = volume.clone();
            bound.spec.get_or_insert_default().claim_ref = Some(storage::reference_to(claim));
            let written = self.context.update(&bound).await?;
            PersistentVolume::clone(&*written.typed::<PersistentVolume>()?)
        };
        let name = volume.metadata.name.clone().unwrap_or_default();
        let annotations = claim.metadata.annotations.as_ref();
        let completed = annotations.is_some_and(|all| all.contains_key(BIND_COMPLETED));
        let mut bound = claim.clone();
        if storage::volume_of(claim) != Some(&name) || !completed {
            bound.spec.get_or_insert_default().volume_name = Some(name);
            let annotations = bound.metadata.annotations.get_or_insert_default();
            annotations.insert(BIND_COMPLETED.to_owned(), "yes".to_owned());
            let written = self.context.update(&bound).await?;
            bound = PersistentVolumeClaim::clone(&*written.typed::<PersistentVolumeClaim>()?);
        }
        self.set_phase(&bound, "Bound", Some(&volume)).await
    }

    async fn set_phase(
        &self,
        claim: &PersistentVolumeClaim,
        phase: &str,
        volume: Option<&PersistentVolume>,
    ) -> Result<(), ControllerError> {
        let mut updated = claim.clone();
        let status = updated.status.get_or_insert_default();
        status.phase = Some(phase.to_owned());
        if let Some(spec) = volume.and_then(|volume| volume.spec.as_ref()) {
            status.access_modes.clone_from(&spec.access_modes);
            status.capacity.clone_from(&spec.capacity);
        }
        if updated.status != claim.status {
            self.context.update_status(&updated).await?;
        }
        Ok(())
    }
}

#[async_trait]
impl Controller for Claims {
    fn name(&self) -> &'static str {
        "persistentvolumeclaim"
    }

    fn wants(&self, event: &ObjectEvent) -> Vec<Key> {
        let Some(object) = &event.object else { return Vec::new() };
        if *object.kind == kinds::PERSISTENT_VOLUME_CLAIM {
            return vec![key_of(object)];
        }
        if *object.kind == kinds::PERSISTENT_VOLUME {
            let volume = object.typed::<PersistentVolume>().ok();
            let reference = volume.as_ref().and_then(|volume| storage::claim_ref(volume));
            if let Some(reference) = reference {
                let text = |text: &Option<String>| text.clone().unwrap_or_default();
                return vec![self.key(&text(&reference.namespace), &text(&reference.name))];
            }
            // A free one may be what any of them waits for.
            return self.pending();
        }
        if *object.kind == kinds::STORAGE_CLASS {
            return self.pending();
        }
        if *object.kind == kinds::POD {
            let gone = event.kind == quorate_registry::EventKind::Deleted;
            let over = gone || matches!(object.field("status.phase"), Some("Succeeded" | "Failed"));
            // Most pods have none, and are not decoded for it.
            let claims = over && (object.mentions("claimName") || object.mentions("ephemeral"));
            let pod = claims.then(|| object.typed::<Pod>().ok()).flatten();
            return pod.map_or_else(Vec::new, |pod| {
                let claims = storage::claims_of(&pod);
                claims.map(|(_, claim)| self.key(object.namespace(), &claim)).collect()
            });
        }
        Vec::new()
    }

    fn all(&self) -> Vec<Key> {
        self.context.keys(&kinds::PERSISTENT_VOLUME_CLAIM)
    }

    async fn reconcile(&self, key: &Key) -> Result<Requeue, ControllerError> {
        let claim = self.context.get::<PersistentVolumeClaim>(&key.namespace, &key.name);
        let Some(claim) = claim else { return Ok(Requeue::Done) };
        if claim.metadata.deletion_timestamp.is_some() {
            self.let_go(&claim).await?;
            return Ok(Requeue::Done);
        }
        let pending = match storage::volume_of(&claim) {
            Some(name) => self.bind_to(&claim, name).await?,
            None => self.find_or_make(&claim).await?,
        };
        if let Some(Pending { event_type, reason, message }) = pending {
            self.context.event(&*claim, event_type, reason, &message);
        }
        Ok(Requeue::Done)
    }
}

impl Claims {
    /// Claims that are not bound.
    fn pending(&self) -> Vec<Key> {
        let claims = self.context.list::<PersistentVolumeClaim>(None);
        let open = claims.iter().filter(|claim| {
            let phase = claim.status.as_ref().and_then(|status| status.phase.as_deref());
            phase != Some("Bound")
        });
        let text = |text: &Option<String>| text.clone().unwrap_or_default();
        let keys = open
            .map(|claim| self.key(&text(&claim.metadata.namespace), &text(&claim.metadata.name)));
        keys.collect()
    }
}
