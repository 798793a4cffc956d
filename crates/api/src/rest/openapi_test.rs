use super::*;

#[test]
fn every_patch_takes_field_validation() {
    // What kubectl looks for before it creates or applies anything.
    for kind in kinds() {
        let document = document(kind.group, kind.version).unwrap();
        let paths = document["paths"].as_object().unwrap();
        let patch = paths
            .values()
            .map(|path| &path["patch"])
            .find(|patch| patch["x-kubernetes-group-version-kind"] == gvk(kind));
        let parameters = patch.unwrap()["parameters"].as_array().unwrap();
        assert!(parameters.iter().any(|one| one["name"] == "fieldValidation"), "{kind}");
    }
}

#[test]
fn the_index_names_every_document() {
    let index = index();
    let url = index["paths"]["apis/apps/v1"]["serverRelativeURL"].as_str().unwrap();
    assert!(url.starts_with("/openapi/v3/apis/apps/v1?hash="), "{url}");
    assert!(document("apps", "v2").is_err());
}
