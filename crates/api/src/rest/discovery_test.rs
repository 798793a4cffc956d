use super::*;

#[test]
fn every_kind_is_discovered_in_both_forms() {
    let all = served();
    for kind in kinds::builtin() {
        let one = all.iter().find(|one| one.resource == kind.plural && one.group == kind.group);
        assert_eq!(one.unwrap().singular, kind.singular);
        let aggregate = aggregate_resources(&all, kind.group, kind.version);
        assert!(aggregate.iter().any(|one| one["resource"] == kind.plural), "{kind}");
    }
    let pods = aggregate_resources(&all, "", "v1");
    let pods = pods.iter().find(|one| one["resource"] == "pods").unwrap();
    let parts: Vec<_> = pods["subresources"].as_array().unwrap().iter().collect();
    assert!(parts.iter().any(|part| part["subresource"] == "status"));
    assert!(parts.iter().any(|part| part["responseKind"]["kind"] == "Eviction"));
}

#[test]
fn namespaces_are_deleted_one_by_one() {
    let all = served();
    let of = |resource: &str| {
        let one = all.iter().find(|one| one.resource == resource && one.subresource.is_empty());
        one.unwrap().verbs
    };
    assert!(of("namespaces").contains(&"delete"));
    assert!(!of("namespaces").contains(&"deletecollection"));
    assert!(of("nodes").contains(&"deletecollection"));
}

#[test]
fn stable_versions_come_first() {
    let mut versions = vec!["v1beta1", "v1", "v2alpha1", "v2", "v1beta2"];
    versions.sort_by_key(|version| Reverse(rank(version)));
    assert_eq!(versions, ["v2", "v1", "v1beta2", "v1beta1", "v2alpha1"]);
}

#[test]
fn the_aggregated_form_is_chosen_by_the_header() {
    let choose = |text: &'static str| {
        let mut headers = HeaderMap::new();
        headers.insert(axum::http::header::ACCEPT, HeaderValue::from_static(text));
        aggregated(&headers)
    };
    let kubectl = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList,\
                   application/json;g=apidiscovery.k8s.io;v=v2beta1;as=APIGroupDiscoveryList,\
                   application/json";
    assert_eq!(choose(kubectl), Some("v2"));
    assert_eq!(choose("application/json"), None);
    assert_eq!(choose("*/*"), None);
}
