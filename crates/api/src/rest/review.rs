//! What is created only to be answered: reviews, and tokens of service accounts.

use std::sync::Arc;

use axum::body::Body;
use axum::http::StatusCode;
use axum::http::request::Parts;
use axum::response::Response;
use quorate_objects::time;
use serde_json::{Value, json};

use super::accept::Accept;
use super::body::{self, decode, media_type};
use super::failure::{Failure, Result};
use super::path::ResourceRequest;
use super::query::Validation;
use super::render::respond;
use super::{Call, Rest};
use crate::auth::{Review, TokenError, User, Wanted};

impl Rest {
    pub(super) async fn review(
        self: Arc<Self>,
        review: Review,
        user: &User,
        request: &ResourceRequest,
        parts: &Parts,
        body: Body,
    ) -> Result<Response> {
        if request.verb != "create" || !request.name.is_empty() {
            return Err(Failure::method_not_allowed());
        }
        let body = super::within("nothing was changed", body::read(body)).await?;
        let value = decode(media_type(&parts.headers), &body, Validation::Ignore)?;
        let answer = self
            .auth
            .review(review, user, &request.namespace, value)
            .map_err(Failure::bad_request)?;
        let accept = Accept::of(&parts.headers)?;
        respond(accept, StatusCode::CREATED, answer.to_string().into_bytes())
    }
}

impl Call {
    /// `serviceaccounts/NAME/token`
    pub(super) async fn token(&self, body: &[u8]) -> Result<Response> {
        if self.request.verb != "create" {
            return Err(Failure::method_not_allowed());
        }
        let mut value = decode(media_type(&self.headers), body, Validation::Ignore)?;
        if !matches!(value["spec"], Value::Object(_) | Value::Null) {
            return Err(Failure::bad_request("spec is no object"));
        }
        let spec = &value["spec"];
        let audiences = spec["audiences"].as_array().into_iter().flatten();
        let reference = &spec["boundObjectRef"];
        let text = |field: &str| reference[field].as_str().unwrap_or_default().to_owned();
        let pod = match text("kind").as_str() {
            "" => None,
            "Pod" => Some((text("name"), text("uid"))),
            other => {
                return Err(Failure::bad_request(format!(
                    "tokens can be bound to pods only, not to {other}"
                )));
            }
        };
        let wanted = Wanted {
            namespace: self.request.namespace.clone(),
            account: self.request.name.clone(),
            audiences: audiences.filter_map(Value::as_str).map(str::to_owned).collect(),
            seconds: spec["expirationSeconds"].as_i64(),
            pod,
        };
        let issued = self.rest.auth.issue(&self.user, &wanted).await.map_err(failure)?;
        value["apiVersion"] = "authentication.k8s.io/v1".into();
        value["kind"] = "TokenRequest".into();
        value["metadata"] = json!({
            "name": self.request.name, "namespace": self.request.namespace,
        });
        value["spec"]["audiences"] = json!(issued.audiences);
        value["spec"]["expirationSeconds"] = issued.seconds.into();
        value["status"] = json!({
            "token": issued.token, "expirationTimestamp": time::format(issued.expires),
        });
        let accept = Accept::of(&self.headers)?;
        respond(accept, StatusCode::CREATED, value.to_string().into_bytes())
    }
}

fn failure(error: TokenError) -> Failure {
    match error {
        TokenError::Registry(error) => error.into(),
        TokenError::Request { .. } => {
            let code = StatusCode::UNPROCESSABLE_ENTITY;
            let text = format!("TokenRequest.authentication.k8s.io \"\" is invalid: {error}");
            Failure::new(code, "Invalid", text)
        }
        TokenError::Invalid(_) | TokenError::Key(_) => Failure::internal(error),
    }
}
