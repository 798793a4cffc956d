#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::time::Duration;

use parking_lot::RwLock;
use tokio::time::Instant;

use super::*;
use crate::assignments::Assignments;
use crate::pods::access::Tokens;
use crate::pods::fake::{Fake, pod, record};
use crate::pods::outbox::Outbox;
use crate::pods::worker::Network;
use crate::runtime::{Role, RunState};

struct Bench {
    fake: Arc<Fake>,
    outbox: Arc<Outbox>,
    manager: Manager,
    _network: watch::Sender<Network>,
    _folder: tempfile::TempDir,
}

fn bench(fake: Arc<Fake>) -> Bench {
    let folder = tempfile::tempdir().unwrap();
    let (sender, network) = watch::channel(Network::Ready);
    let outbox = Arc::new(Outbox::default());
    let context = Context {
        runtime: fake.clone(),
        objects: Arc::new(RwLock::new(Assignments::default())),
        outbox: outbox.clone(),
        node_name: "n".into(),
        node_address: "127.0.1.1".parse().unwrap(),
        tokens: Tokens::new(watch::channel(None).1),
        data_dir: Some(folder.path().to_owned()),
        network,
    };
    let manager = Manager::new(Arc::new(context));
    Bench { fake, outbox, manager, _network: sender, _folder: folder }
}

impl Bench {
    async fn until(&mut self, what: &str, mut done: impl FnMut(&Fake, &Outbox) -> bool) {
        let deadline = Instant::now() + Duration::from_secs(20);
        while !done(&self.fake, &self.outbox) {
            assert!(Instant::now() < deadline, "never {what}: {:#?}", self.fake.records());
            self.manager.wake_all();
            tokio::select! {
                () = self.manager.finished() => {}
                () = tokio::time::sleep(Duration::from_millis(5)) => {}
            }
        }
    }
}

/// The newest status of the only pod, and whether it is terminated.
fn told(outbox: &Outbox) -> Option<(serde_json::Value, bool)> {
    let batch = outbox.batch()?;
    let pod = batch.pods.first()?;
    Some((serde_json::from_slice(&pod.status_json).unwrap(), pod.terminated))
}

/// Waits until the worker has looked and done what follows from that: it looks a second time.
async fn turn(bench: &mut Bench, down: bool) {
    {
        let mut state = bench.fake.state.lock();
        (state.down, state.looks) = (down, 0);
    }
    bench.until("a whole turn", |fake, _| fake.state.lock().looks > 1).await;
}

fn running(fake: &Fake, container: &str) -> bool {
    fake.records().iter().any(|r| r.container == container && r.state == RunState::Running)
}

#[tokio::test]
async fn a_pod_comes_up_is_ready_and_goes_with_its_status() {
    let mut bench = bench(Arc::default());
    let mut object = pod("p", "Always", &["a", "b"]);
    bench.manager.assign(&[Arc::new(object.clone())]);
    bench
        .until("ready", |_, outbox| {
            told(outbox).is_some_and(|(status, _)| {
                status["phase"] == "Running"
                    && status["podIP"] == "10.1.0.2"
                    && status["conditions"]
                        .as_array()
                        .unwrap()
                        .iter()
                        .all(|c| c["status"] == "True")
            })
        })
        .await;
    let batch = bench.outbox.batch().unwrap();
    let about_a: Vec<&str> = (batch.events.iter())
        .filter(|event| event.field_path == "spec.containers{a}")
        .map(|event| event.reason.as_str())
        .collect();
    assert_eq!(about_a, ["Pulled", "Created", "Started"]);
    object.metadata.deletion_timestamp = serde_json::from_str("\"2026-01-01T00:00:00Z\"").unwrap();
    bench.manager.assign(&[Arc::new(object)]);
    bench
        .until("terminated", |fake, outbox| {
            fake.records().is_empty() && told(outbox).is_some_and(|(_, terminated)| terminated)
        })
        .await;
    bench.manager.assign(&[]);
    let deadline = Instant::now() + Duration::from_secs(20);
    while !bench.manager.is_empty() {
        assert!(Instant::now() < deadline);
        bench.manager.finished().await;
    }
    assert!(told(&bench.outbox).is_none(), "a pod that is gone is not told of");
}

