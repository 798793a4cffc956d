use super::PROMISE;
use crate::evidence::{Container, ContainerSample, Evidence, PodSighting, Resources};
use crate::verdicts::violations;

fn pod(uid: &str, node: Option<&str>) -> PodSighting {
    PodSighting {
        revision: 1,
        uid: uid.into(),
        name: "default/web".into(),
        node: node.map(Into::into),
        requests: Resources::default(),
        finished: false,
        gone: false,
    }
}

fn running(uid: &str, node: &str) -> Container {
    Container {
        id: "c".into(),
        node: node.into(),
        pod_uid: uid.into(),
        pod: "default/web".into(),
        name: "web".into(),
        started_at: "t".into(),
        running: true,
        stateful: false,
    }
}

#[test]
fn a_pod_that_moves_is_found() {
    let mut evidence = Evidence {
        pods: vec![pod("u", None), pod("u", Some("n1")), pod("v", Some("n2"))],
        ..Evidence::default()
    };
    assert!(violations(&PROMISE, &evidence).is_empty());
    let containers = vec![running("u", "n2")];
    evidence.containers.push(ContainerSample { at: 1, containers });
    assert_eq!(violations(&PROMISE, &evidence).len(), 1, "a container elsewhere");
    evidence.containers.clear();
    evidence.pods.push(pod("u", Some("n2")));
    assert_eq!(violations(&PROMISE, &evidence).len(), 1, "a second binding");
}
