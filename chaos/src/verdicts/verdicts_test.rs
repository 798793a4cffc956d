use super::*;
use crate::history::Operation;
use crate::linear::{RegisterInput, RegisterOutput, Versioned};

#[test]
fn without_evidence_nothing_is_called_kept() {
    for verdict in judge(&Evidence::default()) {
        assert_eq!(verdict.outcome, Outcome::NotChecked, "{}", verdict.name);
    }
}

#[test]
fn names_are_unique() {
    let mut names: Vec<_> = PROMISES.iter().map(|promise| promise.name).collect();
    names.sort_unstable();
    names.dedup();
    assert_eq!(names.len(), PROMISES.len());
}

#[test]
fn a_violation_decides_and_long_lists_are_cut() {
    let read = |n: u64| Operation {
        client: 1,
        sent: n,
        answered: Some(n),
        input: RegisterInput::Read { key: format!("k{n}") },
        output: Some(RegisterOutput::Found(Some(Versioned { value: n, revision: n }))),
    };
    let evidence = Evidence { registers: (1..=50).map(read).collect(), ..Evidence::default() };
    let verdicts = judge(&evidence);
    assert!(any_violation(&verdicts));
    let Outcome::Violated(texts) = &verdicts[0].outcome else { panic!("{:?}", verdicts[0]) };
    assert_eq!(texts.len(), SHOWN + 1);
    assert!(texts[SHOWN].contains("30 more"), "{}", texts[SHOWN]);
}

#[test]
fn steps_of_windows_add_up() {
    let window = |late: &[u64]| {
        let mut findings = Findings::default();
        for late_ms in late {
            if findings.judges(*late_ms) {
                findings.look();
            }
        }
        verdict(&elections::PROMISE, findings)
    };
    let mut sum = window(&[0, STALL_MS]);
    sum.add(window(&[0]), 2);
    assert_eq!((sum.checked, sum.steps), (2, Some(Steps { judged: 2, stalled: 1 })));
}
