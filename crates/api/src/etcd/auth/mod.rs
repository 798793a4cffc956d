//! `etcdserverpb.Auth`: users and roles of the etcd API.
//!
//! All of it is one value under one reserved key, changed by transactions that compare its
//! revision, and cached by every master. That bounds users and roles to some ten thousand, and
//! makes every change atomic.

mod change;
mod password;
mod state;
mod view;

use quorate_proto::etcd::etcdserverpb as pb;
use quorate_proto::etcd::etcdserverpb::auth_server::Auth;
use tonic::{Request, Response, Status};

pub(crate) use password::Hasher;
pub(crate) use view::{AuthCache, Rights};

use super::{Etcd, error};
use state::State;

/// The user that may do all, once authentication is on; and its role.
const ROOT: &str = "root";

/// Changes the state, answers with a header.
macro_rules! change {
    ($self:ident, $request:ident, $response:ident, $change:expr) => {{
        $self.guard(&$request)?.manage()?;
        let (metadata, _, r) = $request.into_parts();
        let revision =
            $self.within(&metadata, $self.change_auth(|state| $change(state, &r))).await?;
        Ok(Response::new(pb::$response { header: $self.header(revision) }))
    }};
}

#[tonic::async_trait]
impl Auth for Etcd {
    async fn auth_enable(
        &self,
        request: Request<pb::AuthEnableRequest>,
    ) -> Result<Response<pb::AuthEnableResponse>, Status> {
        change!(self, request, AuthEnableResponse, |state: &mut State, _| state.enable())
    }

    async fn auth_disable(
        &self,
        request: Request<pb::AuthDisableRequest>,
    ) -> Result<Response<pb::AuthDisableResponse>, Status> {
        change!(self, request, AuthDisableResponse, |state: &mut State, _| state.disable())
    }

    async fn auth_status(
        &self,
        request: Request<pb::AuthStatusRequest>,
    ) -> Result<Response<pb::AuthStatusResponse>, Status> {
        self.guard(&request)?.manage()?;
        let view = self.auth.view();
        Ok(Response::new(pb::AuthStatusResponse {
            header: self.header_now(),
            enabled: view.state.enabled,
            auth_revision: view.state.revision.max(1),
        }))
    }

    async fn authenticate(
        &self,
        request: Request<pb::AuthenticateRequest>,
    ) -> Result<Response<pb::AuthenticateResponse>, Status> {
        let (metadata, _, r) = request.into_parts();
        let token = self.within(&metadata, self.log_in(r)).await?;
        Ok(Response::new(pb::AuthenticateResponse { header: self.header_now(), token }))
    }

    async fn user_add(
        &self,
        request: Request<pb::AuthUserAddRequest>,
    ) -> Result<Response<pb::AuthUserAddResponse>, Status> {
        self.guard(&request)?.manage()?;
        let r = request.get_ref();
        let without = r.options.as_ref().is_some_and(|options| options.no_password);
        let password = self.new_password(without, &r.password, &r.hashed_password).await?;
        change!(
            self,
            request,
            AuthUserAddResponse,
            |state: &mut State, r: &pb::AuthUserAddRequest| {
                state.add_user(&r.name, password.clone())
            }
        )
    }

    async fn user_get(
        &self,
        request: Request<pb::AuthUserGetRequest>,
    ) -> Result<Response<pb::AuthUserGetResponse>, Status> {
        let guard = self.guard(&request)?;
        let (metadata, _, r) = request.into_parts();
        if !guard.is_user(&r.name) {
            guard.manage()?;
        }
        let state = self.within(&metadata, self.load_auth()).await?.state;
        let roles = state.user(&r.name)?.roles.clone();
        Ok(Response::new(pb::AuthUserGetResponse { header: self.header_now(), roles }))
    }

    async fn user_list(
        &self,
        request: Request<pb::AuthUserListRequest>,
    ) -> Result<Response<pb::AuthUserListResponse>, Status> {
        self.guard(&request)?.manage()?;
        let state = self.within(request.metadata(), self.load_auth()).await?.state;
        let users = state.users.into_iter().map(|user| user.name).collect();
        Ok(Response::new(pb::AuthUserListResponse { header: self.header_now(), users }))
    }

    async fn user_delete(
        &self,
        request: Request<pb::AuthUserDeleteRequest>,
    ) -> Result<Response<pb::AuthUserDeleteResponse>, Status> {
        change!(
            self,
            request,
            AuthUserDeleteResponse,
            |state: &mut State, r: &pb::AuthUserDeleteRequest| state.delete_user(&r.name)
        )
    }

