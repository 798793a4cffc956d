//! What is served: `/api`, `/apis` and below, plain and aggregated.

use std::cmp::Reverse;

use axum::http::header::CONTENT_TYPE;
use axum::http::{HeaderMap, HeaderValue, StatusCode};
use axum::response::Response;
use quorate_objects::{Kind, kinds};
use serde_json::{Value, json};

use super::accept::{Accept, MediaType};
use super::failure::{Failure, Result};
use super::metrics;
use super::render::respond;
use super::versions::Version;
use crate::auth::Review;

/// What can be done with nearly every kind.
const VERBS: &[&str] =
    &["create", "delete", "deletecollection", "get", "list", "patch", "update", "watch"];
/// With namespaces: nobody means to delete all of them, so they go one by one.
const NAMESPACE_VERBS: &[&str] = &["create", "delete", "get", "list", "patch", "update", "watch"];
const CREATE: &[&str] = &["create"];
const CONNECT: &[&str] = &["create", "get"];
const CHANGE: &[&str] = &["get", "patch", "update"];

/// What can be done with a kind.
pub(super) fn verbs(kind: &Kind) -> &'static [&'static str] {
    if *kind == kinds::NAMESPACE { NAMESPACE_VERBS } else { VERBS }
}

/// A resource or a subresource.
#[derive(Clone, Debug)]
pub(super) struct Served {
    pub group: &'static str,
    pub version: &'static str,
    /// `pods`
    pub resource: &'static str,
    /// `""` for the resource itself.
    pub subresource: &'static str,
    pub singular: &'static str,
    pub namespaced: bool,
    /// Group, version and kind of what is read and written.
    pub kind: (&'static str, &'static str, &'static str),
    pub verbs: &'static [&'static str],
    pub short_names: &'static [&'static str],
    pub categories: &'static [&'static str],
}

impl Served {
    fn of_pods(
        subresource: &'static str,
        kind: (&'static str, &'static str, &'static str),
        verbs: &'static [&'static str],
    ) -> Self {
        Self::part(("", "v1", "pods"), true, subresource, kind, verbs)
    }

