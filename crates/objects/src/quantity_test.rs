#![allow(clippy::unwrap_used, clippy::expect_used)]

use proptest::prelude::*;

use super::*;

fn units(text: &str) -> i64 {
    Quantity::parse(text).unwrap().units()
}

fn millis(text: &str) -> i64 {
    Quantity::parse(text).unwrap().millis()
}

#[test]
fn suffixes() {
    let kib = 1024;
    for (text, want) in [
        ("0", 0),
        ("12", 12),
        ("+1", 1),
        ("1k", 1000),
        ("1Ki", kib),
        ("1.5Gi", 3 * kib * kib * kib / 2),
        (".5Ki", 512),
        ("5.", 5),
        ("1e3", 1000),
        ("1E3", 1000),
        ("1e-1", 1),
        ("1E", 1_000_000_000_000_000_000),
        ("2Ei", 2 << 60),
        ("12E", i64::MAX),
        ("1e400", i64::MAX),
        ("-1Ki", -kib),
        ("100000000000000000000000000000000000000000", i64::MAX),
    ] {
        assert_eq!(units(text), want, "{text}");
    }
    for (text, want) in [("100m", 100), ("1.5", 1500), ("0.0001", 1), ("1u", 1), ("1n", 1)] {
        assert_eq!(millis(text), want, "{text}");
    }
}

#[test]
fn rounds_away_from_zero() {
    assert_eq!(units("100m"), 1);
    assert_eq!(units("-100m"), -1);
    assert_eq!(units("1.0000000001"), 2);
    assert_eq!(units("0.0000000000000000000000000000000000000000000000001"), 1);
    assert_eq!(units("1000m"), 1);
}

#[test]
fn refuses_what_is_no_quantity() {
    for text in
        ["", "-", ".", "1.2.3", "Ki", "1 Gi", "1gi", "1KI", "1e", "1e+", "e3", "0x1", "1ee3"]
    {
        assert!(Quantity::parse(text).is_err(), "{text}");
    }
}

proptest! {
    #[test]
    fn never_panics(text in "[-+]?[0-9.]{0,40}(Ki|E|e[0-9]{1,10}|e-[0-9]{1,10}|m|n)?") {
        let _ = Quantity::parse(&text);
    }

    #[test]
    fn millis_and_display_round_trip(millis in any::<i32>()) {
        let quantity = Quantity::from_millis(millis.into());
        prop_assert_eq!(quantity.millis(), i64::from(millis));
        prop_assert_eq!(Quantity::parse(&quantity.to_string()).unwrap(), quantity);
    }

    #[test]
    fn bytes_round_trip(value in any::<u32>()) {
        let text = from_bytes(value.into());
        prop_assert_eq!(bytes(&text), i64::from(value));
    }

    #[test]
    fn decimal_is_exact(whole in 0_i64..1_000_000, thousandths in 0_i64..1000) {
        let text = format!("{whole}.{thousandths:03}");
        prop_assert_eq!(Quantity::parse(&text).unwrap().millis(), whole * 1000 + thousandths);
    }

    #[test]
    fn order_is_that_of_numbers(a in 0_u32..1_000_000, b in 0_u32..1_000_000) {
        let parse = |n: u32| Quantity::parse(&format!("{n}Ki")).unwrap();
        prop_assert_eq!(parse(a).cmp(&parse(b)), a.cmp(&b));
    }
}
