use super::PROMISE;
use crate::evidence::{Evidence, WatchItem, WatchLog, Write, Writes};
use crate::verdicts::violations;

fn refused(watched: u64, kept: u64) -> Evidence {
    let write = Write { key: "a".into(), value: Some(7), revision: 0 };
    let kept = [("a".to_owned(), (kept, 5))].into_iter().collect();
    let item =
        WatchItem::Change { revision: 4, key: "a".into(), value: Some(watched), previous: None };
    Evidence {
        writes: Writes { refused: vec![write], kept: Some(kept), ..Writes::default() },
        watches: vec![WatchLog { items: vec![item], ..WatchLog::default() }],
        ..Evidence::default()
    }
}

#[test]
fn a_refused_value_that_shows_up_is_found() {
    assert!(violations(&PROMISE, &refused(1, 1)).is_empty());
    assert_eq!(violations(&PROMISE, &refused(7, 1)).len(), 1);
    assert_eq!(violations(&PROMISE, &refused(1, 7)).len(), 1);
}
