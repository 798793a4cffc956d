#![allow(clippy::unwrap_used)]

use super::*;

fn entry(commands: Vec<Bytes>) -> Entry {
    Entry { log_id: log_id(3, 7), payload: Payload::Normal(Proposal(commands)) }
}

#[test]
fn an_entry_keeps_all_its_commands() {
    let commands = vec![Bytes::from_static(b"one"), Bytes::new(), Bytes::from_static(b"three")];
    let bytes = entry_to(&entry(commands.clone())).encode_to_vec();
    let decoded = decode_entry(bytes.into()).unwrap();
    assert_eq!(decoded.log_id, log_id(3, 7));
    assert!(matches!(decoded.payload, Payload::Normal(Proposal(found)) if found == commands));
}

#[test]
fn a_log_with_one_command_for_each_entry_can_still_be_read() {
    let command = Bytes::from_static(b"one");
    let payload = Some(pb::entry::Payload::Command(command.clone()));
    let bytes = pb::Entry { term: 3, index: 7, payload }.encode_to_vec();
    let decoded = decode_entry(bytes.into()).unwrap();
    assert!(matches!(decoded.payload, Payload::Normal(Proposal(found)) if found == [command]));
}
