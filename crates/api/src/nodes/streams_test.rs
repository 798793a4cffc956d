use k8s_openapi::api::core::v1::{Container, PodSpec};

use super::*;

fn pod(containers: &[&str]) -> Pod {
    let container = |name: &&str| Container { name: (*name).into(), ..Container::default() };
    let containers = containers.iter().map(container).collect();
    Pod { spec: Some(PodSpec { containers, ..PodSpec::default() }), ..Pod::default() }
}

#[test]
fn the_only_container_needs_no_name_and_several_are_named() {
    assert_eq!(choose(&pod(&["a"]), "p", "").unwrap(), "a");
    let several = choose(&pod(&["a", "b"]), "p", "").unwrap_err();
    assert!(several.message().contains("a, b"), "{several}");
    assert_eq!(choose(&pod(&["a", "b"]), "p", "b").unwrap(), "b");
    let missing = choose(&pod(&["a", "b"]), "p", "c").unwrap_err();
    assert_eq!(missing.code(), Code::NotFound);
    assert!(missing.message().contains("a, b"), "{missing}");
}
