use super::PROMISE;
use crate::evidence::{Container, Evidence};
use crate::verdicts::violations;

#[test]
fn a_container_without_its_pod_is_found() {
    let container = Container {
        id: "c".into(),
        node: "n1".into(),
        pod_uid: "u".into(),
        pod: "default/web".into(),
        name: String::new(),
        started_at: "t".into(),
        running: false,
        stateful: false,
    };
    let evidence = |pods: &[&str]| Evidence {
        final_pods: Some(pods.iter().map(|uid| (*uid).into()).collect()),
        final_containers: vec![container.clone()],
        ..Evidence::default()
    };
    assert!(violations(&PROMISE, &evidence(&["u", "v"])).is_empty());
    assert_eq!(violations(&PROMISE, &evidence(&["v"])).len(), 1);
}
