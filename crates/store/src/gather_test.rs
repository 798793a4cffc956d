#![allow(clippy::unwrap_used)]

use super::*;

fn all(_: &[u32], _: &u32) -> Fit {
    Fit::Yes
}

#[tokio::test(start_paused = true)]
async fn while_enough_are_on_their_way_the_others_gather() {
    let mut gather = Gather::new(2);
    assert!(gather.push(1) && gather.push(2));
    assert_eq!(gather.take(|_| true, |_, _| Fit::Full), Some(vec![1]));
    assert_eq!(gather.take(|_| true, all), Some(vec![2]));
    assert!(!gather.push(3) && !gather.push(4) && !gather.push(5));
    // One of the two is done, and takes what has gathered; the other finds nothing.
    assert_eq!(gather.take(|item| *item != 4, all), Some(vec![3, 5]));
    assert_eq!(gather.take(|_| true, all), None);
    assert!(gather.push(6), "there is room for one");
    assert!(!gather.push(7));
}

#[tokio::test(start_paused = true)]
async fn what_does_not_fit_keeps_its_place() {
    let mut gather = Gather::new(1);
    for item in [1, 2, 3, 4, 5, 7] {
        gather.push(item);
    }
    let odd = |group: &[u32], item: &u32| match item % 2 {
        _ if group.len() == 3 => Fit::Full,
        1 => Fit::Yes,
        _ => Fit::No,
    };
    assert_eq!(gather.take(|_| true, odd), Some(vec![1, 3, 5]));
    assert_eq!(gather.take(|_| true, all), Some(vec![2, 4, 7]));
    assert_eq!(gather.take(|_| true, all), None);
}

#[tokio::test(start_paused = true)]
async fn one_more_goes_when_those_on_their_way_do_not_move() {
    let mut gather = Gather::new(1);
    assert!(gather.push(1));
    assert_eq!(gather.take(|_| true, all), Some(vec![1]));
    tokio::time::advance(STUCK).await;
    assert!(!gather.start_another(), "nothing waits");
    assert!(!gather.push(2));
    assert!(gather.start_another());
    assert!(!gather.start_another(), "it has only just been sent");
    assert_eq!(gather.take(|_| true, all), Some(vec![2]));
    // Both come back, and there is no more room than before.
    assert_eq!(gather.take(|_| true, all), None);
    assert_eq!(gather.take(|_| true, all), None);
    assert!(gather.push(3));
    assert!(!gather.push(4));
}

#[tokio::test(start_paused = true)]
async fn what_has_not_been_sent_can_be_withdrawn() {
    let mut gather = Gather::new(1);
    gather.push(1);
    gather.push(2);
    assert_eq!(gather.withdraw(|item| *item == 1), Some(1));
    assert_eq!(gather.take(|_| true, all), Some(vec![2]));
    assert_eq!(gather.withdraw(|item| *item == 2), None, "it is on its way");
}
