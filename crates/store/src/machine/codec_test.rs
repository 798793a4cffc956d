#![allow(clippy::unwrap_used, clippy::expect_used)]

use proptest::prelude::*;

use super::*;

fn key() -> impl Strategy<Value = Vec<u8>> {
    proptest::collection::vec(prop_oneof![Just(0u8), Just(1), Just(0xfe), Just(0xff)], 0..5)
}

proptest! {
    #[test]
    fn index_keys_sort_as_key_then_moment(
        a in key(), b in key(),
        ra in 0u64..3, rb in 0u64..3, sa in 0u32..3, sb in 0u32..3,
    ) {
        let (ma, mb) = (Moment { revision: ra, sub: sa }, Moment { revision: rb, sub: sb });
        let expected = (&a, ma).cmp(&(&b, mb));
        prop_assert_eq!(index_key(&a, ma).cmp(&index_key(&b, mb)), expected);
    }

    #[test]
    fn index_keys_give_back_what_they_were_made_of(a in key(), revision: u64, sub: u32) {
        let moment = Moment { revision, sub };
        let encoded = index_key(&a, moment);
        let (prefix, decoded) = split_index_key(&encoded).unwrap();
        prop_assert_eq!(decoded, moment);
        let unescaped = unescape(prefix).unwrap();
        prop_assert_eq!(unescaped.as_ref(), a.as_slice());
    }

    #[test]
    fn damaged_bytes_are_errors_not_panics(bytes in proptest::collection::vec(any::<u8>(), 0..64)) {
        let _ = Change::decode(&bytes);
        let _ = split_record(&bytes);
        let _ = split_index_key(&bytes).map(|(prefix, _)| unescape(prefix));
    }
}

#[test]
fn records_survive_the_encoding() {
    let kv = KeyValue {
        key: "k".into(),
        create_revision: 3,
        mod_revision: u64::MAX,
        version: 7,
        value: "value".into(),
        lease: -4,
    };
    let record = encode_record(&kv);
    assert_eq!(decode_record("k".into(), &record).unwrap(), kv);
    assert_eq!(copy_record(b"k", &record, true).unwrap(), kv);
    let change = Change { kind: EventType::Put, key: b"k", record: &record }.encode();
    assert_eq!(Change::decode(&change).unwrap().to_kv(1).unwrap(), kv);
}
