use super::PROMISE;
use crate::evidence::{Evidence, PodSighting, Resources};
use crate::verdicts::violations;

fn pod(uid: &str, cpu_milli: u64) -> PodSighting {
    PodSighting {
        revision: 1,
        uid: uid.into(),
        name: format!("default/{uid}"),
        node: Some("n1".into()),
        requests: Resources { cpu_milli, memory: 1, pods: 1 },
        finished: false,
        gone: false,
    }
}

fn evidence(pods: Vec<PodSighting>) -> Evidence {
    let offered = Resources { cpu_milli: 1000, memory: 10, pods: 3 };
    Evidence { pods, nodes: [("n1".into(), offered)].into(), ..Evidence::default() }
}

#[test]
fn more_than_a_node_offers_is_found() {
    let gone = PodSighting { gone: true, ..pod("a", 600) };
    let finished = PodSighting { finished: true, ..pod("b", 300) };
    let good = vec![pod("a", 600), pod("b", 300), pod("b", 300), gone, finished, pod("c", 1000)];
    assert_eq!(violations(&PROMISE, &evidence(good)), Vec::<String>::new());
    assert_eq!(violations(&PROMISE, &evidence(vec![pod("a", 600), pod("b", 500)])).len(), 1);
    let many = ["a", "b", "c", "d"].map(|uid| pod(uid, 1)).to_vec();
    assert_eq!(violations(&PROMISE, &evidence(many)).len(), 1, "number of pods");
}
