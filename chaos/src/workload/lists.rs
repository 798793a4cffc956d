//! An object that holds a growing list: an append is a compare-and-set of the whole.

use quorate_client::WriteOptions;
use rand::Rng;

use super::{Answer, NAMESPACE, Worker, config_map, config_map_kind};
use crate::linear::{ListInput, ListOutput};

pub(super) async fn step(worker: &mut Worker) {
    let list = worker.book.key("list");
    let found = read(worker, list.clone()).await;
    if let (Some((elements, revision)), true) = (found, worker.random.random_bool(0.6)) {
        append(worker, list, elements, revision).await;
    }
}

/// The elements and the revision, 0 when there is nothing; `None` without an answer.
async fn read(worker: &Worker, list: String) -> Option<(Vec<u64>, u64)> {
    let call = worker.client.get(config_map_kind(), NAMESPACE, &list);
    let (sent, answered, answer) = worker.ask(call).await;
    let (elements, revision) = match answer {
        Answer::Done(object) => {
            let text = object.value.pointer("/data/elements").and_then(|text| text.as_str());
            let elements = text.unwrap_or_default().split(',');
            (elements.filter_map(|element| element.parse().ok()).collect(), object.revision)
        }
        Answer::Missing => (Vec::new(), 0),
        _ => return None,
    };
    let output = Some(ListOutput::Elements(elements.clone()));
    worker.push(&worker.book.lists, (sent, answered), ListInput::Read { list }, output);
    Some((elements, revision))
}

async fn append(worker: &Worker, list: String, mut elements: Vec<u64>, revision: u64) {
    let element = worker.book.value();
    elements.push(element);
    let text: Vec<String> = elements.iter().map(u64::to_string).collect();
    let mut object = config_map(&list, "list", element, Some(text.join(",")));
    let options = WriteOptions::default();
    let call = async {
        let written = if revision == 0 {
            worker.client.create(&object, &options).await?
        } else {
            object["metadata"]["resourceVersion"] = revision.to_string().into();
            worker.client.update(&object, &options).await?
        };
        Ok(written.revision)
    };
    let (sent, answered, answer) = worker.ask(call).await;
    worker.book.note(&list, Some(element), &answer);
    let output = match answer {
        Answer::Done(_) => Some(ListOutput::Done),
        Answer::Unknown => None,
        // Somebody else was quicker: nothing was appended.
        Answer::Conflict | Answer::Missing | Answer::Refused(_) => return,
    };
    let input = ListInput::Append { list, element };
    worker.push(&worker.book.lists, (sent, answered), input, output);
}
