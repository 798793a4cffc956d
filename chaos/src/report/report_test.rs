use super::*;

fn sighting(at: Nanos, master: &str, term: u64) -> MasterSighting {
    MasterSighting { at, master: master.into(), pid: 1, term, leads: true, revision: 1 }
}

fn report(outcome: Outcome) -> Report {
    let verdict = Verdict {
        name: "one leader per term".into(),
        promise: "no <two>".into(),
        outcome,
        checked: 3,
        steps: None,
    };
    let struck = Struck {
        fault: "kill the leader".into(),
        victims: vec!["m1".into()],
        from: 1_000_000_000,
        until: 2_000_000_000,
        turns_clock: false,
        spares_nodes: true,
        skipped: None,
    };
    Report {
        seed: 42,
        plan: Plan::scenario("kills", 42).expect("a scenario"),
        version: "1".into(),
        masters: vec!["m1".into()],
        nodes: Vec::new(),
        seconds: 9,
        faults: vec![struck],
        buckets: vec![Bucket { answered: 5, ..Bucket::default() }; 40],
        bucket_ms: 100,
        windows: 1,
        interrupted: false,
        leaders: leaders(&[sighting(1, "m1", 1), sighting(5, "m1", 1), sighting(9, "m2", 2)]),
        error: None,
        verdicts: vec![verdict],
    }
}

#[test]
fn reigns_are_put_together() {
    let report = report(Outcome::Kept);
    assert_eq!(report.leaders.len(), 2);
    assert_eq!((report.leaders[0].from, report.leaders[0].until), (1, 5));
}

#[test]
fn windows_add_up_and_the_worst_outcome_stays() {
    let mut sum = report(Outcome::Kept);
    let broken = report(Outcome::Violated(vec!["two leaders".into()]));
    sum.add(1, broken.verdicts, None);
    assert_eq!(sum.verdicts[0].outcome, Outcome::Violated(vec!["window 2: two leaders".into()]));
    sum.add(2, report(Outcome::Kept).verdicts, Some(anyhow::anyhow!("no leader")));
    assert!(matches!(sum.verdicts[0].outcome, Outcome::Violated(_)) && sum.failed());
    assert_eq!((sum.verdicts[0].checked, sum.windows), (9, 3));
    assert_eq!(sum.error.as_deref(), Some("window 3: no leader"));
}

#[test]
fn the_next_window_knows_every_leader_and_what_each_master_said_last() {
    let follows = |at, term| MasterSighting { leads: false, ..sighting(at, "m2", term) };
    let seen = [
        sighting(1, "m1", 1),
        sighting(2, "m1", 1),
        follows(3, 1),
        sighting(5, "m2", 2),
        follows(7, 3),
    ];
    let ats: Vec<Nanos> = remember(&seen).into_iter().map(|seen| seen.at).collect();
    assert_eq!(ats, [2, 2, 5, 7]);
}

#[test]
fn a_violation_fails_the_run_and_everything_is_written() {
    assert!(!report(Outcome::Kept).failed());
    assert!(!report(Outcome::NotChecked).failed());
    let broken = report(Outcome::Violated(vec!["term 3: <m1> and m2".into()]));
    assert!(broken.failed());
    let folder = tempfile::tempdir().expect("a folder");
    broken.write(folder.path(), &Evidence::default()).expect("written");
    let read = |name: &str| std::fs::read_to_string(folder.path().join(name)).expect(name);
    let page = read("report.html");
    assert!(page.contains("&lt;m1&gt; and m2") && page.contains("kill the leader (m1)"), "{page}");
    assert!(!page.contains("<m1>") && !page.contains("http"), "self-contained, and escaped");
    let again: Report = serde_json::from_str(&read("report.json")).expect("JSON");
    assert_eq!(again.verdicts, broken.verdicts);
    assert_eq!(Plan::parse(&read("plan.yaml")).expect("a plan"), broken.plan);
    serde_json::from_str::<Evidence>(&read("evidence.json")).expect("evidence");
    assert!(broken.summary().contains("VIOLATED     one leader per term (3 checked)"));
}
