use super::*;

fn everything() -> Abilities {
    use Ability::{Clock, Disks, Docker, Members, Network, Nodes, Pods, Processes};
    Abilities::from([Processes, Network, Disks, Members, Nodes, Pods, Docker, Clock])
}

#[test]
fn every_scenario_is_a_plan() {
    for (name, _, _) in SCENARIOS {
        let plan = Plan::scenario(name, 3).expect(name);
        assert!(plan.steps.len() >= 3, "{name}");
        assert_eq!(plan.seed, 3);
    }
    let error = Plan::scenario("nonsense", 1).expect_err("no such scenario").to_string();
    assert!(error.contains("partitions"), "{error}");
}

#[test]
fn the_same_seed_makes_the_same_plan_and_another_another() {
    let plan = |seed| Plan::random(seed, 50, &everything());
    assert_eq!(plan(7), plan(7));
    assert_ne!(plan(7), plan(8));
}

#[test]
fn a_plan_is_written_as_it_is_read() {
    let plan = Plan::random(7, 200, &everything());
    let yaml = serde_yaml_ng::to_string(&serde_json::to_value(&plan).expect("JSON")).expect("YAML");
    assert_eq!(Plan::parse(&yaml).expect("a plan"), plan);
}

#[test]
fn names_of_processes_are_allowed_and_mistakes_are_named() {
    let plan = Plan::parse("steps: [{faults: [{kill: m2}], hold-ms: 5}]").expect("a plan");
    assert_eq!(plan.steps[0].faults, [Fault::Kill(Who::Named("m2".into()))]);
    assert_eq!((plan.steps[0].hold_ms, plan.steps[0].rest_ms), (5, default_rest()));
    for (text, part) in [
        ("steps: []", "at least one"),
        ("steps: [{faults: []}]", "no faults"),
        ("steps: [{faults: [{explode: m1}]}]", "explode"),
        ("steps: [{faults: [{kill: m1}], hold: 3}]", "hold"),
        ("steps: [{faults: [{wipe: majority}]}]", "more than one"),
        ("steps: [{faults: [grow, {replace: m1}]}]", "more than one"),
    ] {
        let error = format!("{:#}", Plan::parse(text).expect_err(text));
        assert!(error.contains(part), "{text}: {error}");
    }
}

#[test]
fn a_plan_keeps_to_what_is_possible() {
    let plan = Plan::random(7, 200, &everything()).within(&Abilities::new());
    assert!(plan.steps.iter().flat_map(|s| &s.faults).all(|fault| *fault == Fault::Transfer));
    let mut masters = everything();
    masters.remove(&Ability::Nodes);
    masters.remove(&Ability::Pods);
    masters.remove(&Ability::Docker);
    let plan = Plan::random(7, 200, &masters);
    assert_eq!(plan.clone().within(&masters), plan, "it uses what it may, and nothing else");
    assert_eq!(plan.needs(), masters);
    assert!(plan.steps.iter().flat_map(|s| &s.faults).all(Fault::spares_nodes));
}

#[test]
fn a_step_is_quiet_when_the_leader_keeps_its_office() {
    let quiet = |faults: &str| {
        let plan = Plan::parse(&format!("steps: [{{faults: {faults}}}]")).expect(faults);
        plan.steps[0].is_quiet()
    };
    for faults in [
        "[{clock: {who: all, by-seconds: 3600}}, drain]",
        "[kill-node, {pause-docker: node}]",
        "[{pause: follower}, {clock: {who: leader, by-seconds: -90}}]",
        "[{cut: {who: follower, from: masters, direction: in}}]",
        "[{kill: n1}]",
    ] {
        assert!(quiet(faults), "{faults}");
    }
    for faults in [
        "[{kill: leader}]",
        "[{kill: m2}]",
        "[{kill: follower}, {slow: {who: follower, delay-ms: 50}}]",
        "[transfer, drain]",
        "[bridge]",
        "[{slow-disk: {who: follower, delay-ms: 50}}]",
    ] {
        assert!(!quiet(faults), "{faults}");
    }
}