/// A pod with a preStop hook and a sidecar, which is to end within ten seconds.
fn ending() -> (Pod, Pod) {
    let mut object = pod("p", "Always", &["a"]);
    let spec = object.spec.as_mut().unwrap();
    let hook = serde_json::json!({"preStop": {"exec": {"command": ["x"]}}});
    spec.containers[0].lifecycle = serde_json::from_value(hook).unwrap();
    let sidecar = serde_json::json!([{"name": "s", "image": "img:1", "restartPolicy": "Always"}]);
    spec.init_containers = serde_json::from_value(sidecar).unwrap();
    let mut ending = object.clone();
    ending.metadata.deletion_timestamp = serde_json::from_str("\"2026-01-01T00:00:00Z\"").unwrap();
    ending.metadata.deletion_grace_period_seconds = Some(10);
    (object, ending)
}

/// The same pod after its status has been written.
fn echo(pod: &Pod, message: &str) -> Arc<Pod> {
    let mut pod = pod.clone();
    pod.status.get_or_insert_default().message = Some(message.into());
    Arc::new(pod)
}

#[tokio::test(start_paused = true)]
async fn a_change_of_a_pod_that_ends_disturbs_neither_its_hook_nor_its_grace() {
    let mut bench = bench(Arc::default());
    let (object, ending) = ending();
    bench.manager.assign(&[Arc::new(object)]);
    bench.until("running", |fake, _| running(fake, "a") && running(fake, "s")).await;
    {
        let mut state = bench.fake.state.lock();
        state.exec_takes = Duration::from_secs(2);
        state.stop_takes = Duration::from_secs(5);
    }
    let begun = Instant::now();
    bench.manager.assign(&[Arc::new(ending.clone())]);
    bench.until("in its hook", |fake, _| fake.state.lock().execs == 1).await;
    bench.manager.assign(&[echo(&ending, "in its hook")]);
    bench.until("stopping", |fake, _| fake.state.lock().stopped.len() == 1).await;
    bench.manager.assign(&[echo(&ending, "stopping")]);
    bench
        .until("terminated", |fake, outbox| {
            fake.records().is_empty() && told(outbox).is_some_and(|(_, terminated)| terminated)
        })
        .await;
    let state = bench.fake.state.lock();
    assert_eq!((state.execs, state.stopped.len()), (1, 2), "{:?}", state.stopped);
    // Two seconds of the hook and five of the first stop: three are left for the sidecar.
    let graces: Vec<u128> = state.graces.iter().map(Duration::as_millis).collect();
    assert!((7_000..=8_000).contains(&graces[0]), "{graces:?}");
    assert!((2_000..=3_000).contains(&graces[1]), "{graces:?}");
    assert!(begun.elapsed() < Duration::from_secs(11), "{:?}", begun.elapsed());
}

#[tokio::test(start_paused = true)]
async fn a_pod_that_ends_hears_of_a_shorter_grace() {
    let mut bench = bench(Arc::default());
    let (object, mut ending) = ending();
    bench.manager.assign(&[Arc::new(object)]);
    bench.until("running", |fake, _| running(fake, "a") && running(fake, "s")).await;
    bench.fake.state.lock().stop_takes = Duration::from_secs(1000);
    ending.metadata.deletion_grace_period_seconds = Some(1000);
    bench.manager.assign(&[Arc::new(ending.clone())]);
    bench.until("stopping", |fake, _| fake.state.lock().stopped.len() == 1).await;
    ending.metadata.deletion_grace_period_seconds = Some(3);
    bench.manager.assign(&[Arc::new(ending)]);
    bench.until("gone", |fake, _| fake.records().is_empty()).await;
}

