use crate::decide::{Trace, Unschedulable};

use super::*;

fn key(name: &str, uid: &str) -> PodKey {
    PodKey { namespace: "default".into(), name: name.into(), uid: uid.into() }
}

fn bound(node: &str) -> Decision {
    Decision { outcome: Outcome::Node(node.into()), preemption: None, trace: Trace::default() }
}

fn nowhere() -> Decision {
    let outcome = Outcome::Unschedulable(Unschedulable::default());
    Decision { outcome, preemption: None, trace: Trace::default() }
}

#[tokio::test]
async fn the_last_decision_and_what_happened_before() {
    let explainer = Explainer::default();
    assert_eq!(explainer.explain("default", "p").await, Err(ExplainError::NotRunning));
    let _questions = explainer.begin(3);
    for _ in 0..2 {
        explainer.decided(vec![(key("p", "1"), nowhere())]);
    }
    explainer.decided(vec![(key("p", "1"), bound("n1"))]);
    explainer.happened(&key("p", "1"), "preempted by default/q on n1".into());
    let told = explainer.explain("default", "p").await.expect("it is recorded");
    assert_eq!(told.decision, bound("n1"));
    assert_eq!(told.term, 3);
    let history: Vec<_> = told.history.iter().map(|h| (h.count, h.what.as_str())).collect();
    assert_eq!(
        history,
        [
            (2, "unschedulable: no nodes available to schedule pods"),
            (1, "assigned to n1"),
            (1, "preempted by default/q on n1"),
        ]
    );
    explainer.end(2);
    assert!(explainer.explain("default", "p").await.is_ok(), "another term's end");
    explainer.end(3);
    assert_eq!(explainer.explain("default", "p").await, Err(ExplainError::NotRunning));
}

#[tokio::test]
async fn what_is_not_recorded_is_asked() {
    let explainer = Explainer::default();
    let mut questions = explainer.begin(1);
    let answering = tokio::spawn(async move {
        let question = questions.recv().await.expect("a question");
        let known = question.name == "p";
        let answer = if known { Ok((key("p", "1"), bound("n1"))) } else { unreachable!() };
        question.answer.send(answer).expect("somebody waits");
        let question = questions.recv().await.expect("a question");
        let missing = ExplainError::NotFound(question.name.clone());
        question.answer.send(Err(missing)).expect("somebody waits");
    });
    let told = explainer.explain("default", "p").await.expect("it is answered");
    assert_eq!((told.decided_at, told.decision), (None, bound("n1")));
    let missing = explainer.explain("default", "q").await;
    assert_eq!(missing, Err(ExplainError::NotFound("q".into())));
    answering.await.expect("it ends");
}

#[test]
fn memory_is_bounded() {
    let explainer = Explainer::default();
    let _questions = explainer.begin(1);
    for n in 0..KEPT + 10 {
        explainer.decided(vec![(key(&format!("p{n}"), "1"), bound("n1"))]);
        explainer.happened(&key("p0", "1"), format!("{n}"));
    }
    let inner = explainer.inner.lock();
    assert_eq!((inner.records.len(), inner.order.len()), (KEPT, KEPT));
    let kept = |name: &str| inner.records.contains_key(&("default".to_owned(), name.to_owned()));
    assert!(kept("p0"), "it was written about last");
    assert!(!kept("p1"));
    let first = &inner.records[&("default".to_owned(), "p0".to_owned())];
    assert_eq!(first.history.len(), HISTORY);
}
