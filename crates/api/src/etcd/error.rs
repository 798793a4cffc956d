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
    compacted = OutOfRange, "mvcc: required revision has been compacted";
    future_revision = OutOfRange, "mvcc: required revision is a future revision";
    lease_not_found = NotFound, "requested lease not found";
    lease_exists = FailedPrecondition, "lease already exists";
    no_space = ResourceExhausted, "mvcc: database space exceeded";
    corrupt = DataLoss, "corrupt cluster";
    member_not_found = NotFound, "member not found";
    peer_exists = FailedPrecondition, "Peer URLs already exists";
    permission_denied = PermissionDenied, "permission denied";
    no_leader = Unavailable, "no leader";
    timed_out = Unavailable, "request timed out";
    stopped = Unavailable, "server stopped";
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
        StoreError::NoSpace(_) => no_space(),
        StoreError::Corrupt(_) => corrupt(),
        StoreError::MemberNotFound(_) => member_not_found(),
        StoreError::MemberExists(_) => peer_exists(),
        StoreError::Membership(text) => Status::failed_precondition(format!("etcdserver: {text}")),
        StoreError::Unsupported(_) => Status::unimplemented(format!("etcdserver: {error}")),
        StoreError::TooLarge { .. } => too_large(),
        StoreError::Overloaded(_) => too_many_requests(),
        // The store words these as etcd does.
        StoreError::Invalid(text) => Status::invalid_argument(format!("etcdserver: {text}")),
        error @ (StoreError::Fenced(_) | StoreError::Internal(_)) => {
            tracing::error!(%error, "internal error of the store");
            Status::internal(format!("etcdserver: {error}"))
        }
    }
}
