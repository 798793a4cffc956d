#![allow(clippy::unwrap_used, clippy::expect_used)]

use serde_json::{Value, json};

use super::*;

fn pod(spec: &Value) -> Arc<Pod> {
    let mut value = json!({"metadata": {"name": "p", "namespace": "d", "uid": "u"},
        "spec": {"containers": [{"name": "a"}, {"name": "b", "volumeMounts": [
            {"name": "own", "mountPath": "/var/run/secrets/kubernetes.io/serviceaccount/"}]}],
        "initContainers": [{"name": "i"}]}});
    value["spec"].as_object_mut().unwrap().extend(spec.as_object().unwrap().clone());
    Arc::new(serde_json::from_value(value).unwrap())
}

#[test]
fn every_container_finds_its_way_to_the_masters_unless_it_has_its_own() {
    let completed = complete(&pod(&json!({})));
    let spec = completed.spec.as_ref().unwrap();
    let mounts = |c: &k8s_openapi::api::core::v1::Container| {
        let mounts = c.volume_mounts.iter().flatten();
        mounts.map(|mount| mount.name.clone()).collect::<Vec<_>>()
    };
    assert_eq!(mounts(&spec.containers[0]), [VOLUME]);
    assert_eq!(mounts(&spec.containers[1]), ["own"]);
    assert_eq!(mounts(&spec.init_containers.as_ref().unwrap()[0]), [VOLUME]);
    assert_eq!(wanted(&completed).count(), 1);
    let declined = pod(&json!({"automountServiceAccountToken": false}));
    assert!(!is_completed(&complete(&declined)));
    assert!(Arc::ptr_eq(&complete(&completed), &completed), "once is enough");
}

#[tokio::test]
async fn without_a_master_the_token_on_the_disk_is_used() {
    let folder = tempfile::tempdir().unwrap();
    let (_sender, channel) = watch::channel(None);
    let tokens = Tokens::new(channel);
    let pod = complete(&pod(&json!({})));
    let file = (VOLUME.to_owned(), "token".to_owned());
    let error = tokens.of_pod(folder.path(), &pod).await[&file].clone().unwrap_err();
    assert!(error.contains("no master"), "{error}");
    let place = volumes::pod_dir(folder.path(), "u").join("volumes").join(VOLUME);
    fs::create_dir_all(&place).unwrap();
    fs::write(place.join("token"), "t1").unwrap();
    assert_eq!(tokens.of_pod(folder.path(), &pod).await[&file], Ok("t1".to_owned()));
}
