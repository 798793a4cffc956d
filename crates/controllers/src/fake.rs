//! A cluster in memory for tests: a store, a registry, and nodes that run what is bound to them.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use k8s_openapi::api::core::v1::{PersistentVolume, Pod};
use parking_lot::Mutex;
use quorate_objects::{Kind, kinds, pod, storage};
use quorate_registry::{
    Consistency, DeleteOptions, ListOptions, Object, Registry, RegistryOptions, Write, WriteOptions,
};
use quorate_store::{MemoryStore, Store as _};
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use crate::LeaderOptions;

/// How long a test waits for something that has to come.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// A cluster in memory.
pub struct Cluster {
    pub store: Arc<MemoryStore>,
    pub registry: Registry,
    pub cancel: CancellationToken,
    /// Nodes whose agents are silent.
    pub dead: Arc<Mutex<HashSet<String>>>,
    /// Pods of these images never become ready.
    pub broken: Arc<Mutex<HashSet<String>>>,
    /// Docker volumes that agents have removed.
    pub removed_data: Arc<Mutex<HashSet<String>>>,
}

impl Drop for Cluster {
    fn drop(&mut self) {
        self.cancel.cancel();
    }
}

/// Options with short times.
pub fn options() -> LeaderOptions {
    LeaderOptions {
        full_pass: Duration::from_secs(2),
        job_back_off: Duration::from_millis(50),
        ..LeaderOptions::default()
    }
}

impl Cluster {
    /// With nodes `n1`, `n2`, … that run pods.
    pub async fn new(nodes: usize) -> Self {
        Self::with_options(nodes, RegistryOptions::default()).await
    }

    pub async fn with_options(nodes: usize, options: RegistryOptions) -> Self {
        let store = MemoryStore::new();
        let cancel = CancellationToken::new();
        let shared: quorate_store::SharedStore = Arc::clone(&store) as _;
        let registry = Registry::start(shared, options, cancel.clone());
        registry.wait_synced(PATIENCE).await.unwrap();
        registry.ensure_system_objects(None).await.unwrap();
        let (dead, broken, removed_data) = (Arc::default(), Arc::default(), Arc::default());
        let cluster = Self { store, registry, cancel, dead, broken, removed_data };
        for n in 1..=nodes {
            cluster.add_node(&format!("n{n}")).await;
        }
        cluster
    }

    /// A node that runs pods.
    pub async fn add_node(&self, name: &str) {
        self.create(node(name)).await;
        self.spawn_agent(name.to_owned());
    }

    pub fn term(&self) -> u64 {
        self.store.leadership().borrow().term
    }

    /// Task "fake agent": ends with the cluster.
    fn spawn_agent(&self, name: String) {
        let (registry, cancel) = (self.registry.clone(), self.cancel.clone());
        let (dead, broken) = (Arc::clone(&self.dead), Arc::clone(&self.broken));
        let removed = Arc::clone(&self.removed_data);
        tokio::spawn(async move {
            let mut ticks = tokio::time::interval(Duration::from_millis(20));
            loop {
                tokio::select! {
                    () = cancel.cancelled() => return,
                    _ = ticks.tick() => {}
                }
                if heartbeat(&registry, &name, &dead) {
                    let broken = broken.lock().clone();
                    agent_step(&registry, &name, &broken).await;
                    remove_data(&registry, &name, &removed).await;
                }
            }
        });
    }

    /// These agents fall silent, or speak again, all at one moment.
    pub fn silence(&self, nodes: &[&str], silent: bool) {
        let mut dead = self.dead.lock();
        for node in nodes {
            if silent {
                dead.insert((*node).to_owned());
            } else {
                dead.remove(*node);
            }
        }
        self.registry.heartbeats().record_all(nodes.iter().copied(), Instant::now());
    }

    pub async fn create(&self, value: Value) -> Arc<Object> {
        self.registry.create(value, &WriteOptions::default()).await.unwrap()
    }

    pub async fn delete(&self, kind: &'static Kind, name: &str, options: DeleteOptions) {
        self.registry.delete(kind, "default", name, &options).await.unwrap();
    }

    /// All objects of a kind in the namespace `default`.
    pub fn list(&self, kind: &'static Kind) -> Vec<Value> {
        let all = self.registry.cache().list(kind, Some("default"));
        all.iter().map(|object| object.value()).collect()
    }

    pub fn get(&self, kind: &'static Kind, name: &str) -> Option<Value> {
        self.registry.cache().get(kind, "default", name).map(|object| object.value())
    }

