//! What a request asks for: its path and method taken apart.

use axum::http::{Method, Uri};
use percent_encoding::percent_decode_str;
use quorate_objects::{FieldSelector, kinds};

use super::failure::{Failure, Result};
use super::query::Query;
use crate::auth::{Attributes, judged_in};

/// A request for a resource, in the words in which it is authorised.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct ResourceRequest {
    /// `get`, `list`, `watch`, `create`, `update`, `patch`, `delete`, `deletecollection`
    pub verb: &'static str,
    /// `""` for the core group.
    pub group: String,
    /// `v1`
    pub version: String,
    /// `""`: all namespaces, or a resource without.
    pub namespace: String,
    /// `pods`
    pub resource: String,
    /// `""`: the collection.
    pub name: String,
    /// `""`, `status`, `log`, …
    pub subresource: String,
}

impl ResourceRequest {
    /// What is asked for, for the authoriser. Who lists or watches one object by its name asks for
    /// that object, as in Kubernetes: rules with resource names then apply. Who connects with a pod
    /// creates something, however that is asked for.
    pub fn attributes(&self, query: &Query) -> Attributes {
        let collection = self.name.is_empty() && matches!(self.verb, "list" | "watch");
        let fields = query.get("fieldSelector").filter(|_| collection);
        let selector = fields.and_then(|fields| FieldSelector::parse(fields).ok());
        let selected = selector.as_ref().and_then(|selector| selector.required("metadata.name"));
        let name = selected.unwrap_or(&self.name);
        let verb = if self.connects() { "create" } else { self.verb };
        let place = judged_in(&self.group, &self.resource, &self.namespace, &self.name);
        Attributes {
            verb: verb.to_owned(),
            group: self.group.clone(),
            resource: self.resource.clone(),
            subresource: self.subresource.clone(),
            namespace: place.to_owned(),
            name: name.to_owned(),
            path: String::new(),
        }
    }

    /// Does it turn into a connection with a pod? Clients ask by GET or POST.
    pub fn connects(&self) -> bool {
        self.group.is_empty()
            && self.resource == kinds::POD.plural
            && matches!(self.subresource.as_str(), "exec" | "attach" | "portforward")
            && matches!(self.verb, "get" | "create")
    }
}

/// A path below `/api` or `/apis`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Target {
    /// `/api`
    CoreVersions,
    /// `/apis`
    Groups,
    /// `/apis/GROUP`
    Group(String),
    /// `/api/v1`, `/apis/GROUP/VERSION`
    Resources(String, String),
    /// Everything longer.
    Resource(ResourceRequest),
}

impl Target {
    /// Takes a path below `/api` or `/apis` apart; `None` for other paths.
    ///
    /// # Errors
    /// When a part is no text, or there are too many.
    pub fn parse(method: &Method, uri: &Uri, query: &Query) -> Result<Option<Self>> {
        let mut parts = Vec::new();
        for part in uri.path().trim_matches('/').split('/') {
            let text = percent_decode_str(part).decode_utf8();
            let text = text.map_err(|_| Failure::bad_request("the path is not UTF-8"))?;
            parts.push(text.into_owned());
        }
        let texts: Vec<&str> = parts.iter().map(String::as_str).collect();
        Ok(Some(match texts.as_slice() {
            ["api"] => Self::CoreVersions,
            ["apis"] => Self::Groups,
            ["apis", group] => Self::Group((*group).to_owned()),
            ["api", version] => Self::Resources(String::new(), (*version).to_owned()),
            ["apis", group, version] => Self::Resources((*group).to_owned(), (*version).to_owned()),
            ["api", version, rest @ ..] => resource("", version, rest, method, query)?,
            ["apis", group, version, rest @ ..] => resource(group, version, rest, method, query)?,
            _ => return Ok(None),
        }))
    }
}

fn resource(
    group: &str,
    version: &str,
    rest: &[&str],
    method: &Method,
    query: &Query,
) -> Result<Target> {
    let (namespace, rest) = match rest {
        // Parts of the namespace itself.
        ["namespaces", _] | ["namespaces", _, "status" | "finalize"] => ("", rest),
        ["namespaces", namespace, rest @ ..] => (*namespace, rest),
        _ => ("", rest),
    };
    let (resource, name, subresource) = match rest {
        [resource] => (*resource, "", String::new()),
        [resource, name] => (*resource, *name, String::new()),
        // A proxy's path goes on for as long as it likes.
        [resource, name, subresource @ ..] => (*resource, *name, subresource.join("/")),
        [] => return Err(Failure::no_resource()),
    };
    let watch = query.flag("watch")?;
    let verb = match (method.as_str(), name.is_empty()) {
        ("GET" | "HEAD", _) if watch => "watch",
        ("GET" | "HEAD", true) => "list",
        ("GET" | "HEAD", false) => "get",
        ("POST", _) => "create",
        ("PUT", _) => "update",
        ("PATCH", _) => "patch",
        ("DELETE", true) => "deletecollection",
        ("DELETE", false) => "delete",
        _ => return Err(Failure::method_not_allowed()),
    };
    Ok(Target::Resource(ResourceRequest {
        verb,
        group: group.to_owned(),
        version: version.to_owned(),
        namespace: namespace.to_owned(),
        resource: resource.to_owned(),
        name: name.to_owned(),
        subresource,
    }))
}

/// Does the request stay open as long as the client likes?
pub(crate) fn is_stream(uri: &Uri) -> bool {
    let path = uri.path();
    if !path.starts_with("/api") {
        return false;
    }
    let on = |name: &str| Query::of(uri).flag(name).unwrap_or(false);
    ["/exec", "/attach", "/portforward"].iter().any(|end| path.ends_with(end))
        || (path.ends_with("/log") && on("follow"))
        || on("watch")
}

/// May everybody ask for it?
pub(crate) fn is_public(path: &str) -> bool {
    let first = path.split('/').nth(1).unwrap_or_default();
    matches!(first, "healthz" | "livez" | "readyz" | "version")
}

#[cfg(test)]
#[path = "path_test.rs"]
mod tests;
