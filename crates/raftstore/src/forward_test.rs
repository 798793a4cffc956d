#![allow(clippy::unwrap_used, clippy::expect_used)]

use quorate_store::TxnRequest;

use super::*;

#[test]
fn the_leaders_time_wins() {
    let mut command = Command::from(TxnRequest::put("k", "v"));
    command.time_ms = 1;
    let stamped = stamp(&command.encode_to_vec().into());
    let decoded = Command::decode(stamped).unwrap();
    assert!(decoded.time_ms > 1_600_000_000_000, "{}", decoded.time_ms);
    command.time_ms = decoded.time_ms;
    assert_eq!(decoded, command);
}

#[test]
fn unknown_operations_are_refused_before_the_log() {
    let command = Command::from(TxnRequest::put("k", "v"));
    assert!(check(&command.encode_to_vec().into()).is_ok());

    let mut newer = BytesMut::from(command.encode_to_vec().as_slice());
    prost::encoding::uint64::encode(900, &1, &mut newer);
    assert!(matches!(check(&newer.freeze()), Err(Refusal::Invalid(_))));
    assert!(matches!(check(&Bytes::new()), Err(Refusal::Invalid(_))));
    // Of a newer enum only the number is there.
    let mut read = quorate_store::RangeRequest { sort_order: 900, ..Default::default() };
    read.range.key = "k".into();
    let newer = TxnRequest {
        success: vec![quorate_store::Op::Range(read).into()],
        ..TxnRequest::default()
    };
    let newer = Command::from(newer).encode_to_vec().into();
    assert!(matches!(check(&newer), Err(Refusal::Invalid(_))));
}