    pub(super) fn part(
        (group, version, resource): (&'static str, &'static str, &'static str),
        namespaced: bool,
        subresource: &'static str,
        kind: (&'static str, &'static str, &'static str),
        verbs: &'static [&'static str],
    ) -> Self {
        let (short_names, categories): (&[&str], &[&str]) = (&[], &[]);
        Self {
            group,
            version,
            resource,
            subresource,
            singular: "",
            namespaced,
            kind,
            verbs,
            short_names,
            categories,
        }
    }

    fn name(&self) -> String {
        if self.subresource.is_empty() {
            self.resource.to_owned()
        } else {
            format!("{}/{}", self.resource, self.subresource)
        }
    }

    fn plain(&self) -> Value {
        let mut value = json!({
            "name": self.name(), "singularName": self.singular, "namespaced": self.namespaced,
            "kind": self.kind.2, "verbs": self.verbs,
        });
        if (self.kind.0, self.kind.1) != (self.group, self.version) {
            value["group"] = self.kind.0.into();
            value["version"] = self.kind.1.into();
        }
        if !self.short_names.is_empty() {
            value["shortNames"] = json!(self.short_names);
        }
        if !self.categories.is_empty() {
            value["categories"] = json!(self.categories);
        }
        value
    }

    fn response_kind(&self) -> Value {
        json!({"group": self.kind.0, "version": self.kind.1, "kind": self.kind.2})
    }
}

/// Everything that is served, in the order of the table of kinds.
pub(super) fn served() -> Vec<Served> {
    let mut all = Vec::new();
    for kind in kinds().into_iter().filter(|kind| kind.is_served()) {
        let own = (kind.group, kind.version, kind.kind);
        let place = (kind.group, kind.version, kind.plural);
        all.push(Served {
            singular: kind.singular,
            short_names: kind.short_names,
            categories: kind.categories,
            ..Served::part(place, kind.namespaced, "", own, verbs(kind))
        });
        if kind.has_status {
            all.push(Served::part(place, kind.namespaced, "status", own, CHANGE));
        }
        if kind.scale().is_some() {
            let scale = ("autoscaling", "v1", "Scale");
            all.push(Served::part(place, kind.namespaced, "scale", scale, CHANGE));
        }
    }
    all.extend(other_versions());
    all.extend(of_pods());
    let namespace = ("", "v1", "Namespace");
    all.push(Served::part(("", "v1", "namespaces"), false, "finalize", namespace, &["update"]));
    let token = ("authentication.k8s.io", "v1", "TokenRequest");
    all.push(Served::part(("", "v1", "serviceaccounts"), true, "token", token, CREATE));
    all.extend(Review::ALL.iter().map(|(review, group, resource, kind)| {
        let place = (*group, "v1", *resource);
        Served::part(place, review.namespaced(), "", (*group, "v1", *kind), CREATE)
    }));
    all.extend(metrics::served());
    all
}

fn other_versions() -> impl Iterator<Item = Served> {
    Version::all().into_iter().flat_map(|one| {
        let kind = one.kind;
        let place = (kind.group, one.version, kind.plural);
        let own = (kind.group, one.version, kind.kind);
        let mut all = vec![Served {
            singular: kind.singular,
            short_names: kind.short_names,
            categories: kind.categories,
            ..Served::part(place, kind.namespaced, "", own, verbs(kind))
        }];
        if kind.has_status {
            all.push(Served::part(place, kind.namespaced, "status", own, CHANGE));
        }
        all
    })
}

fn of_pods() -> Vec<Served> {
    vec![
        Served::of_pods("attach", ("", "v1", "PodAttachOptions"), CONNECT),
        Served::of_pods("exec", ("", "v1", "PodExecOptions"), CONNECT),
        Served::of_pods("portforward", ("", "v1", "PodPortForwardOptions"), CONNECT),
        Served::of_pods("ephemeralcontainers", ("", "v1", "Pod"), CHANGE),
        Served::of_pods("log", ("", "v1", "Pod"), &["get"]),
        Served::of_pods("binding", ("", "v1", "Binding"), CREATE),
        Served::of_pods("eviction", ("policy", "v1", "Eviction"), CREATE),
    ]
}

/// `v2` comes before `v1`, and that before `v1beta1`.
fn rank(version: &str) -> (u8, u32, u32) {
    let number = |text: &str| text.parse().unwrap_or(0);
    let rest = version.trim_start_matches('v');
    for (stability, word) in [(1, "beta"), (0, "alpha")] {
        if let Some((major, minor)) = rest.split_once(word) {
            return (stability, number(major), number(minor));
        }
    }
    (2, number(rest), 0)
}

/// Groups with their versions, the preferred one first; the core group has no name.
pub(super) fn versions() -> Vec<(&'static str, Vec<&'static str>)> {
    let mut groups: Vec<(&str, Vec<&str>)> = Vec::new();
    for one in served() {
        match groups.iter_mut().find(|(group, _)| *group == one.group) {
            Some((_, versions)) if versions.contains(&one.version) => {}
            Some((_, versions)) => versions.push(one.version),
            None => groups.push((one.group, vec![one.version])),
        }
    }
    for (_, versions) in &mut groups {
        versions.sort_by_key(|version| Reverse(rank(version)));
    }
    groups
}

pub(super) fn core(headers: &HeaderMap) -> Result<Response> {
    if let Some(version) = aggregated(headers) {
        return aggregate(version, true);
    }
    let value = json!({
        "kind": "APIVersions", "versions": ["v1"],
        "serverAddressByClientCIDRs": [],
    });
    answer(headers, &value)
}

pub(super) fn groups(headers: &HeaderMap) -> Result<Response> {
    if let Some(version) = aggregated(headers) {
        return aggregate(version, false);
    }
    let groups = versions();
    let groups = groups.iter().filter(|(group, _)| !group.is_empty());
    let groups: Vec<Value> = groups.map(|(group, versions)| group_json(group, versions)).collect();
    answer(headers, &json!({"kind": "APIGroupList", "apiVersion": "v1", "groups": groups}))
}

pub(super) fn group(headers: &HeaderMap, wanted: &str) -> Result<Response> {
    let groups = versions();
    let found = groups.iter().find(|(group, _)| *group == wanted && !group.is_empty());
    let (group, versions) = found.ok_or_else(Failure::no_resource)?;
    let mut value = group_json(group, versions);
    value["kind"] = "APIGroup".into();
    value["apiVersion"] = "v1".into();
    answer(headers, &value)
}

fn group_json(group: &str, versions: &[&str]) -> Value {
    let version =
        |version: &&str| json!({"groupVersion": format!("{group}/{version}"), "version": version});
    let versions: Vec<Value> = versions.iter().map(version).collect();
    json!({"name": group, "preferredVersion": versions.first(), "versions": versions})
}

pub(super) fn resources(headers: &HeaderMap, group: &str, version: &str) -> Result<Response> {
    let all = served();
    let own: Vec<Value> = all
        .iter()
        .filter(|one| one.group == group && one.version == version)
        .map(Served::plain)
        .collect();
    if own.is_empty() {
        return Err(Failure::no_resource());
    }
    let group_version =
        if group.is_empty() { version.to_owned() } else { format!("{group}/{version}") };
    let value = json!({
        "kind": "APIResourceList", "apiVersion": "v1", "groupVersion": group_version,
        "resources": own,
    });
    answer(headers, &value)
}

/// The version of aggregated discovery that the client prefers to the plain one.
fn aggregated(headers: &HeaderMap) -> Option<&'static str> {
    for entry in MediaType::accepted(headers) {
        if entry.essence != "application/json" {
            continue;
        }
        match (entry.param("as"), entry.param("g"), entry.param("v")) {
            ("APIGroupDiscoveryList", "apidiscovery.k8s.io", "v2") => return Some("v2"),
            ("APIGroupDiscoveryList", "apidiscovery.k8s.io", "v2beta1") => return Some("v2beta1"),
            ("", _, _) => return None,
            _ => {}
        }
    }
    None
}

