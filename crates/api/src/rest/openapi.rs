//! `/openapi/v3`: an index, and one document per group version.

use std::hash::{DefaultHasher, Hash as _, Hasher as _};

use axum::body::Body;
use axum::http::header::CONTENT_TYPE;
use axum::http::{HeaderMap, HeaderValue, StatusCode};
use axum::response::Response;
use quorate_objects::Kind;
use quorate_objects::kinds::kinds;
use schemars::generate::SchemaSettings;
use serde_json::{Map, Value, json};

use super::accept::{Accept, MediaType};
use super::discovery::{verbs, versions};
use super::failure::{Failure, Result};
use super::render::respond;
use super::versions::Version;

/// What kubectl before 1.28 asks for; it goes on when nothing is described.
const V2: &str = "application/com.github.proto-openapi.spec.v2@v1.0+protobuf";
/// The same in an answer: an at sign is not allowed there, and refused by Go.
const V2_ANSWER: &str = "application/com.github.proto-openapi.spec.v2.v1.0+protobuf";
/// A message with the fields swagger ("2.0") and info (title, version).
const V2_DOCUMENT: &[u8] = b"\x0a\x032.0\x12\x0d\x0a\x07Quorate\x12\x02v1";

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

/// `/openapi/v2`: an empty document.
pub(super) fn serve_v2(headers: &HeaderMap) -> Result<Response> {
    let protobuf =
        MediaType::accepted(headers).iter().any(|entry| [V2, V2_ANSWER].contains(&entry.essence));
    if !protobuf {
        let value = json!({
            "swagger": "2.0", "info": {"title": "Quorate", "version": "v1"}, "paths": {},
            "definitions": {},
        });
        let accept = Accept::of(headers)?;
        return respond(accept, StatusCode::OK, value.to_string().into_bytes());
    }
    let mut response = Response::new(Body::from(V2_DOCUMENT));
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(V2_ANSWER));
    Ok(response)
}

fn base(group: &str, version: &str) -> String {
    if group.is_empty() { format!("api/{version}") } else { format!("apis/{group}/{version}") }
}

/// Kinds of a group version, each with what makes its schema.
fn of_version(group: &str, version: &str) -> Vec<(&'static Kind, Option<Version>)> {
    let own = kinds().into_iter().filter(|kind| kind.version == version && kind.is_served());
    let others = Version::all().into_iter().filter(|one| one.version == version);
    let all = own.map(|kind| (kind, None)).chain(others.map(|one| (one.kind, Some(one))));
    all.filter(|(kind, _)| kind.group == group).collect()
}

/// Clients keep documents by the hash in their URL: it changes with the binary, with the kinds and
/// with the schemas of custom ones.
fn index() -> Value {
    let mut paths = Map::new();
    for (group, versions) in versions() {
        for version in versions.into_iter().filter(|version| !of_version(group, version).is_empty())
        {
            let mut hasher = DefaultHasher::new();
            env!("CARGO_PKG_VERSION").hash(&mut hasher);
            for (kind, other) in of_version(group, version) {
                kind.kind.hash(&mut hasher);
                let shown = other.map_or(kind, |other| other.shown);
                shown.structure().map(|schema| schema.to_string()).hash(&mut hasher);
            }
            let path = base(group, version);
            let url = format!("/openapi/v3/{path}?hash={:016X}", hasher.finish());
            paths.insert(path, json!({"serverRelativeURL": url}));
        }
    }
    json!({"paths": paths})
}

fn document(group: &str, version: &str) -> Result<Value> {
    let mut paths = Map::new();
    let mut generator = SchemaSettings::openapi3().into_generator();
    let mut named = Vec::new();
    for (kind, other) in of_version(group, version) {
        let schema = match other {
            Some(other) => other.schema(&mut generator),
            None => kind.schema(&mut generator),
        };
        add_paths(&mut paths, kind, version, schema.as_value());
        named.push((kind, schema));
    }
    if named.is_empty() {
        return Err(Failure::no_resource());
    }
    let mut schemas = generator.take_definitions(true);
    for (kind, schema) in named {
        let reference = schema.get("$ref").and_then(Value::as_str).unwrap_or_default();
        let name = reference.rsplit('/').next().unwrap_or_default();
        if let Some(definition) = schemas.get_mut(name) {
            // By this, and not by its name, clients find the schema of a kind.
            definition["x-kubernetes-group-version-kind"] = json!([gvk(kind, version)]);
        }
    }
    Ok(json!({
        "openapi": "3.0.0",
        "info": {"title": "Quorate", "version": env!("CARGO_PKG_VERSION")},
        "paths": paths,
        "components": {"schemas": schemas},
    }))
}

fn gvk(kind: &Kind, version: &str) -> Value {
    json!({"group": kind.group, "version": version, "kind": kind.kind})
}

fn add_paths(paths: &mut Map<String, Value>, kind: &Kind, version: &str, schema: &Value) {
    let gvk = &gvk(kind, version);
    let base = format!("/{}", base(kind.group, version));
    let plural = kind.plural;
    let (place, scope) =
        if kind.namespaced { ("/namespaces/{namespace}", vec!["namespace"]) } else { ("", vec![]) };
    let mut collection = json!({
        "get": operation("list", gvk, schema, false),
        "post": operation("post", gvk, schema, true),
        "parameters": path_parameters(&scope),
    });
    if verbs(kind).contains(&"deletecollection") {
        collection["delete"] = operation("deletecollection", gvk, schema, false);
    }
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

fn operation(action: &str, gvk: &Value, schema: &Value, writes: bool) -> Value {
    let content = json!({"application/json": {"schema": schema}});
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
