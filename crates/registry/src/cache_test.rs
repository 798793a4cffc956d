//! What a cache shows of a list that has come after others.
#![allow(clippy::unwrap_used)]

use serde_json::json;

use super::*;
use crate::{EventKind, ObjectWatcher, WatchOptions};

const PATIENCE: Duration = Duration::from_secs(20);

/// Config maps by name, uid and revision.
fn list(maps: &[(&str, &str, u64)]) -> BTreeMap<ObjectKey, Arc<Object>> {
    let map = |(name, uid, revision): &(&str, &str, u64)| {
        let value = json!({"apiVersion": "v1", "kind": "ConfigMap",
            "metadata": {"name": name, "namespace": "default", "uid": uid}});
        let object = Object::from_value(&kinds::CONFIG_MAP, value, *revision).unwrap();
        (object.key(), Arc::new(object))
    };
    maps.iter().map(map).collect()
}

/// Whoever follows by names and whoever follows by uids must both know that the first one is gone.
#[tokio::test]
async fn what_was_made_anew_before_a_new_list_was_deleted_first() {
    let cache = Arc::new(Cache::new(16));
    cache.begin(3, list(&[("gone", "u1", 1), ("kept", "u2", 2), ("new", "u3", 3)]), 0, Vec::new());
    let kind = Some(&kinds::CONFIG_MAP);
    let options = WatchOptions { kind, from_revision: 3, ..WatchOptions::default() };
    let mut watcher = ObjectWatcher::start(Arc::clone(&cache), options, PATIENCE).unwrap();
    cache.reset(9, list(&[("kept", "u2", 5), ("new", "u4", 7)]));
    let mut seen = Vec::new();
    for _ in 0..4 {
        let event = tokio::time::timeout(PATIENCE, watcher.next()).await.unwrap().unwrap();
        let uid = event.object.map(|object| object.uid().to_owned());
        seen.push((event.kind, uid.unwrap_or_default()));
    }
    let wanted = [
        (EventKind::Deleted, "u1"),
        (EventKind::Modified, "u2"),
        (EventKind::Deleted, "u3"),
        (EventKind::Added, "u4"),
    ];
    assert_eq!(seen, wanted.map(|(kind, uid)| (kind, uid.to_owned())));
    let uids = |revision: Option<u64>| {
        let (objects, _) = cache.objects_at(&kinds::CONFIG_MAP, None, revision).unwrap();
        objects.iter().map(|object| object.uid().to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(uids(Some(3)), ["u1", "u2", "u3"]);
    assert_eq!(uids(None), ["u2", "u4"]);
}