    /// Changes an object of the namespace `default`.
    pub async fn change(&self, kind: &'static Kind, name: &str, change: impl Fn(&mut Value)) {
        loop {
            let consistency = Consistency::Linearizable;
            let object = self.registry.get(kind, "default", name, consistency).await.unwrap();
            let mut value = object.value();
            change(&mut value);
            match self.registry.update(value, &WriteOptions::default()).await {
                Ok(_) => return,
                Err(error) if error.is_conflict() => {}
                Err(error) => panic!("{error}"),
            }
        }
    }

    pub async fn scale(&self, deployment: &str, replicas: i64) {
        self.change(&kinds::DEPLOYMENT, deployment, |value| {
            value["spec"]["replicas"] = json!(replicas);
        })
        .await;
    }

    /// Ends a pod well.
    pub async fn succeed(&self, name: &str) {
        let object = self.registry.cache().get(&kinds::POD, "default", name).unwrap();
        let mut status = object.value()["status"].clone();
        status["phase"] = json!("Succeeded");
        let write = pod_status(&object, &status);
        assert!(self.registry.write_batch(vec![write], None).await.iter().all(Result::is_ok));
    }

    /// Pods that neither ended nor are being deleted.
    pub fn active(&self) -> Vec<Arc<Pod>> {
        let pods = self.registry.cache().list(&kinds::POD, None);
        let pods = pods.iter().map(|object| object.typed::<Pod>().unwrap());
        pods.filter(|pod| pod::is_active(pod)).collect()
    }

    /// Active pods that are ready.
    pub fn ready(&self) -> usize {
        self.active().iter().filter(|pod| pod::is_ready(pod)).count()
    }

    /// Waits for a condition that the cache has to show.
    pub async fn until(&self, what: &str, condition: impl Fn(&Self) -> bool) {
        let mut revision = self.registry.cache().subscribe();
        let wait = async {
            while !condition(self) {
                // Time alone changes some conditions.
                let _ = tokio::time::timeout(Duration::from_millis(50), revision.changed()).await;
            }
        };
        if tokio::time::timeout(PATIENCE, wait).await.is_err() {
            panic!("not reached: {what}; pods:\n{}", self.dump());
        }
    }

    pub fn dump(&self) -> String {
        let pods = self.registry.cache().list(&kinds::POD, None);
        let lines = pods.iter().map(|object| {
            let pod = object.typed::<Pod>().unwrap();
            let (node, phase) = (pod::node_name(&pod), pod::phase(&pod));
            let (ready, gone) = (pod::is_ready(&pod), pod::is_deleting(&pod));
            let why = pod::condition(&pod, "PodScheduled").and_then(|c| c.message.clone());
            let name = object.name();
            format!("{name} node {node:?} {phase} ready {ready} deleting {gone} {why:?}\n")
        });
        lines.collect()
    }

    /// Reads the newest state into the cache.
    pub async fn settle(&self) {
        let all = ListOptions::default();
        let consistency = Consistency::Linearizable;
        self.registry.list(&kinds::POD, None, &all, consistency).await.unwrap();
    }
}

/// Records that the node is heard, unless it is to be silent; which of the two.
fn heartbeat(registry: &Registry, node: &str, dead: &Mutex<HashSet<String>>) -> bool {
    let dead = dead.lock();
    let heard = !dead.contains(node);
    if heard {
        registry.heartbeats().record(node);
    }
    heard
}

/// Removes the data of volumes on the node that are to go, and says so.
async fn remove_data(registry: &Registry, node: &str, removed: &Mutex<HashSet<String>>) {
    for object in registry.cache().list(&kinds::PERSISTENT_VOLUME, None) {
        let volume = object.typed::<PersistentVolume>().unwrap();
        let Some(data) = storage::data_to_remove(&volume).filter(|data| data.node == node) else {
            continue;
        };
        let change = |volume: &mut PersistentVolume| {
            let list = volume.metadata.finalizers.get_or_insert_default();
            list.retain(|one| one != storage::DATA_FINALIZER);
            true
        };
        // As an agent does it: first the data, then the word; a second time does no harm.
        removed.lock().insert(data.name.to_owned());
        let (kind, options) = (&kinds::PERSISTENT_VOLUME, WriteOptions::default());
        let _ = registry.modify(kind, "", object.name(), &options, change).await;
    }
}

