//! Reading: get and list.

use axum::http::StatusCode;
use axum::response::Response;
use quorate_objects::FieldError;
use quorate_registry::{At, Consistency, ListOptions, Object, RegistryError};

use super::Call;
use super::failure::{Failure, Result};
use super::query::Query;
use super::render::ListMeta;

impl Call {
    pub(super) async fn get(&self) -> Result<Response> {
        let object = self.load().await?;
        let renderer = self.renderer()?;
        renderer.response(StatusCode::OK, renderer.object(&object)?)
    }

    /// The object that the request names.
    pub(super) async fn load(&self) -> Result<std::sync::Arc<Object>> {
        let consistency = match revision(&self.query)? {
            None => Consistency::Linearizable,
            Some(wanted) => {
                self.reach(wanted).await?;
                Consistency::Serializable
            }
        };
        let (namespace, name) = (&self.request.namespace, &self.request.name);
        Ok(self.rest.registry.get(self.kind, namespace, name, consistency).await?)
    }

    pub(super) async fn list(&self) -> Result<Response> {
        let (options, consistency) = list_options(&self.query)?;
        let namespace = Some(self.request.namespace.as_str());
        if let At::NotOlderThan(wanted) | At::Exactly(wanted) = options.at {
            self.reach(wanted).await?;
        }
        let list = self.rest.registry.list(self.kind, namespace, &options, consistency).await;
        let list = list.map_err(|error| match error {
            RegistryError::Gone { .. } if options.continue_token.is_some() => expired(),
            other => other.into(),
        })?;
        let meta = ListMeta {
            revision: list.revision,
            continue_token: list.continue_token,
            remaining: list.remaining,
        };
        let renderer = self.renderer()?;
        let objects = list.items.iter().map(|object| &**object);
        renderer.response(StatusCode::OK, renderer.list(&meta, objects)?)
    }

    /// Waits until this master has applied a revision that the client knows.
    pub(super) async fn reach(&self, wanted: u64) -> Result<()> {
        let registry = &self.rest.registry;
        if registry.cache().revision() >= wanted {
            return Ok(());
        }
        // Another master may be ahead of this one, but no master is ahead of this.
        registry.freshen(Consistency::Linearizable).await?;
        let current = registry.cache().revision();
        if current >= wanted {
            return Ok(());
        }
        let text = format!("Too large resource version: {wanted}, current: {current}");
        let code = StatusCode::GATEWAY_TIMEOUT;
        let failure = Failure::new(code, "Timeout", text).retry_after(1);
        Err(failure.cause("ResourceVersionTooLarge", "Too large resource version", ""))
    }
}

fn expired() -> Failure {
    Failure::new(
        StatusCode::GONE,
        "Expired",
        "The provided continue parameter is too old to display a consistent list result. You can \
         start a new list without the continue parameter.",
    )
}

/// The parameter resourceVersion; 0 and none differ.
pub(super) fn revision(query: &Query) -> Result<Option<u64>> {
    let parse = |text: &str| {
        text.parse().map_err(|_| {
            let error = FieldError::invalid("resourceVersion", text, "must be a number");
            Failure::invalid("ListOptions.meta.k8s.io", "", error)
        })
    };
    query.get("resourceVersion").map(parse).transpose()
}

fn list_options(query: &Query) -> Result<(ListOptions, Consistency)> {
    let (labels, fields) = query.selectors()?;
    let limit = query.parse::<i64>("limit", "number")?.unwrap_or(0);
    let limit = usize::try_from(limit).unwrap_or(0);
    let continue_token = query.get("continue").map(str::to_owned);
    let revision = revision(query)?;
    let wrong = |path: &str, message: &str| {
        let error = FieldError::forbidden(path, message);
        Err(Failure::invalid("ListOptions.meta.k8s.io", "", error))
    };
    let matching = query.get("resourceVersionMatch");
    if continue_token.is_some() {
        if matching.is_some() {
            return wrong(
                "resourceVersionMatch",
                "resourceVersionMatch is forbidden when continue is provided",
            );
        }
        if revision.is_some_and(|revision| revision != 0) {
            let text = "specifying resource version is not allowed when using continue";
            return Err(Failure::bad_request(text));
        }
    }
    let at = match (matching, revision) {
        (Some(_), None) => {
            return wrong(
                "resourceVersionMatch",
                "resourceVersionMatch is forbidden unless resourceVersion is provided",
            );
        }
        (Some("Exact"), Some(0)) => {
            return wrong(
                "resourceVersionMatch",
                "resourceVersionMatch \"exact\" is forbidden for resourceVersion \"0\"",
            );
        }
        (Some("Exact"), Some(revision)) => At::Exactly(revision),
        (None | Some("NotOlderThan"), Some(revision)) if revision > 0 => At::NotOlderThan(revision),
        (None | Some("NotOlderThan"), _) => At::Newest,
        (Some(other), _) => {
            let supported = ["Exact", "NotOlderThan"];
            let error = FieldError::not_supported("resourceVersionMatch", other, &supported);
            return Err(Failure::invalid("ListOptions.meta.k8s.io", "", error));
        }
    };
    let stale = revision == Some(0);
    let consistency = if stale { Consistency::Serializable } else { Consistency::Linearizable };
    Ok((ListOptions { labels, fields, limit, continue_token, at }, consistency))
}
