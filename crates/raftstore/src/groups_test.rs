use super::*;

#[test]
fn a_parcel_is_no_larger_than_an_entry() {
    let sizes = |commands: Vec<Bytes>| {
        let parts = split(commands);
        parts.iter().map(|part| (part.len(), size(part))).collect::<Vec<_>>()
    };
    let of = |size: usize| Bytes::from(vec![0; size]);
    assert_eq!(sizes(Vec::new()), []);
    assert_eq!(sizes(vec![of(1); ENTRY_COMMANDS + 1]), [(ENTRY_COMMANDS, ENTRY_COMMANDS), (1, 1)]);
    let half = ENTRY_BYTES / 2;
    assert_eq!(sizes(vec![of(half); 3]), [(2, 2 * half), (1, half)]);
    // A command alone may have more.
    assert_eq!(
        sizes(vec![of(1), of(2 * ENTRY_BYTES), of(1)]),
        [(1, 1), (1, 2 * ENTRY_BYTES), (1, 1)]
    );
}
