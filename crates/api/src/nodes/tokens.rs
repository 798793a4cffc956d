//! Tokens of service accounts for the pods of a node.

use quorate_objects::kinds;
use quorate_proto::v1;
use quorate_registry::Consistency;
use tonic::{Code, Status};

use super::Shared;
use crate::auth::{Attributes, TokenError, User, Wanted, account_of};
use crate::error::{bad_request, registry_status, status};
use crate::objects::require;

pub(super) async fn create(
    shared: &Shared,
    caller: Option<&User>,
    r: v1::CreateTokenRequest,
) -> Result<v1::CreateTokenResponse, Status> {
    let user =
        caller.ok_or_else(|| status(Code::Unauthenticated, "Unauthorized", "Unauthorized"))?;
    // The caller's cache may be ahead of this master's: agents ask as soon as they have a pod.
    let pod = shared
        .registry
        .get(&kinds::POD, &r.namespace, &r.pod, Consistency::Linearizable)
        .await
        .map_err(registry_status)?;
    let account = account_of(&pod).map_err(registry_status)?;
    if !user.is_agent() {
        let wanted = Attributes {
            verb: "create".into(),
            resource: "serviceaccounts".into(),
            subresource: "token".into(),
            namespace: r.namespace.clone(),
            name: account.clone(),
            ..Attributes::default()
        };
        require(&shared.auth, caller, &wanted)?;
    }
    let wanted = Wanted {
        namespace: r.namespace,
        account,
        audiences: r.audiences,
        seconds: (r.expiration_seconds != 0).then_some(r.expiration_seconds),
        pod: Some((r.pod, r.pod_uid)),
    };
    let issued = shared.auth.issue(user, &wanted).await.map_err(|error| match error {
        TokenError::Registry(error) => registry_status(error),
        TokenError::Request { .. } => bad_request(error.to_string()),
        TokenError::Invalid(_) | TokenError::Key(_) => {
            status(Code::Internal, "InternalError", error.to_string())
        }
    })?;
    Ok(v1::CreateTokenResponse { token: issued.token, expires: issued.expires.as_second() })
}
