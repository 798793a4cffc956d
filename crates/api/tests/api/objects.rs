//! Objects through the client: writes, reads, watches, errors.

use quorate_client::{
    Difference, Event, ListOptions, PatchOptions, PatchType, WatchOptions, WriteOptions,
};
use quorate_objects::kinds;
use serde_json::json;

use crate::master::{Master, config_map, soon};

#[tokio::test]
async fn an_object_is_created_read_changed_listed_and_deleted() {
    let master = Master::start().await;
    let client = master.client();
    let kind = &kinds::CONFIG_MAP;
    let options = WriteOptions::default();
    let created = client.create(&config_map("a", "1"), &options).await.unwrap();
    assert!(created.revision > 0 && !created.uid.is_empty());
    client.create(&config_map("b", "1"), &options).await.unwrap();

    let error = client.create(&config_map("a", "1"), &options).await.unwrap_err();
    assert!(error.is_already_exists(), "{error:?}");

    let mut value = created.value.clone();
    value["data"]["key"] = "2".into();
    let updated = client.update(&value, &options).await.unwrap();
    assert!(updated.revision > created.revision);
    // The same precondition a second time.
    value["data"]["key"] = "3".into();
    let error = client.update(&value, &options).await.unwrap_err();
    assert!(error.is_conflict(), "{error:?}");

    let patch = json!({"data": {"key": "4"}});
    let merge = PatchType::Merge;
    let patched =
        client.patch(kind, "default", "a", merge, &patch, &PatchOptions::default()).await.unwrap();
    assert_eq!(patched.value["data"]["key"], "4");
    assert_eq!(client.get(kind, "default", "a").await.unwrap(), patched);

    let all = client.list(kind, &ListOptions::default()).await.unwrap();
    assert_eq!(all.items.len(), 2);
    assert!(all.revision >= patched.revision);
    let labels = ListOptions { labels: "app in (b)".into(), ..ListOptions::default() };
    let some = client.list(kind, &labels).await.unwrap();
    assert_eq!(some.items.iter().map(|o| o.name.as_str()).collect::<Vec<_>>(), ["b"]);

    assert!(client.delete(kind, "default", "a", &Default::default()).await.unwrap().gone);
    let error = client.get(kind, "default", "a").await.unwrap_err();
    assert!(error.is_not_found(), "{error:?}");
    assert!(error.message.contains("configmaps \"a\" not found"), "{error}");
}

#[tokio::test]
async fn pages_follow_each_other_and_stale_reads_work() {
    let master = Master::start().await;
    let client = master.client();
    for name in ["a", "b", "c"] {
        client.create(&config_map(name, "1"), &WriteOptions::default()).await.unwrap();
    }
    let mut options = ListOptions { limit: 2, ..ListOptions::default() };
    let first = client.list(&kinds::CONFIG_MAP, &options).await.unwrap();
    options.continue_token = first.continue_token.clone();
    options.stale = true;
    let second = client.list(&kinds::CONFIG_MAP, &options).await.unwrap();
    assert_eq!((first.items.len(), second.items.len()), (2, 1));
    assert!(second.continue_token.is_empty());
}

#[tokio::test]
async fn wrong_fields_are_named() {
    let master = Master::start().await;
    let client = master.client();
    let mut pod = crate::master::pod("p", None);
    pod["spec"]["containers"][0]["imagee"] = "x".into();
    let error = client.create(&pod, &WriteOptions::default()).await.unwrap_err();
    assert!(error.is_invalid(), "{error:?}");
    assert!(error.fields.iter().any(|f| f.path == "spec.containers[0].imagee"), "{error:?}");

    let unknown = json!({"apiVersion": "v2", "kind": "Pood", "metadata": {"name": "x"}});
    let error = client.create(&unknown, &WriteOptions::default()).await.unwrap_err();
    assert_eq!(error.code, quorate_client::Code::InvalidArgument, "{error:?}");
    assert!(error.message.contains("Pood"), "{error}");
}

#[tokio::test]
async fn a_watch_outlives_the_server_and_misses_and_repeats_nothing() {
    let mut master = Master::start().await;
    let client = master.client();
    let mut watch = client.watch(&kinds::CONFIG_MAP, WatchOptions::default());
    let first = soon("bookmark", watch.next()).await.unwrap();
    assert!(matches!(first, Event::Bookmark(_)), "{first:?}");
    let options = quorate_registry::WriteOptions::default();
    master.registry.create(config_map("a", "1"), &options).await.unwrap();
    assert_eq!(next_name(&mut watch).await, "a");

    master.stop_server().await;
    master.registry.create(config_map("b", "1"), &options).await.unwrap();
    master.start_server();
    assert_eq!(next_name(&mut watch).await, "b");
    master.registry.create(config_map("c", "1"), &options).await.unwrap();
    assert_eq!(next_name(&mut watch).await, "c");
    // Idle: bookmarks show that the watch is alive, and move it on.
    let idle = soon("bookmark", watch.next()).await.unwrap();
    assert!(matches!(idle, Event::Bookmark(_)), "{idle:?}");
}

async fn next_name(watch: &mut quorate_client::Watch) -> String {
    loop {
        match soon("an object", watch.next()).await.unwrap() {
            Event::Added(object) => return object.name,
            Event::Bookmark(_) => {}
            other => panic!("{other:?}"),
        }
    }
}

#[tokio::test]
async fn list_watch_yields_differences() {
    let master = Master::start().await;
    let client = master.client();
    let options = WriteOptions::default();
    client.create(&config_map("a", "1"), &options).await.unwrap();
    let mut all = client.list_watch(&kinds::CONFIG_MAP, WatchOptions::default());
    let first = soon("added", all.next()).await.unwrap();
    assert!(matches!(&first, Difference::Added(o) if o.name == "a"), "{first:?}");
    assert!(matches!(soon("synced", all.next()).await.unwrap(), Difference::Synced(_)));
    client.delete(&kinds::CONFIG_MAP, "default", "a", &Default::default()).await.unwrap();
    let gone = soon("deleted", all.next()).await.unwrap();
    assert!(matches!(&gone, Difference::Deleted(o) if o.name == "a"), "{gone:?}");
    assert_eq!(all.known().count(), 0);
}
