use super::*;

#[test]
fn every_patch_takes_field_validation() {
    // What kubectl looks for before it creates or applies anything.
    for kind in quorate_objects::kinds::builtin() {
        let document = document(kind.group, kind.version).unwrap();
        let paths = document["paths"].as_object().unwrap();
        let patch = paths
            .values()
            .map(|path| &path["patch"])
            .find(|patch| patch["x-kubernetes-group-version-kind"] == gvk(kind, kind.version));
        let parameters = patch.unwrap()["parameters"].as_array().unwrap();
        assert!(parameters.iter().any(|one| one["name"] == "fieldValidation"), "{kind}");
    }
}

#[test]
fn namespaces_are_deleted_one_by_one() {
    let paths = document("", "v1").unwrap()["paths"].take();
    assert!(paths["/api/v1/namespaces"]["post"].is_object());
    assert!(paths["/api/v1/namespaces"]["delete"].is_null());
    assert!(paths["/api/v1/namespaces/{name}"]["delete"].is_object());
    assert!(paths["/api/v1/nodes"]["delete"].is_object());
}

#[test]
fn the_index_names_every_document() {
    let index = index();
    let url = index["paths"]["apis/apps/v1"]["serverRelativeURL"].as_str().unwrap();
    assert!(url.starts_with("/openapi/v3/apis/apps/v1?hash="), "{url}");
    assert!(document("apps", "v2").is_err());
}

#[test]
fn schemas_are_described_and_complete() {
    let document = document("apps", "v1").unwrap();
    let schemas = document["components"]["schemas"].as_object().unwrap();
    let deployment = &schemas["io.k8s.api.apps.v1.Deployment"];
    assert_eq!(deployment["x-kubernetes-group-version-kind"][0]["kind"], "Deployment");
    let spec = &schemas["io.k8s.api.apps.v1.DeploymentSpec"]["properties"];
    assert_eq!(spec["replicas"]["type"], "integer");
    assert!(spec["replicas"]["description"].as_str().unwrap().contains("desired pods"));
    // Every reference leads somewhere.
    let text = document.to_string();
    for part in text.split("#/components/schemas/").skip(1) {
        let name = part.split('"').next().unwrap();
        assert!(schemas.contains_key(name), "{name}");
    }
}