#[tokio::test]
async fn a_restarted_agent_adopts_what_runs() {
    let fake: Arc<Fake> = Arc::default();
    fake.state.lock().records =
        vec![record("p", Role::Sandbox, "", 0), record("p", Role::App, "a", 4)];
    let before = fake.records();
    let mut bench = bench(fake);
    bench.manager.assign(&[Arc::new(pod("p", "Always", &["a"]))]);
    bench
        .until("told", |_, outbox| {
            told(outbox).is_some_and(|(s, _)| {
                s["containerStatuses"][0]["restartCount"] == 4 && s["phase"] == "Running"
            })
        })
        .await;
    assert_eq!(bench.fake.records(), before);
    assert!(bench.fake.state.lock().stopped.is_empty());
}

#[tokio::test]
async fn a_crash_is_restarted_and_counted() {
    let mut bench = bench(Arc::default());
    bench.manager.assign(&[Arc::new(pod("p", "Always", &["a"]))]);
    bench.until("running", |fake, _| running(fake, "a")).await;
    bench.fake.exit("a", 3);
    bench
        .until("backing off", |_, outbox| {
            told(outbox).is_some_and(|(s, _)| {
                let status = &s["containerStatuses"][0];
                status["state"]["waiting"]["reason"] == "CrashLoopBackOff"
                    && status["lastState"]["terminated"]["exitCode"] == 3
            })
        })
        .await;
    bench.until("running again", |fake, _| running(fake, "a")).await;
    let newest = bench.fake.records().into_iter().map(|r| (r.attempt, r.failures)).max().unwrap();
    assert_eq!(newest, (1, 1));
}

#[tokio::test]
async fn orphans_go_only_when_asked_and_others_stay() {
    let fake: Arc<Fake> = Arc::default();
    fake.state.lock().records = vec![
        record("mine", Role::Sandbox, "", 0),
        record("mine", Role::App, "a", 0),
        record("orphan", Role::Sandbox, "", 0),
        record("orphan", Role::App, "b", 0),
    ];
    let mut bench = bench(fake);
    bench.manager.assign(&[Arc::new(pod("mine", "Always", &["a"]))]);
    bench.until("adopted", |_, outbox| told(outbox).is_some()).await;
    assert_eq!(bench.fake.records().len(), 4, "nobody said that the orphan may go");
    let records = bench.fake.records();
    bench.manager.remove_orphans(&records);
    bench.until("removed", |fake, _| fake.records().len() == 2).await;
    assert!(bench.fake.records().iter().all(|r| r.pod.uid == "mine"));
}

#[tokio::test]
async fn a_runtime_that_was_away_costs_no_container() {
    let mut bench = bench(Arc::default());
    bench.manager.assign(&[Arc::new(pod("p", "Always", &["a"]))]);
    bench.until("running", |fake, _| running(fake, "a")).await;
    let before = bench.fake.records();
    turn(&mut bench, true).await;
    turn(&mut bench, false).await;
    bench.manager.assign(&[Arc::new(pod("p", "Always", &["a"]))]);
    turn(&mut bench, false).await;
    assert_eq!(bench.fake.records(), before);
}

#[tokio::test]
async fn a_missing_image_is_named_and_tried_again() {
    let fake: Arc<Fake> = Arc::default();
    fake.state.lock().missing_images.insert("img:1".into());
    let mut bench = bench(fake);
    bench.manager.assign(&[Arc::new(pod("p", "Always", &["a"]))]);
    let mut seen = Vec::new();
    bench
        .until("backing off", |_, outbox| {
            let Some((status, _)) = told(outbox) else { return false };
            let waiting = status["containerStatuses"][0]["state"]["waiting"].clone();
            let reason = waiting["reason"].as_str().unwrap_or_default().to_owned();
            if seen.last() != Some(&reason) {
                seen.push(reason.clone());
            }
            reason == "ImagePullBackOff"
                && waiting["message"].as_str().unwrap_or_default().contains("img:1")
        })
        .await;
    assert!(seen.contains(&"ErrImagePull".to_owned()), "{seen:?}");
    bench.fake.state.lock().missing_images.clear();
    bench.until("running", |fake, _| running(fake, "a")).await;
}
