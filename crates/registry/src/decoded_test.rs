#![allow(clippy::unwrap_used)]

use super::*;

fn budget(limit: usize) -> &'static Budget {
    Box::leak(Box::new(Budget::new(limit)))
}

fn object(number: usize) -> Decoded {
    Arc::new(number)
}

fn number(form: &Form) -> Option<usize> {
    form.get().map(|decoded| *decoded.downcast::<usize>().unwrap())
}

fn held(budget: &Budget) -> (usize, usize) {
    let kept = budget.kept.lock();
    (kept.objects, kept.bytes)
}

#[test]
fn what_is_read_again_stays_and_the_rest_makes_room() {
    let budget = budget(40);
    let forms: Vec<_> = (0..100).map(|_| Form::within(budget, 10)).collect();
    forms[0].keep(object(0));
    for (at, form) in forms.iter().enumerate().skip(1) {
        form.keep(object(at));
        assert_eq!(number(&forms[0]), Some(0), "it is read all the time");
        assert!(held(budget).1 <= 40);
    }
    assert_eq!(held(budget), (4, 40));
    assert_eq!(number(&forms[1]), None);
    assert_eq!(number(&forms[99]), Some(99));
    // What was given up can be decoded once more.
    assert!(!forms[1].is_wanted(), "there is no room for what nobody has asked for");
    forms[1].keep(object(1));
    assert_eq!(number(&forms[1]), Some(1));
}

#[test]
fn the_limit_holds_when_all_was_read() {
    let budget = budget(30);
    let forms: Vec<_> = (0..10).map(|_| Form::within(budget, 10)).collect();
    for (at, form) in forms.iter().enumerate() {
        form.keep(object(at));
        forms.iter().for_each(|form| drop(form.get()));
    }
    assert_eq!(held(budget), (3, 30));
    let large = Form::within(budget, 31);
    large.keep(object(77));
    assert_eq!((number(&large), held(budget)), (None, (3, 30)), "it would never fit");
}

#[test]
fn what_is_old_or_gone_counts_no_more() {
    let budget = budget(100);
    let (old, gone) = (Form::within(budget, 10), Form::within(budget, 20));
    let first = old.keep(object(1));
    let second = old.keep(object(2));
    assert!(Arc::ptr_eq(&first, &second), "the first one is everybody's");
    gone.keep(object(3));
    assert_eq!(held(budget), (2, 30));
    old.grow_old();
    assert_eq!((number(&old), held(budget)), (None, (1, 20)));
    old.keep(object(4));
    assert!(!old.is_wanted());
    assert_eq!((number(&old), held(budget)), (None, (1, 20)));
    drop(gone);
    assert_eq!(held(budget), (0, 0));
}

#[test]
fn entries_of_what_is_gone_do_not_pile_up() {
    let budget = budget(100);
    for number in 0..3 * DEAD {
        Form::within(budget, 1).keep(object(number));
    }
    assert!(budget.kept.lock().order.len() <= DEAD + 1);
}

#[test]
fn many_threads_agree_on_what_is_kept() {
    let budget = budget(500);
    let forms: Vec<_> = (0..200).map(|_| Form::within(budget, 10)).collect();
    std::thread::scope(|scope| {
        for thread in 0..4 {
            let forms = &forms;
            scope.spawn(move || {
                for round in 0..20_000_usize {
                    let at = (round * 7 + thread * 13) % forms.len();
                    match forms[at].get() {
                        Some(_) => {}
                        None => drop(forms[at].keep(object(at))),
                    }
                    assert!(number(&forms[at]).is_none_or(|number| number == at));
                }
            });
        }
    });
    let (objects, bytes) = held(budget);
    assert_eq!(bytes, objects * 10);
    assert!(bytes <= 500);
    drop(forms);
    assert_eq!(held(budget), (0, 0));
}
