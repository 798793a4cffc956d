#![allow(clippy::unwrap_used, clippy::expect_used)]

use super::*;

fn labels(text: &str) -> BTreeMap<String, String> {
    let pairs = text.split(',').filter_map(|pair| pair.split_once('='));
    pairs.map(|(key, value)| (key.to_owned(), value.to_owned())).collect()
}

#[test]
fn label_selectors() {
    for (selector, yes, no) in [
        ("a=b", "a=b", "a=c"),
        ("a==b,c!=d", "a=b", "a=b,c=d"),
        ("a in (x, y)", "a=y", "a=z"),
        ("a notin (x,y)", "", "a=x"),
        ("a,!b", "a=1", "a=1,b=1"),
        ("example.com/a=b", "example.com/a=b", ""),
        ("a=", "a=", "a=b"),
    ] {
        let parsed = Selector::parse(selector).unwrap();
        assert!(parsed.matches(&labels(yes)), "{selector} {yes}");
        assert!(!parsed.matches(&labels(no)), "{selector} {no}");
        assert_eq!(Selector::parse(&parsed.to_string()).unwrap(), parsed, "{selector}");
    }
    assert!(Selector::parse("").unwrap().is_everything());
    for bad in ["a in x", "a in (x", "a,,b", "=b", "a b", "a=b c", "a)", "A/B/C=d"] {
        assert!(Selector::parse(bad).is_err(), "{bad}");
    }
}

#[test]
fn a_service_without_selector_selects_nothing() {
    assert!(!Selector::from_map(&BTreeMap::new()).matches(&labels("a=b")));
    assert!(Selector::from_label_selector(&LabelSelector::default()).unwrap().is_everything());
}

#[test]
fn field_selectors() {
    let parsed = FieldSelector::parse("metadata.name=a,spec.nodeName!=n").unwrap();
    let field = |path: &str| (path == "metadata.name").then_some("a");
    assert!(parsed.matches(field));
    assert!(!parsed.matches(|_| Some("n")));
    assert!(FieldSelector::parse("metadata.name").is_err());
}
