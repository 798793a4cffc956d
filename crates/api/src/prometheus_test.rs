#![allow(clippy::unwrap_used)]

use std::collections::BTreeSet;

use quorate_store::{MemoryStore, Store as _};

use super::render;
use crate::gate::Metrics;

#[test]
fn every_metric_is_described_once_and_has_a_number() {
    let store = MemoryStore::new();
    let text = render(&store.status(), &Metrics::default());
    let mut names = BTreeSet::new();
    let mut lines = text.lines();
    while let Some(help) = lines.next() {
        let name = help.strip_prefix("# HELP ").unwrap().split(' ').next().unwrap();
        assert!(names.insert(name.to_owned()), "{name} twice");
        assert!(lines.next().unwrap().starts_with(&format!("# TYPE {name} ")), "{name}");
        let (same, value) = lines.next().unwrap().split_once(' ').unwrap();
        assert_eq!(same, name);
        value.parse::<f64>().unwrap();
    }
    for name in
        ["etcd_server_has_leader", "etcd_mvcc_db_total_size_in_bytes", "process_cpu_seconds_total"]
    {
        assert!(names.contains(name), "{name} is missing");
    }
    assert!(text.contains("\netcd_server_has_leader 1\n"), "{text}");
}
