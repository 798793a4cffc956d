//! A process that dies by SIGKILL at a named place loses nothing that it has acknowledged.
//!
//! The test starts itself again as a child, which writes until it dies; then it opens what the
//! child has left.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::collections::HashSet;
use std::net::TcpListener;
use std::os::unix::process::ExitStatusExt as _;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use quorate_store::{
    Backend as _, Consistency, KeyRange, RangeRequest, Space, Store as _, TxnRequest, View as _,
};
use rocksdb::Cache;
use tokio_util::sync::CancellationToken;

use crate::failpoint::DIE_AT;
use crate::state::{RocksBackend, Sink};
use crate::{InitialMember, Options, RaftStore};

const DIRECTORY: &str = "QUORATE_TEST_DIRECTORY";
/// The child gives up after this time: then the place was never reached. Not after a number of
/// writes: a snapshot, and what follows from it, may take as long as thousands of them.
const PATIENCE: Duration = Duration::from_secs(60);

/// Places, and at which visit the child dies there.
const PLACES: &[(&str, u64)] = &[
    ("vote-before-sync", 0),
    ("vote-after-sync", 0),
    ("append-before-sync", 0),
    ("append-before-sync", 40),
    ("append-after-sync", 41),
    ("apply-before-commit", 0),
    ("apply-before-commit", 50),
    ("apply-after-commit", 51),
    ("snapshot-before-meta", 1),
    ("snapshot-before-rename", 1),
    ("snapshot-after-rename", 1),
    ("purge-before-sync", 1),
    ("purge-after-sync", 1),
];

async fn open(directory: &Path) -> Arc<RaftStore> {
    let socket = TcpListener::bind("127.0.0.1:0").unwrap();
    let member = InitialMember {
        name: "m1".into(),
        peer_url: format!("http://{}", socket.local_addr().unwrap()),
        client_url: "http://client".into(),
    };
    let options = Options {
        snapshot_every: 50,
        log_keep: 10,
        request_timeout: Duration::from_secs(60),
        ..Options::new(directory, "crash", "m1", socket, vec![member])
    };
    RaftStore::start(options, CancellationToken::new()).await.unwrap()
}

/// Runs `test` of this file in a process of its own; returns what it printed and its signal.
fn child(test: &str, directory: &Path, place: &str, visit: u64) -> (String, Option<i32>) {
    let child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", &format!("crash_test::{test}"), "--ignored", "--nocapture"])
        .env(DIRECTORY, directory)
        .env(DIE_AT, format!("{place}:{visit}"))
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let output = child.wait_with_output().unwrap();
    (String::from_utf8(output.stdout).unwrap(), output.status.signal())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_acknowledged_survives_a_death_at_any_place() {
    for (place, visit) in PLACES {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().to_owned();
        let run = tokio::task::spawn_blocking(move || child("writing_child", &path, place, *visit));
        let (printed, signal) = run.await.unwrap();
        let acknowledged: Vec<_> =
            printed.lines().filter_map(|line| line.strip_prefix("ack ")).collect();
        let rest: String = printed.lines().filter(|line| !line.starts_with("ack ")).collect();
        assert_eq!(signal, Some(9), "{place}:{visit} was not reached: {rest}");
        let store = open(dir.path()).await;
        let request = RangeRequest::new(KeyRange::prefix("k"));
        let found = store.range(request, Consistency::Linearizable).await.unwrap();
        let there: HashSet<&[u8]> = found.kvs.iter().map(|kv| &kv.key[..]).collect();
        let lost: Vec<_> = acknowledged.iter().filter(|k| !there.contains(k.as_bytes())).collect();
        assert!(lost.is_empty(), "{place}:{visit}: {lost:?} of {} are lost", acknowledged.len());
        // At most the one that was on its way.
        assert!(found.kvs.len() <= acknowledged.len() + 1, "{place}:{visit}");
        assert_eq!(found.revision, found.kvs.len() as u64 + 1, "{place}:{visit}: a write twice");
        assert!(store.scrub().await.unwrap(), "{place}:{visit}");
        store.txn(TxnRequest::put("after", "v")).await.unwrap();
        store.shutdown().await;
    }
}

/// No test: what the one above starts.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "a child process of another test"]
async fn writing_child() {
    let Ok(directory) = std::env::var(DIRECTORY) else { return };
    let store = open(Path::new(&directory)).await;
    let begin = Instant::now();
    for key in (0..).map(|n| format!("k{n:05}")).take_while(|_| begin.elapsed() < PATIENCE) {
        store.txn(TxnRequest::put(key.clone(), "v")).await.unwrap();
        println!("\nack {key}");
    }
}

/// Old and new content of a state into which a snapshot is installed.
fn content(generation: &'static [u8]) -> impl Fn(Sink<'_>) -> std::io::Result<()> {
    move |sink| {
        for n in 0..1000_u32 {
            sink(Space::Latest, &n.to_be_bytes(), generation)?;
        }
        sink(Space::Meta, b"m", generation)
    }
}

#[test]
fn an_installation_that_dies_leaves_the_old_state_or_the_new_one() {
    for (place, expected) in [
        ("install-after-fill", b"old"),
        ("state-install-before-flip", b"old"),
        ("state-install-after-flip", b"new"),
    ] {
        let dir = tempfile::tempdir().unwrap();
        // The first installation is the one of the old content.
        let (printed, signal) = child("installing_child", dir.path(), place, 1);
        assert_eq!(signal, Some(9), "{place} was not reached: {printed}");
        let backend = RocksBackend::open(dir.path(), &Cache::new_lru_cache(1 << 20)).unwrap();
        let view = backend.view();
        for n in 0..1000_u32 {
            let value = view.get(Space::Latest, &n.to_be_bytes()).unwrap().unwrap();
            assert_eq!(value, &expected[..], "{place}: {n}");
        }
        assert_eq!(view.get(Space::Meta, b"m").unwrap().unwrap(), &expected[..], "{place}");
    }
}

/// No test: what the one above starts.
#[test]
#[ignore = "a child process of another test"]
fn installing_child() {
    let Ok(directory) = std::env::var(DIRECTORY) else { return };
    let backend =
        RocksBackend::open(Path::new(&directory), &Cache::new_lru_cache(1 << 20)).unwrap();
    backend.install(content(b"old"), |_| Ok(())).unwrap();
    backend.install(content(b"new"), |_| Ok(())).unwrap();
    std::thread::sleep(Duration::from_secs(5));
}

/// etcd #18055: two snapshots in quick succession made it panic.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn snapshots_in_quick_succession_are_one() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path()).await;
    store.txn(TxnRequest::put("k", "v")).await.unwrap();
    let builds = (0..4).map(|_| {
        let state = Arc::clone(&store.state);
        tokio::task::spawn_blocking(move || state.snapshots.build(&state.backend).unwrap().0)
    });
    for built in futures::future::join_all(builds).await {
        assert!(
            built.unwrap().last_log_id <= store.state.snapshots.current().unwrap().0.last_log_id
        );
    }
    store.shutdown().await;
    let kept = std::fs::read_dir(dir.path().join("snapshots")).unwrap().count();
    drop(store);
    assert_eq!(kept, 1);
}