    async fn user_change_password(
        &self,
        request: Request<pb::AuthUserChangePasswordRequest>,
    ) -> Result<Response<pb::AuthUserChangePasswordResponse>, Status> {
        self.guard(&request)?.manage()?;
        let r = request.get_ref();
        let password = self.new_password(false, &r.password, &r.hashed_password).await?;
        change!(
            self,
            request,
            AuthUserChangePasswordResponse,
            |state: &mut State, r: &pb::AuthUserChangePasswordRequest| {
                state.change_password(&r.name, password.clone())
            }
        )
    }

    async fn user_grant_role(
        &self,
        request: Request<pb::AuthUserGrantRoleRequest>,
    ) -> Result<Response<pb::AuthUserGrantRoleResponse>, Status> {
        change!(
            self,
            request,
            AuthUserGrantRoleResponse,
            |state: &mut State, r: &pb::AuthUserGrantRoleRequest| state
                .grant_role(&r.user, &r.role)
        )
    }

    async fn user_revoke_role(
        &self,
        request: Request<pb::AuthUserRevokeRoleRequest>,
    ) -> Result<Response<pb::AuthUserRevokeRoleResponse>, Status> {
        change!(
            self,
            request,
            AuthUserRevokeRoleResponse,
            |state: &mut State, r: &pb::AuthUserRevokeRoleRequest| {
                state.revoke_role(&r.name, &r.role)
            }
        )
    }

    async fn role_add(
        &self,
        request: Request<pb::AuthRoleAddRequest>,
    ) -> Result<Response<pb::AuthRoleAddResponse>, Status> {
        change!(
            self,
            request,
            AuthRoleAddResponse,
            |state: &mut State, r: &pb::AuthRoleAddRequest| { state.add_role(&r.name) }
        )
    }

    async fn role_get(
        &self,
        request: Request<pb::AuthRoleGetRequest>,
    ) -> Result<Response<pb::AuthRoleGetResponse>, Status> {
        let guard = self.guard(&request)?;
        let (metadata, _, r) = request.into_parts();
        if !guard.has_role(&r.role) {
            guard.manage()?;
        }
        let state = self.within(&metadata, self.load_auth()).await?.state;
        let perm = state.role(&r.role)?.key_permission.clone();
        Ok(Response::new(pb::AuthRoleGetResponse { header: self.header_now(), perm }))
    }

    async fn role_list(
        &self,
        request: Request<pb::AuthRoleListRequest>,
    ) -> Result<Response<pb::AuthRoleListResponse>, Status> {
        self.guard(&request)?.manage()?;
        let state = self.within(request.metadata(), self.load_auth()).await?.state;
        let name = |role: &_| state::role_name(role);
        let roles = state.roles.iter().map(name).collect();
        Ok(Response::new(pb::AuthRoleListResponse { header: self.header_now(), roles }))
    }

    async fn role_delete(
        &self,
        request: Request<pb::AuthRoleDeleteRequest>,
    ) -> Result<Response<pb::AuthRoleDeleteResponse>, Status> {
        change!(
            self,
            request,
            AuthRoleDeleteResponse,
            |state: &mut State, r: &pb::AuthRoleDeleteRequest| state.delete_role(&r.role)
        )
    }

    async fn role_grant_permission(
        &self,
        request: Request<pb::AuthRoleGrantPermissionRequest>,
    ) -> Result<Response<pb::AuthRoleGrantPermissionResponse>, Status> {
        change!(
            self,
            request,
            AuthRoleGrantPermissionResponse,
            |state: &mut State, r: &pb::AuthRoleGrantPermissionRequest| {
                let permission = r.perm.clone().ok_or_else(error::permission_not_given)?;
                state.grant_permission(&r.name, permission)
            }
        )
    }

    async fn role_revoke_permission(
        &self,
        request: Request<pb::AuthRoleRevokePermissionRequest>,
    ) -> Result<Response<pb::AuthRoleRevokePermissionResponse>, Status> {
        change!(
            self,
            request,
            AuthRoleRevokePermissionResponse,
            |state: &mut State, r: &pb::AuthRoleRevokePermissionRequest| {
                state.revoke_permission(&r.role, &r.key, &r.range_end)
            }
        )
    }
}

#[cfg(test)]
#[path = "../auth_test.rs"]
mod tests;