/// Marks what is bound to the node Running and Ready, and ends what is being deleted.
pub async fn agent_step(registry: &Registry, node: &str, broken: &HashSet<String>) {
    let mut writes = Vec::new();
    for object in registry.cache().pods_on(node) {
        let pod = object.typed::<Pod>().unwrap();
        let image = pod.spec.as_ref().and_then(|s| s.containers[0].image.clone());
        if pod::is_deleting(&pod) {
            let uid = Some(object.uid().to_owned());
            let options = DeleteOptions { uid, grace_seconds: Some(0), ..Default::default() };
            let (namespace, name) = (object.namespace().to_owned(), object.name().to_owned());
            writes.push(Write::Delete { kind: &kinds::POD, namespace, name, options });
        } else if pod::phase(&pod) == "Running" && ends(&pod).is_some() {
            let mut status = serde_json::to_value(&pod.status).unwrap();
            status["phase"] = json!(if ends(&pod) == Some(0) { "Succeeded" } else { "Failed" });
            let now = quorate_objects::time::now();
            let state = json!({"terminated": {"exitCode": ends(&pod), "finishedAt": now}});
            status["containerStatuses"] = json!([{"name": "c", "image": "", "imageID": "",
                "ready": false, "restartCount": 0, "state": state}]);
            writes.push(pod_status(&object, &status));
        } else if pod::phase(&pod) == "Pending" {
            let ready = !broken.contains(&image.unwrap_or_default());
            let mut pod = Pod::clone(&pod);
            pod::set_condition(&mut pod, "Ready", if ready { "True" } else { "False" }, None, None);
            let mut status = serde_json::to_value(pod.status).unwrap();
            status["phase"] = json!("Running");
            status["podIP"] = json!(format!("10.144.0.{}", 1 + object.revision % 250));
            writes.push(pod_status(&object, &status));
        }
    }
    if !writes.is_empty() {
        // What fails is tried again in the next step.
        registry.write_batch(writes, None).await;
    }
}

fn pod_status(pod: &Object, status: &Value) -> Write {
    Write::PodStatus {
        namespace: pod.namespace().to_owned(),
        name: pod.name().to_owned(),
        uid: pod.uid().to_owned(),
        status: status.to_string().into(),
    }
}

/// The exit code of a pod of an image such as `exits:3`; other pods run for ever.
fn ends(pod: &Pod) -> Option<i32> {
    let image = pod.spec.as_ref()?.containers.first()?.image.as_deref()?;
    image.strip_prefix("exits:")?.parse().ok()
}

/// A node with room for many pods.
pub fn node(name: &str) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Node",
        "metadata": {"name": name, "labels": {"kubernetes.io/hostname": name}},
        "status": {},
    })
}

/// A Deployment of pods that are labelled `app=NAME`.
pub fn deployment(name: &str, replicas: i64, image: &str) -> Value {
    json!({
        "apiVersion": "apps/v1", "kind": "Deployment",
        "metadata": {"name": name, "namespace": "default"},
        "spec": {"replicas": replicas, "selector": {"matchLabels": {"app": name}},
            "template": template(name, image)},
    })
}

/// A template of pods that are labelled `app=NAME`.
pub fn template(name: &str, image: &str) -> Value {
    json!({
        "metadata": {"labels": {"app": name}},
        "spec": {"containers": [{"name": "c", "image": image}]},
    })
}

/// A StatefulSet with one claim per pod.
pub fn stateful_set(name: &str, replicas: i64, image: &str) -> Value {
    let claim = json!({"metadata": {"name": "data"}, "spec": {"accessModes": ["ReadWriteOnce"],
        "resources": {"requests": {"storage": "1Gi"}}}});
    json!({
        "apiVersion": "apps/v1", "kind": "StatefulSet",
        "metadata": {"name": name, "namespace": "default"},
        "spec": {"replicas": replicas, "serviceName": name,
            "selector": {"matchLabels": {"app": name}},
            "template": template(name, image), "volumeClaimTemplates": [claim]},
    })
}

/// A DaemonSet.
pub fn daemon_set(name: &str, image: &str) -> Value {
    json!({
        "apiVersion": "apps/v1", "kind": "DaemonSet",
        "metadata": {"name": name, "namespace": "default"},
        "spec": {"selector": {"matchLabels": {"app": name}}, "template": template(name, image)},
    })
}

/// A Job; `spec` is merged into its spec.
pub fn job(name: &str, image: &str, spec: &Value) -> Value {
    let mut template = template(name, image);
    template["spec"]["restartPolicy"] = json!("Never");
    let mut value = json!({
        "apiVersion": "batch/v1", "kind": "Job",
        "metadata": {"name": name, "namespace": "default"},
        "spec": {"template": template},
    });
    for (field, content) in spec.as_object().unwrap() {
        value["spec"][field] = content.clone();
    }
    value
}
