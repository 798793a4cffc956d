use std::collections::{BTreeSet, HashMap};

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use super::*;

fn op<I, O>(client: u32, sent: Nanos, answered: Nanos, input: I, output: O) -> Operation<I, O> {
    Operation { client, sent, answered: Some(answered), input, output: Some(output) }
}

fn lost<I, O>(client: u32, sent: Nanos, input: I) -> Operation<I, O> {
    Operation { client, sent, answered: None, input, output: None }
}

fn read() -> RegisterInput {
    RegisterInput::Read { key: "k".into() }
}

fn write(value: u64) -> RegisterInput {
    RegisterInput::Write { key: "k".into(), value }
}

fn cas(expected: u64, value: u64) -> RegisterInput {
    RegisterInput::CompareAndSet { key: "k".into(), expected, value }
}

fn found(value: u64, revision: u64) -> RegisterOutput {
    RegisterOutput::Found(Some(Versioned { value, revision }))
}

fn nothing() -> RegisterOutput {
    RegisterOutput::Found(None)
}

fn good<M: Model>(history: &[Op<M>]) {
    let finding = check::<M>(history, Budget::default());
    assert_eq!(finding.violations, Vec::<String>::new());
    assert_eq!(finding.not_decided, Vec::<String>::new());
    assert!(finding.checked > 0);
}

fn bad<M: Model>(history: &[Op<M>]) -> String {
    let finding = check::<M>(history, Budget::default());
    assert_eq!(finding.violations.len(), 1, "{finding:?}");
    finding.violations[0].clone()
}

#[test]
fn what_overlaps_may_be_seen_or_not() {
    use RegisterOutput::Written;
    good::<Registers>(&[
        op(1, 0, 10, write(1), Written(2)),
        op(2, 11, 30, write(2), Written(3)),
        op(3, 12, 14, read(), found(1, 2)),
        op(3, 15, 29, read(), found(2, 3)),
    ]);
}

#[test]
fn a_stale_read_is_found() {
    use RegisterOutput::Written;
    let text = bad::<Registers>(&[
        op(1, 0, 10, write(1), Written(2)),
        op(2, 11, 20, write(2), Written(3)),
        op(3, 21, 22, read(), found(1, 2)),
    ]);
    assert!(text.contains("client 3"), "{text}");
}

#[test]
fn a_read_that_goes_back_is_found() {
    use RegisterOutput::Written;
    bad::<Registers>(&[
        op(1, 0, 10, write(1), Written(2)),
        op(2, 11, 40, write(2), Written(3)),
        op(3, 12, 14, read(), found(2, 3)),
        op(4, 15, 20, read(), found(1, 2)),
    ]);
}

#[test]
fn a_lost_acknowledged_write_is_found() {
    use RegisterOutput::Written;
    bad::<Registers>(&[
        op(1, 0, 10, write(1), Written(2)),
        op(1, 11, 20, write(2), Written(3)),
        op(1, 21, 22, write(3), Written(3)),
    ]);
    bad::<Registers>(&[op(1, 0, 10, write(1), Written(2)), op(2, 11, 12, read(), nothing())]);
}

#[test]
fn a_lost_answer_may_take_effect_late_or_never() {
    use RegisterOutput::Written;
    let first = op(1, 0, 10, write(1), Written(2));
    good::<Registers>(&[first.clone(), lost(2, 11, write(2)), op(3, 50, 60, read(), found(1, 2))]);
    good::<Registers>(&[
        first.clone(),
        lost(2, 11, write(2)),
        op(3, 50, 60, read(), found(1, 2)),
        op(3, 70, 80, read(), found(2, 9)),
    ]);
    // But only once.
    bad::<Registers>(&[
        first.clone(),
        lost(2, 11, write(2)),
        op(3, 50, 60, read(), found(2, 3)),
        op(1, 70, 80, write(3), Written(4)),
        op(3, 90, 95, read(), found(2, 5)),
    ]);
    // And not before it was sent.
    bad::<Registers>(&[first, op(3, 50, 60, read(), found(2, 9)), lost(2, 61, write(2))]);
}

#[test]
fn compare_and_set_is_atomic() {
    use RegisterOutput::{Mismatch, Written};
    let first = op(1, 0, 10, write(1), Written(2));
    good::<Registers>(&[
        first.clone(),
        op(1, 11, 20, cas(2, 2), Written(3)),
        op(2, 11, 20, cas(2, 3), Mismatch),
    ]);
    // Two winners from one revision.
    bad::<Registers>(&[
        first.clone(),
        op(1, 11, 20, cas(2, 2), Written(3)),
        op(2, 11, 20, cas(2, 3), Written(4)),
    ]);
    // A loser without a winner.
    bad::<Registers>(&[first.clone(), op(1, 11, 20, cas(2, 2), Mismatch)]);
    // The winner's answer was lost.
    good::<Registers>(&[
        first,
        lost(1, 11, cas(2, 2)),
        op(2, 12, 20, cas(2, 3), Mismatch),
        op(2, 21, 22, read(), found(2, 3)),
    ]);
}

