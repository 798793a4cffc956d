//! Objects with one label as a set: creations, deletions, and lists by label.

use std::collections::BTreeSet;

use quorate_client::{DeleteOptions, ListOptions, WriteOptions};
use rand::Rng;
use rand::seq::IteratorRandom as _;

use super::{Answer, LABEL, NAMESPACE, Worker, config_map, config_map_kind, value_of};
use crate::linear::{SetInput, SetOutput};

pub(super) async fn step(worker: &mut Worker) {
    let set = worker.book.key("set");
    match worker.random.random_range(0..100) {
        0..45 => add(worker, set).await,
        45..85 => drop(read(worker, set).await),
        _ => {
            let elements = read(worker, set.clone()).await;
            if let Some(element) = elements.into_iter().choose(&mut worker.random) {
                remove(worker, set, element).await;
            }
        }
    }
}

fn name(set: &str, element: u64) -> String {
    format!("{set}-{element}")
}

async fn add(worker: &Worker, set: String) {
    let element = worker.book.value();
    let name = name(&set, element);
    let object = config_map(&name, &set, element, None);
    let options = WriteOptions::default();
    let call = async { Ok(worker.client.create(&object, &options).await?.revision) };
    let (sent, answered, answer) = worker.ask(call).await;
    worker.book.note(&name, Some(element), &answer);
    let output = match answer {
        Answer::Done(_) => Some(SetOutput::Done),
        // Names are unique: it can only be there by our own doing.
        Answer::Conflict => Some(SetOutput::Unchanged),
        Answer::Unknown => None,
        Answer::Missing | Answer::Refused(_) => return,
    };
    let input = SetInput::Add { set, element };
    worker.push(&worker.book.sets, (sent, answered), input, output);
}

async fn remove(worker: &Worker, set: String, element: u64) {
    let name = name(&set, element);
    let options = DeleteOptions::default();
    let call = async {
        let deleted = worker.client.delete(config_map_kind(), NAMESPACE, &name, &options).await?;
        Ok(deleted.object.revision)
    };
    let (sent, answered, answer) = worker.ask(call).await;
    worker.book.note(&name, None, &answer);
    let output = match answer {
        Answer::Done(_) => Some(SetOutput::Done),
        Answer::Missing => Some(SetOutput::Unchanged),
        Answer::Unknown => None,
        Answer::Conflict | Answer::Refused(_) => return,
    };
    let input = SetInput::Remove { set, element };
    worker.push(&worker.book.sets, (sent, answered), input, output);
}

async fn read(worker: &Worker, set: String) -> BTreeSet<u64> {
    let options = ListOptions {
        namespace: NAMESPACE.to_owned(),
        labels: format!("{LABEL}={set}"),
        ..ListOptions::default()
    };
    let call = worker.client.list(config_map_kind(), &options);
    let (sent, answered, answer) = worker.ask(call).await;
    let Answer::Done(list) = answer else { return BTreeSet::new() };
    let elements: BTreeSet<u64> =
        list.items.iter().filter_map(|object| value_of(&object.value)).collect();
    let output = Some(SetOutput::Elements(elements.clone()));
    worker.push(&worker.book.sets, (sent, answered), SetInput::Read { set }, output);
    elements
}
