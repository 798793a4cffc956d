use super::*;

fn names(text: &str) -> Result<Vec<String>> {
    let args: Vec<String> = text.split_whitespace().map(str::to_owned).collect();
    let targets = parse(&args)?;
    Ok(targets
        .iter()
        .map(|t| {
            format!("{}{}", t.kind.plural, t.name.map(|n| format!("/{n}")).unwrap_or_default())
        })
        .collect())
}

#[test]
fn all_forms() {
    assert_eq!(names("pods").unwrap(), ["pods"]);
    assert_eq!(names("po,svc").unwrap(), ["pods", "services"]);
    assert_eq!(names("pods,po").unwrap(), ["pods"]);
    assert_eq!(names("deploy/web po/a").unwrap(), ["deployments/web", "pods/a"]);
    assert_eq!(names("pod a b").unwrap(), ["pods/a", "pods/b"]);
    assert_eq!(names("deployments.apps").unwrap(), ["deployments"]);
    let all = names("all").unwrap();
    assert!(all.contains(&"pods".to_owned()) && all.contains(&"deployments".to_owned()));
    assert!(!all.contains(&"nodes".to_owned()));
}

#[test]
fn mistakes() {
    let message = |text: &str| names(text).unwrap_err().to_string();
    assert_eq!(message("foo"), "error: the server doesn't have a resource type \"foo\"");
    assert!(message("pod deploy/web").contains("no need to specify a resource type"));
    assert!(message("pod/a/b").contains("more than one slash"));
    assert!(message("pod/").contains("both parts"));
    assert!(message("").contains("must specify the type"));
}

#[test]
fn references() {
    assert_eq!(reference(by_name("deploy").unwrap(), "web"), "deployment.apps/web");
    assert_eq!(reference(by_name("po").unwrap(), "a"), "pod/a");
}