#[test]
fn deleted_registers_are_empty_until_written() {
    use RegisterOutput::{Deleted, Missing, Written};
    let delete = || RegisterInput::Delete { key: "k".into() };
    good::<Registers>(&[
        op(1, 0, 1, write(1), Written(2)),
        op(1, 2, 3, delete(), Deleted),
        op(1, 4, 5, delete(), Missing),
        op(1, 6, 7, read(), nothing()),
    ]);
    bad::<Registers>(&[
        op(1, 0, 1, write(1), Written(2)),
        op(1, 2, 3, delete(), Deleted),
        op(1, 4, 5, read(), found(1, 2)),
    ]);
}

#[test]
fn only_one_of_two_creations_wins() {
    use RegisterOutput::{Mismatch, Written};
    let create = |value| RegisterInput::Create { key: "k".into(), value };
    good::<Registers>(&[
        op(1, 0, 10, create(1), Written(2)),
        op(2, 0, 10, create(2), Mismatch),
        op(2, 11, 12, read(), found(1, 2)),
    ]);
    bad::<Registers>(&[op(1, 0, 10, create(1), Written(2)), op(2, 0, 10, create(2), Written(3))]);
    bad::<Registers>(&[op(1, 0, 10, create(1), Mismatch)]);
}

#[test]
fn keys_are_judged_apart() {
    let on = |key: &str, value| RegisterInput::Write { key: key.into(), value };
    let read_of = |key: &str| RegisterInput::Read { key: key.into() };
    let finding = check::<Registers>(
        &[
            op(1, 0, 1, on("a", 1), RegisterOutput::Written(2)),
            op(1, 2, 3, on("b", 2), RegisterOutput::Written(3)),
            op(1, 4, 5, read_of("a"), found(1, 2)),
            op(1, 6, 7, read_of("b"), nothing()),
        ],
        Budget::default(),
    );
    assert_eq!((finding.checked, finding.violations.len()), (4, 1));
    assert!(finding.violations[0].starts_with("\"b\""), "{finding:?}");
}

#[test]
fn transactions_are_all_or_nothing() {
    let txn = |conditions, writes, reads| TransactionInput { group: 1, conditions, writes, reads };
    let done = |reads| TransactionOutput { succeeded: true, reads };
    let both = txn(vec![(1, None)], vec![(1, 5), (2, 5)], vec![]);
    good::<Transactions>(&[
        op(1, 0, 10, both.clone(), done(vec![])),
        op(2, 5, 20, both.clone(), TransactionOutput { succeeded: false, reads: vec![] }),
        op(2, 21, 22, txn(vec![], vec![], vec![1, 2]), done(vec![Some(5), Some(5)])),
    ]);
    // Half of it.
    bad::<Transactions>(&[
        op(1, 0, 10, both.clone(), done(vec![])),
        op(2, 5, 8, txn(vec![], vec![], vec![1, 2]), done(vec![Some(5), None])),
    ]);
    // Both of two that exclude each other (write skew).
    let skew = |mine, other| txn(vec![(other, None)], vec![(mine, 1)], vec![]);
    bad::<Transactions>(&[
        op(1, 0, 10, skew(1, 2), done(vec![])),
        op(2, 0, 10, skew(2, 1), done(vec![])),
    ]);
    // A lost answer counts whole.
    bad::<Transactions>(&[
        lost(1, 0, both),
        op(2, 5, 8, txn(vec![], vec![], vec![1, 2]), done(vec![None, Some(5)])),
    ]);
}

#[test]
fn sets_lose_and_invent_nothing() {
    let add = |element| SetInput::Add { set: "s".into(), element };
    let all = || SetInput::Read { set: "s".into() };
    let elements = |list: &[u64]| SetOutput::Elements(list.iter().copied().collect());
    good::<Sets>(&[
        op(1, 0, 10, add(1), SetOutput::Done),
        op(2, 0, 10, all(), elements(&[])),
        lost(2, 11, add(2)),
        op(1, 12, 13, all(), elements(&[1])),
        op(1, 14, 15, all(), elements(&[1, 2])),
        op(1, 16, 17, add(2), SetOutput::Unchanged),
    ]);
    bad::<Sets>(&[op(1, 0, 10, add(1), SetOutput::Done), op(1, 11, 12, all(), elements(&[]))]);
    bad::<Sets>(&[op(1, 11, 12, all(), elements(&[7]))]);
    let remove = SetInput::Remove { set: "s".into(), element: 1 };
    bad::<Sets>(&[
        op(1, 0, 10, add(1), SetOutput::Done),
        op(1, 11, 12, remove, SetOutput::Done),
        op(1, 13, 14, all(), elements(&[1])),
    ]);
}

