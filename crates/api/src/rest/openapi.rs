//! `/openapi/v3`: an index, and one document per group version.

use std::hash::{DefaultHasher, Hash as _, Hasher as _};

use axum::http::{HeaderMap, StatusCode};
use axum::response::Response;
use quorate_objects::Kind;
use quorate_objects::kinds::kinds;
use serde_json::{Map, Value, json};

use super::accept::Accept;
use super::discovery::versions;
use super::failure::{Failure, Result};
use super::render::respond;

/// `path` is what follows `/openapi/v3`.
pub(super) fn serve(path: &str, headers: &HeaderMap) -> Result<Response> {
    // Some clients accept only protobuf here, and take JSON.
    let accept = Accept::of(headers).unwrap_or_default();
    let value = match path.trim_matches('/').split('/').collect::<Vec<_>>().as_slice() {
        [""] => index(),
        ["api", version] => document("", version)?,
        ["apis", group, version] => document(group, version)?,
        _ => return Err(Failure::no_resource()),
    };
    respond(accept, StatusCode::OK, value.to_string().into_bytes())
}

fn base(group: &str, version: &str) -> String {
    if group.is_empty() { format!("api/{version}") } else { format!("apis/{group}/{version}") }
}

fn index() -> Value {
    let mut paths = Map::new();
    for (group, versions) in versions() {
        for version in versions {
            let Ok(document) = document(group, version) else { continue };
            let mut hasher = DefaultHasher::new();
            document.to_string().hash(&mut hasher);
            let path = base(group, version);
            let url = format!("/openapi/v3/{path}?hash={:016X}", hasher.finish());
            paths.insert(path, json!({"serverRelativeURL": url}));
        }
    }
    json!({"paths": paths})
}

fn document(group: &str, version: &str) -> Result<Value> {
    let own: Vec<&Kind> = kinds()
        .iter()
        .copied()
        .filter(|kind| kind.group == group && kind.version == version)
        .collect();
    if own.is_empty() {
        return Err(Failure::no_resource());
    }
    let mut paths = Map::new();
    let mut schemas = Map::new();
    for kind in own {
        let name = schema_name(kind);
        let gvk = gvk(kind);
        schemas.insert(
            name.clone(),
            json!({
                "type": "object", "x-kubernetes-group-version-kind": [gvk],
                "x-kubernetes-preserve-unknown-fields": true,
            }),
        );
        add_paths(&mut paths, kind, &gvk, &name);
    }
    Ok(json!({
        "openapi": "3.0.0",
        "info": {"title": "Quorate", "version": env!("CARGO_PKG_VERSION")},
        "paths": paths,
        "components": {"schemas": schemas},
    }))
}

fn gvk(kind: &Kind) -> Value {
    json!({"group": kind.group, "version": kind.version, "kind": kind.kind})
}

/// `io.k8s.api.apps.v1.Deployment`
fn schema_name(kind: &Kind) -> String {
    let group = match kind.group {
        "" => "core",
        group => group.split('.').next().unwrap_or(group),
    };
    format!("io.k8s.api.{group}.{}.{}", kind.version, kind.kind)
}

fn add_paths(paths: &mut Map<String, Value>, kind: &Kind, gvk: &Value, schema: &str) {
    let base = format!("/{}", base(kind.group, kind.version));
    let plural = kind.plural;
    let (place, scope) =
        if kind.namespaced { ("/namespaces/{namespace}", vec!["namespace"]) } else { ("", vec![]) };
    let collection = json!({
        "get": operation("list", gvk, schema, false),
        "post": operation("post", gvk, schema, true),
        "delete": operation("deletecollection", gvk, schema, false),
        "parameters": path_parameters(&scope),
    });
    let mut named = scope.clone();
    named.push("name");
    let object = json!({
        "get": operation("get", gvk, schema, false),
        "put": operation("put", gvk, schema, true),
        "patch": operation("patch", gvk, schema, true),
        "delete": operation("delete", gvk, schema, false),
        "parameters": path_parameters(&named),
    });
    paths.insert(format!("{base}{place}/{plural}/{{name}}"), object);
    paths.insert(format!("{base}{place}/{plural}"), collection);
    if kind.namespaced {
        let all = json!({"get": operation("list", gvk, schema, false)});
        paths.insert(format!("{base}/{plural}"), all);
    }
}

fn path_parameters(names: &[&str]) -> Vec<Value> {
    let one = |name: &&str| {
        json!({
            "name": name, "in": "path", "required": true,
            "schema": {"type": "string", "uniqueItems": true},
        })
    };
    names.iter().map(one).collect()
}

fn operation(action: &str, gvk: &Value, schema: &str, writes: bool) -> Value {
    let content = json!({"application/json": {
        "schema": {"$ref": format!("#/components/schemas/{schema}")},
    }});
    let mut operation = json!({
        "x-kubernetes-action": action,
        "x-kubernetes-group-version-kind": gvk,
        "responses": {"200": {"description": "OK", "content": content}},
    });
    if writes {
        let parameter = |name: &str, description: &str| {
            json!({
                "name": name, "in": "query", "description": description,
                "schema": {"type": "string", "uniqueItems": true},
            })
        };
        operation["parameters"] = json!([
            parameter("dryRun", "All: check everything, write nothing."),
            parameter("fieldManager", "Who makes this change."),
            parameter("fieldValidation", "What unknown fields cause: Ignore, Warn or Strict."),
        ]);
        if action != "patch" {
            operation["requestBody"] = json!({"required": true, "content": content});
        }
    }
    operation
}

#[cfg(test)]
#[path = "openapi_test.rs"]
mod tests;
