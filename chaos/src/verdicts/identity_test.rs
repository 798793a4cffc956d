use super::PROMISE;
use crate::evidence::{Container, ContainerSample, Evidence};
use crate::verdicts::violations;

fn container(uid: &str, node: &str, running: bool) -> Container {
    Container {
        id: uid.into(),
        node: node.into(),
        pod_uid: uid.into(),
        pod: "default/db-0".into(),
        name: "db".into(),
        started_at: "t".into(),
        running,
        stateful: true,
    }
}

fn samples(samples: Vec<Vec<Container>>) -> Evidence {
    let sample = |containers| ContainerSample { at: 0, containers };
    Evidence { containers: samples.into_iter().map(sample).collect(), ..Evidence::default() }
}

#[test]
fn two_at_the_same_time_are_found() {
    let (old, new) = (container("u", "n1", true), container("v", "n2", true));
    let stopped = container("u", "n1", false);
    let good = samples(vec![vec![old.clone()], vec![stopped, new.clone()], vec![new.clone()]]);
    assert!(violations(&PROMISE, &good).is_empty());
    assert_eq!(violations(&PROMISE, &samples(vec![vec![old, new]])).len(), 1);
}
