#![allow(clippy::unwrap_used, clippy::expect_used)]

use super::*;

fn open(dir: &Path) -> RocksBackend {
    RocksBackend::open(dir, &Cache::new_lru_cache(1 << 20)).unwrap()
}

fn put(backend: &RocksBackend, space: Space, key: &'static str, value: &'static str) {
    let op =
        (space, Bytes::from_static(key.as_bytes()), Some(Bytes::from_static(value.as_bytes())));
    backend.commit(Batch { ops: vec![op] }).unwrap();
}

fn get(backend: &RocksBackend, key: &str) -> Option<Bytes> {
    backend.view().get(Space::Latest, key.as_bytes()).unwrap()
}

fn keys(view: &RocksView<'_>, start: &str, end: Option<&str>, direction: Direction) -> String {
    let mut keys = Vec::new();
    let end = end.map(str::as_bytes);
    view.scan(Space::Latest, start.as_bytes(), end, direction, &mut |key, _| {
        keys.push(String::from_utf8(key.to_vec()).unwrap());
        ControlFlow::Continue(())
    })
    .unwrap();
    keys.join("")
}

/// A small new content.
fn records(sink: Sink<'_>) -> io::Result<()> {
    sink(Space::Latest, b"n", b"new")?;
    sink(Space::Meta, b"m", b"new")
}

#[test]
fn scans_keep_bounds_and_direction() {
    let dir = tempfile::tempdir().unwrap();
    let backend = open(dir.path());
    for key in ["a", "b", "c", "d"] {
        put(&backend, Space::Latest, key, "v");
    }
    put(&backend, Space::History, "x", "v");
    let view = backend.view();
    assert_eq!(keys(&view, "", None, Direction::Forward), "abcd");
    assert_eq!(keys(&view, "b", Some("d"), Direction::Forward), "bc");
    assert_eq!(keys(&view, "b", Some("d"), Direction::Backward), "cb");
    assert_eq!(keys(&view, "d", Some("b"), Direction::Forward), "");
}

#[test]
fn a_view_stays_what_it_was_even_over_an_installation() {
    let dir = tempfile::tempdir().unwrap();
    let backend = open(dir.path());
    put(&backend, Space::Latest, "a", "1");
    let view = backend.view();
    put(&backend, Space::Latest, "a", "2");
    backend.install(records, |_| Ok(())).unwrap();
    assert_eq!(view.get(Space::Latest, b"a").unwrap().unwrap(), "1");
    assert_eq!(get(&backend, "a"), None);
    assert_eq!(get(&backend, "n").unwrap(), "new");
    drop(view);
    drop(backend);
    assert_eq!(get(&open(dir.path()), "n").unwrap(), "new");
}

#[test]
fn a_crash_during_installation_leaves_the_old_or_the_new_content() {
    for (failpoint, expected) in
        [("state-install-before-flip", "old"), ("state-install-after-flip", "new")]
    {
        let dir = tempfile::tempdir().unwrap();
        let backend = open(dir.path());
        put(&backend, Space::Latest, "n", "old");
        crate::failpoint::arm(Some(failpoint));
        let result = backend.install(records, |_| Ok(()));
        crate::failpoint::arm(None);
        assert!(result.is_err(), "{failpoint}");
        drop(backend);
        let backend = open(dir.path());
        assert_eq!(get(&backend, "n").unwrap(), expected, "{failpoint}");
        // And the leftovers are in nobody's way.
        backend.install(records, |_| Ok(())).unwrap();
        assert_eq!(get(&backend, "n").unwrap(), "new", "{failpoint}");
    }
}

#[test]
fn a_cut_or_refused_snapshot_changes_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let backend = open(dir.path());
    put(&backend, Space::Latest, "n", "old");
    let cut = |sink: Sink<'_>| {
        records(sink)?;
        Err(io::ErrorKind::UnexpectedEof.into())
    };
    assert!(backend.install(cut, |_| Ok(())).is_err());
    assert_eq!(get(&backend, "n").unwrap(), "old");
    let refused = backend.install(records, |_| Err(BackendError::new("no")));
    assert!(refused.is_err());
    assert_eq!(get(&backend, "n").unwrap(), "old");
}

#[test]
fn a_checkpoint_is_the_content_of_one_moment() {
    let dir = tempfile::tempdir().unwrap();
    let backend = open(&dir.path().join("db"));
    put(&backend, Space::Latest, "a", "1");
    backend.checkpoint(&dir.path().join("checkpoint")).unwrap();
    put(&backend, Space::Latest, "b", "2");
    let checkpoint = Checkpoint::open(&dir.path().join("checkpoint")).unwrap();
    assert_eq!(keys(&checkpoint.view().unwrap(), "", None, Direction::Forward), "a");
}
