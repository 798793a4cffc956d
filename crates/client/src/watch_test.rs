use super::*;

fn event(kind: v1::watch_event::Type, name: &str, revision: u64) -> v1::WatchEvent {
    let object = v1::Object { name: name.into(), json: "{}".into(), ..v1::Object::default() };
    v1::WatchEvent { r#type: kind.into(), object: Some(object), revision }
}

fn place(complete: u64) -> Place {
    Place { complete, partial: 0, seen: HashSet::new(), initial: complete == 0 }
}

#[test]
fn a_transaction_cut_in_two_is_resumed_without_loss_or_repetition() {
    use v1::watch_event::Type::Modified;
    let mut place = place(5);
    assert!(place.take(event(Modified, "a", 7)).unwrap().is_some());
    // The stream breaks between two objects of revision 7: resume from before it.
    assert_eq!(place.complete, 6);
    assert!(place.take(event(Modified, "a", 7)).unwrap().is_none(), "seen before");
    assert!(place.take(event(Modified, "b", 7)).unwrap().is_some());
    assert!(place.take(event(Modified, "a", 8)).unwrap().is_some());
    assert_eq!(place.complete, 7);
}

#[test]
fn initial_objects_count_only_when_all_have_come() {
    use v1::watch_event::Type::{Added, Bookmark};
    let mut place = place(0);
    assert!(place.take(event(Added, "a", 30)).unwrap().is_some());
    assert!(place.take(event(Added, "b", 12)).unwrap().is_some());
    assert_eq!(place.complete, 0, "a break here must begin anew");
    let bookmark = place.take(event(Bookmark, "", 31)).unwrap();
    assert_eq!(bookmark, Some(Event::Bookmark(31)));
    assert_eq!(place.complete, 31);
    assert!(place.take(event(Added, "c", 31)).unwrap().is_none());
}