#[test]
fn lists_keep_their_order() {
    let append = |element| ListInput::Append { list: "l".into(), element };
    let all = || ListInput::Read { list: "l".into() };
    let elements = |list: &[u64]| ListOutput::Elements(list.to_vec());
    good::<Lists>(&[
        op(1, 0, 10, append(1), ListOutput::Done),
        op(2, 0, 10, append(2), ListOutput::Done),
        op(1, 11, 12, all(), elements(&[2, 1])),
    ]);
    bad::<Lists>(&[
        op(1, 0, 10, append(1), ListOutput::Done),
        op(2, 11, 20, append(2), ListOutput::Done),
        op(1, 21, 22, all(), elements(&[2, 1])),
    ]);
    // Appended twice by a retry.
    bad::<Lists>(&[
        op(1, 0, 10, append(1), ListOutput::Done),
        op(1, 21, 22, all(), elements(&[1, 1])),
    ]);
}

#[test]
fn running_out_of_budget_is_said_and_is_no_verdict() {
    // Many concurrent writes and a read that nothing explains: every order must be tried.
    let mut history: Vec<_> = (1..=14_u64)
        .map(|n| op(n as u32, 0, 1000, write(n), RegisterOutput::Written(n + 1)))
        .collect();
    history.push(op(99, 0, 1000, read(), found(77, 5)));
    let small = Budget { configurations: 10, ..Budget::default() };
    let finding = check::<Registers>(&history, small);
    assert!(finding.violations.is_empty(), "{finding:?}");
    assert_eq!(finding.not_decided.len(), 1);
}

#[test]
fn dozens_of_lost_answers_do_not_make_a_bad_history_undecidable() {
    let mut history: Vec<_> = (100..140).map(|n| lost(n as u32, n, write(n))).collect();
    history.push(op(1, 200, 210, write(1), RegisterOutput::Written(200)));
    history.push(op(1, 220, 230, write(2), RegisterOutput::Written(300)));
    history.push(op(1, 240, 250, read(), found(1, 200)));
    bad::<Registers>(&history);
}

/// A register behind a lock, with delays before and after the moment of truth: linearizable by
/// construction. With `corrupt`, one read's answer is replaced by an older value.
fn simulated(seed: u64, corrupt: bool) -> Option<Vec<Op<Registers>>> {
    let mut random = StdRng::seed_from_u64(seed);
    let mut free: HashMap<u32, Nanos> = HashMap::new();
    let mut state: Option<Versioned> = None;
    let mut older: Vec<(Versioned, Nanos)> = Vec::new();
    let mut history = Vec::new();
    let mut corrupted = false;
    for step in 1..=300_u64 {
        let truth = step * 10;
        let client = random.random_range(0..8_u32);
        let start = free.get(&client).copied().unwrap_or(0);
        if start >= truth {
            continue;
        }
        let sent = random.random_range(start.max(truth.saturating_sub(60))..truth);
        let answered = truth + random.random_range(1..60);
        free.insert(client, answered + 1);
        let current = state.map_or(0, |versioned| versioned.revision);
        let (input, output) = match random.random_range(0..3) {
            0 => {
                let next = Versioned { value: step, revision: current.max(1) + 1 };
                state = Some(next);
                older.push((next, answered));
                (write(step), RegisterOutput::Written(next.revision))
            }
            1 if state.is_some() => {
                let expected = current - u64::from(random.random_bool(0.3));
                if expected == current {
                    let next = Versioned { value: step, revision: current + 1 };
                    state = Some(next);
                    older.push((next, answered));
                    (cas(expected, step), RegisterOutput::Written(next.revision))
                } else {
                    (cas(expected, step), RegisterOutput::Mismatch)
                }
            }
            _ => {
                // A value whose successor was already acknowledged when the read was sent.
                let gone = older.windows(2).rfind(|pair| pair[1].1 < sent).map(|pair| pair[0].0);
                let answer = match gone {
                    Some(gone) if corrupt && !corrupted && step > 150 => {
                        corrupted = true;
                        Some(gone)
                    }
                    _ => state,
                };
                (read(), RegisterOutput::Found(answer))
            }
        };
        if random.random_bool(0.05) && !corrupt {
            history.push(lost(client, sent, input));
        } else {
            history.push(op(client, sent, answered, input, output));
        }
    }
    (corrupted == corrupt).then_some(history)
}

#[test]
fn random_good_histories_pass_and_corrupted_ones_do_not() {
    let mut corrupted = 0;
    for seed in 0..40 {
        good::<Registers>(&simulated(seed, false).expect("nothing was to be corrupted"));
        if let Some(history) = simulated(seed, true) {
            corrupted += 1;
            bad::<Registers>(&history);
        }
    }
    assert!(corrupted > 20, "{corrupted}");
}

#[test]
fn a_long_history_of_many_clients_is_decided_quickly() {
    let mut history = Vec::new();
    for n in 1..=3_000_u64 {
        let sent = n * 10;
        let input = SetInput::Add { set: format!("s{}", n % 30), element: n };
        history.push(op((n % 16) as u32, sent - 9, sent + 140, input, SetOutput::Done));
    }
    for set in 0..30_u64 {
        let all: BTreeSet<u64> = (1..=3_000).filter(|n| n % 30 == set).collect();
        let input = SetInput::Read { set: format!("s{set}") };
        history.push(op(99, 40_000, 40_001, input, SetOutput::Elements(all)));
    }
    good::<Sets>(&history);
}
