//! Objects as registers: read, create, write, compare-and-set, delete.

use quorate_client::{DeleteOptions, WriteOptions};
use rand::Rng;

use super::{Answer, NAMESPACE, Worker, config_map, config_map_kind, value_of};
use crate::linear::{RegisterInput, RegisterOutput, Versioned};

pub(super) async fn step(worker: &mut Worker) {
    let key = worker.book.key("register");
    match worker.random.random_range(0..100) {
        0..40 => drop(read(worker, key).await),
        40..60 => write(worker, key).await,
        60..75 => create(worker, key).await,
        75..95 => {
            if let Some(found) = read(worker, key.clone()).await {
                compare_and_set(worker, key, found.revision).await;
            }
        }
        _ => delete(worker, key).await,
    }
}

async fn read(worker: &Worker, key: String) -> Option<Versioned> {
    let call = worker.client.get(config_map_kind(), NAMESPACE, &key);
    let (sent, answered, answer) = worker.ask(call).await;
    let found = match answer {
        Answer::Done(object) => Some(Versioned {
            value: value_of(&object.value).unwrap_or_default(),
            revision: object.revision,
        }),
        Answer::Missing => None,
        // Without an answer a read says nothing.
        _ => return None,
    };
    let history = &worker.book.registers;
    let output = Some(RegisterOutput::Found(found));
    worker.push(history, (sent, answered), RegisterInput::Read { key }, output);
    found
}

async fn create(worker: &Worker, key: String) {
    let value = worker.book.value();
    let object = config_map(&key, "register", value, None);
    let options = WriteOptions::default();
    let call = async { Ok(worker.client.create(&object, &options).await?.revision) };
    record(worker, call, &key.clone(), value, RegisterInput::Create { key, value }).await;
}

async fn write(worker: &Worker, key: String) {
    let value = worker.book.value();
    let object = config_map(&key, "register", value, None);
    let options = WriteOptions::default();
    let call = async { Ok(worker.client.update(&object, &options).await?.revision) };
    record(worker, call, &key.clone(), value, RegisterInput::Write { key, value }).await;
}

async fn compare_and_set(worker: &Worker, key: String, expected: u64) {
    let value = worker.book.value();
    let mut object = config_map(&key, "register", value, None);
    object["metadata"]["resourceVersion"] = expected.to_string().into();
    let options = WriteOptions::default();
    let call = async { Ok(worker.client.update(&object, &options).await?.revision) };
    let input = RegisterInput::CompareAndSet { key: key.clone(), expected, value };
    record(worker, call, &key, value, input).await;
}

async fn delete(worker: &Worker, key: String) {
    let options = DeleteOptions::default();
    let call = async {
        let deleted = worker.client.delete(config_map_kind(), NAMESPACE, &key, &options).await?;
        Ok(deleted.object.revision)
    };
    let (sent, answered, answer) = worker.ask(call).await;
    worker.book.note(&key, None, &answer);
    let output = match answer {
        Answer::Done(_) => Some(RegisterOutput::Deleted),
        Answer::Missing => Some(RegisterOutput::Missing),
        Answer::Unknown => None,
        Answer::Conflict | Answer::Refused(_) => return,
    };
    let history = &worker.book.registers;
    worker.push(history, (sent, answered), RegisterInput::Delete { key }, output);
}

async fn record(
    worker: &Worker,
    call: impl Future<Output = Result<u64, quorate_client::ClientError>>,
    key: &str,
    value: u64,
    input: RegisterInput,
) {
    let (sent, answered, answer) = worker.ask(call).await;
    worker.book.note(key, Some(value), &answer);
    let output = match answer {
        Answer::Done(revision) => Some(RegisterOutput::Written(revision)),
        Answer::Conflict => Some(RegisterOutput::Mismatch),
        Answer::Missing => Some(RegisterOutput::Missing),
        Answer::Unknown => None,
        Answer::Refused(_) => return,
    };
    worker.push(&worker.book.registers, (sent, answered), input, output);
}
