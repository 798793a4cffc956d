use super::*;

fn query(text: &str) -> Query {
    Query::of(&format!("/x?{text}").parse().unwrap())
}

#[test]
fn parameters_are_decoded() {
    let q = query("labelSelector=a%3Db%2Cc&limit=500&watch&command=ls&command=-l");
    assert_eq!(q.get("labelSelector"), Some("a=b,c"));
    assert_eq!(q.parse::<u64>("limit", "number").unwrap(), Some(500));
    assert!(q.flag("watch").unwrap() && !q.flag("follow").unwrap());
    assert_eq!(q.all("command").collect::<Vec<_>>(), ["ls", "-l"]);
}

#[test]
fn wrong_parameters_are_named() {
    let error = query("limit=x").parse::<u64>("limit", "number").unwrap_err();
    assert!(error.message.contains("limit") && error.message.contains("\"x\""), "{error:?}");
    let error = query("watch=maybe").flag("watch").unwrap_err();
    assert!(error.message.contains("watch"), "{error:?}");
    let error = query("dryRun=Some").dry_run("CreateOptions").unwrap_err();
    assert!(error.message.contains("supported values: \"All\""), "{error:?}");
    let error = query("fieldValidation=x").validation().unwrap_err();
    assert_eq!(error.code.as_u16(), 422);
    assert!(query("labelSelector=a%20in").selectors().is_err());
}

#[test]
fn dry_run_and_validation_have_defaults() {
    assert!(!query("").dry_run("x").unwrap() && query("dryRun=All").dry_run("x").unwrap());
    assert_eq!(query("").validation().unwrap(), Validation::Warn);
}
