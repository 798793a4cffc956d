use std::time::Duration;

use quorate_registry::{Registry, RegistryOptions};
use quorate_store::MemoryStore;
use serde_json::json;
use tokio_util::sync::CancellationToken;

use super::*;
use crate::auth::Auth;
use crate::nodes::NodesService;

const PATIENCE: Duration = Duration::from_secs(20);

#[tokio::test]
async fn a_nodes_status_that_is_not_written_is_told_again() {
    let cancel = CancellationToken::new();
    let _stop = cancel.clone().drop_guard();
    let store = MemoryStore::new();
    let registry = Registry::start(store.clone(), RegistryOptions::default(), cancel.clone());
    registry.wait_synced(PATIENCE).await.unwrap();
    let auth = Arc::new(Auth::new(registry.clone()));
    let beat = Duration::from_secs(1);
    let nodes =
        NodesService::new(registry.clone(), auth, store.clone(), "c".into(), beat, cancel.clone());
    let node = json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": "n1"}});
    registry.create(node, &WriteOptions::default()).await.unwrap();
    let shared = nodes.shared();
    let register = v1::Register { node_name: "n1".into(), ..Default::default() };
    let (session, _outgoing) = shared.table.enter(&register, cancel).unwrap();
    let writer = StatusWriter::new(&shared, &session);
    let condition = json!({"type": "DiskPressure", "status": "True"});
    let batch = || v1::StatusBatch {
        sequence: 1,
        node_status_json: json!({"conditions": [condition]}).to_string().into(),
        ..Default::default()
    };
    store.set_term(7);
    let again = async |term| {
        let ack = writer.write(batch(), term).await;
        assert!(!ack.refused, "the rest of the batch is taken all the same: {ack:?}");
        ack.retry_node_status
    };
    assert!(again(6).await, "another leads");
    assert!(!again(7).await);
    registry.delete(&kinds::NODE, "", "n1", &DeleteOptions::default()).await.unwrap();
    assert!(!again(7).await, "there is nothing to write it to");
}