fn aggregate(version: &str, core: bool) -> Result<Response> {
    let all = served();
    let groups = versions();
    let items: Vec<Value> = groups
        .iter()
        .filter(|(group, _)| group.is_empty() == core)
        .map(|(group, versions)| {
            let versions: Vec<Value> = versions
                .iter()
                .map(|version| {
                    json!({
                        "version": version, "freshness": "Current",
                        "resources": aggregate_resources(&all, group, version),
                    })
                })
                .collect();
            let name = if group.is_empty() { json!({}) } else { json!({"name": group}) };
            json!({"metadata": name, "versions": versions})
        })
        .collect();
    let value = json!({
        "kind": "APIGroupDiscoveryList", "apiVersion": format!("apidiscovery.k8s.io/{version}"),
        "metadata": {}, "items": items,
    });
    let mut response = respond(Accept::default(), StatusCode::OK, value.to_string().into_bytes())?;
    let media =
        format!("application/json;g=apidiscovery.k8s.io;v={version};as=APIGroupDiscoveryList");
    let media = HeaderValue::from_str(&media).map_err(Failure::internal)?;
    response.headers_mut().insert(CONTENT_TYPE, media);
    Ok(response)
}

fn aggregate_resources(all: &[Served], group: &str, version: &str) -> Vec<Value> {
    let own: Vec<&Served> =
        all.iter().filter(|one| one.group == group && one.version == version).collect();
    own.iter()
        .filter(|one| one.subresource.is_empty())
        .map(|one| {
            let parts: Vec<Value> = own
                .iter()
                .filter(|part| part.resource == one.resource && !part.subresource.is_empty())
                .map(|part| {
                    json!({
                        "subresource": part.subresource, "verbs": part.verbs,
                        "responseKind": part.response_kind(),
                    })
                })
                .collect();
            let scope = if one.namespaced { "Namespaced" } else { "Cluster" };
            let mut value = json!({
                "resource": one.resource, "responseKind": one.response_kind(), "scope": scope,
                "singularResource": one.singular, "verbs": one.verbs,
            });
            for (field, list) in [("shortNames", one.short_names), ("categories", one.categories)] {
                if !list.is_empty() {
                    value[field] = json!(list);
                }
            }
            if !parts.is_empty() {
                value["subresources"] = parts.into();
            }
            value
        })
        .collect()
}

fn answer(headers: &HeaderMap, value: &Value) -> Result<Response> {
    // Clients that ask for the aggregated form only in versions that we do not have take this.
    let accept = Accept::of(headers).unwrap_or_default();
    respond(accept, StatusCode::OK, value.to_string().into_bytes())
}

#[cfg(test)]
#[path = "discovery_test.rs"]
mod tests;
