//! The statuses that etcd's clients know. Codes and messages are part of etcd's API: clients
//! compare them (etcd: `api/v3rpc/rpctypes/error.go`).

use quorate_store::StoreError;
use tonic::{Code, Status};

macro_rules! statuses {
    ($($name:ident = $code:ident, $text:literal;)+) => {$(
        pub(crate) fn $name() -> Status {
            Status::new(Code::$code, concat!("etcdserver: ", $text))
        }
    )+};
}

statuses! {
    empty_key = InvalidArgument, "key is not provided";
    key_not_found = InvalidArgument, "key not found";
    value_provided = InvalidArgument, "value is provided";
    lease_provided = InvalidArgument, "lease is provided";
    too_many_operations = InvalidArgument, "too many operations in txn request";
    invalid_sort_option = InvalidArgument, "invalid sort option";
    too_large = InvalidArgument, "request is too large";
    too_many_requests = ResourceExhausted, "too many requests";
    no_space = ResourceExhausted, "mvcc: database space exceeded";
    compacted = OutOfRange, "mvcc: required revision has been compacted";
    future_revision = OutOfRange, "mvcc: required revision is a future revision";
    corrupt = DataLoss, "corrupt cluster";

    lease_not_found = NotFound, "requested lease not found";
    lease_exists = FailedPrecondition, "lease already exists";
    lease_ttl_too_large = OutOfRange, "too large lease TTL";

    no_leader = Unavailable, "no leader";
    timed_out = Unavailable, "request timed out";
    stopped = Unavailable, "server stopped";
    not_admitted = Unavailable, "member is not part of the cluster yet";
    not_leader = FailedPrecondition, "not leader";
    bad_leader_transferee = FailedPrecondition, "bad leader transferee";

    member_not_found = NotFound, "member not found";
    member_exists = FailedPrecondition, "Peer URLs already exists";
    member_bad_urls = InvalidArgument, "given member URLs are invalid";
    learner_not_ready = FailedPrecondition, "can only promote a learner member which is in sync with leader";
    not_enough_started = FailedPrecondition, "re-configuration failed due to not enough started members";
    invalid_downgrade_target = InvalidArgument, "invalid downgrade target version";
    no_downgrade = FailedPrecondition, "no inflight downgrade job";

    permission_denied = PermissionDenied, "permission denied";
    invalid_auth_token = Unauthenticated, "invalid auth token";
    auth_failed = InvalidArgument, "authentication failed, invalid user ID or password";
    auth_not_enabled = FailedPrecondition, "authentication is not enabled";
    invalid_auth_management = InvalidArgument, "invalid auth management";
    root_user_not_exist = FailedPrecondition, "root user does not exist";
    root_role_not_exist = FailedPrecondition, "root user does not have root role";
    user_empty = InvalidArgument, "user name is empty";
    user_not_found = FailedPrecondition, "user name not found";
    user_already_exist = FailedPrecondition, "user name already exists";
    role_empty = InvalidArgument, "role name is empty";
    role_not_found = FailedPrecondition, "role name not found";
    role_already_exist = FailedPrecondition, "role name already exists";
    role_not_granted = FailedPrecondition, "role is not granted to the user";
    permission_not_given = InvalidArgument, "permission not given";
    permission_not_granted = FailedPrecondition, "permission is not granted to the role";
}

/// The status that tells a client of etcd what the store says.
pub(crate) fn store_status(error: StoreError) -> Status {
    match error {
        // Clients take this for "may have happened", and so it is.
        StoreError::OutcomeUnknown(_) => timed_out(),
        StoreError::Unavailable { .. } => no_leader(),
        StoreError::Compacted(_) => compacted(),
        StoreError::FutureRevision(_) => future_revision(),
        StoreError::KeyNotFound(_) => key_not_found(),
        StoreError::LeaseNotFound(_) => lease_not_found(),
        StoreError::LeaseExists(_) => lease_exists(),
        StoreError::TooLarge { .. } => too_large(),
        StoreError::NoSpace(_) => no_space(),
        StoreError::Corrupt(_) => corrupt(),
        StoreError::MemberNotFound(_) => member_not_found(),
        StoreError::MemberExists(_) => member_exists(),
        StoreError::Membership(_) => not_enough_started(),
        StoreError::Overloaded(_) => too_many_requests(),
        // The store words these as etcd does.
        StoreError::Invalid(text) => Status::invalid_argument(format!("etcdserver: {text}")),
        error @ StoreError::Unsupported(_) => Status::unimplemented(format!("etcdserver: {error}")),
        error @ (StoreError::Fenced(_) | StoreError::Internal(_)) => {
            tracing::error!(%error, "internal error of the store");
            Status::internal(format!("etcdserver: {error}"))
        }
    }
}
