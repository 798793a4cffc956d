//! How the state of users is read, changed and followed.

use std::time::Duration;

use bytes::Bytes;
use prost::Message as _;
use quorate_proto::etcd::etcdserverpb as pb;
use quorate_store::KeyRange;
use quorate_store::{
    Compare, Consistency, Op, PutRequest, RangeRequest, Revision, StoreError, TxnRequest,
    WatchRequest,
};
use tonic::Status;

use super::password::{PasswordHash, token, token_user};
use super::state::State;
use super::view::{AuthView, Rights};
use crate::error::internal;
use crate::etcd::Etcd;
use crate::etcd::error::{self, store_status};

/// Where the state is; below what callers can reach (see `access.rs`).
const KEY: &[u8] = b"\0quorate/etcd/auth";
/// Changes that meet another change are tried this often.
const TRIES: usize = 16;
/// Pause before the state is read again after a failure.
const PAUSE: Duration = Duration::from_millis(500);

fn key() -> Bytes {
    Bytes::from_static(KEY)
}

impl Etcd {
    /// The present state, of all masters.
    pub(super) async fn load_auth(&self) -> Result<AuthView, Status> {
        self.read_auth(Consistency::Linearizable).await
    }

    async fn read_auth(&self, consistency: Consistency) -> Result<AuthView, Status> {
        let found = self.store.range(RangeRequest::key(key()), consistency).await;
        let Some(kv) = found.map_err(store_status)?.kvs.into_iter().next() else {
            return Ok(AuthView::default());
        };
        let state = State::decode(kv.value).map_err(|e| internal(format!("etcd users: {e}")))?;
        Ok(AuthView::new(kv.mod_revision, state))
    }

    /// Changes the state; what was decided on is compared. Returns the store's revision.
    pub(super) async fn change_auth(
        &self,
        change: impl Fn(&mut State) -> Result<(), Status>,
    ) -> Result<Revision, Status> {
        for _ in 0..TRIES {
            let before = self.load_auth().await?;
            let mut state = before.state.clone();
            change(&mut state)?;
            if state == before.state && before.revision != 0 {
                return Ok(*self.store.applied().borrow());
            }
            state.revision = state.revision.max(1) + 1;
            let value = state.encode_to_vec().into();
            let put = PutRequest { key: key(), value, ..PutRequest::default() };
            let txn = TxnRequest {
                compare: vec![Compare::mod_revision(key(), before.revision)],
                success: vec![Op::Put(put).into()],
                ..TxnRequest::default()
            };
            let done = self.transact(txn).await?;
            if done.succeeded {
                self.auth.offer(AuthView::new(done.revision, state));
                return Ok(done.revision);
            }
        }
        Err(error::too_many_requests())
    }

    /// Takes in what this master has, before it serves.
    pub(crate) async fn read_users(&self) -> Result<(), Status> {
        self.auth.offer(self.read_auth(Consistency::Serializable).await?);
        Ok(())
    }

    /// Task "etcd users": keeps the cache up to date until the master ends. A failure is tried
    /// again; meanwhile the last known users hold.
    pub(crate) async fn follow_users(self) {
        loop {
            tokio::select! {
                () = self.cancel.cancelled() => return,
                result = self.follow_once() => {
                    if let Err(status) = result {
                        tracing::warn!(%status, "the users of the etcd API cannot be followed");
                    }
                }
            }
            tokio::time::sleep(PAUSE).await;
        }
    }

    async fn follow_once(&self) -> Result<(), Status> {
        let request = WatchRequest { range: KeyRange::single(key()), ..WatchRequest::default() };
        let mut watcher = self.store.watch(request).map_err(store_status)?;
        loop {
            self.read_users().await?;
            loop {
                match watcher.next().await {
                    Ok(batch) if batch.events.is_empty() => {}
                    Ok(_) => break,
                    Err(StoreError::Compacted(_)) => return Ok(()),
                    Err(other) => return Err(store_status(other)),
                }
            }
        }
    }

    pub(super) async fn new_password(
        &self,
        without: bool,
        password: &str,
        hashed: &str,
    ) -> Result<Option<PasswordHash>, Status> {
        if !hashed.is_empty() {
            let text = "etcdserver: hashedPassword is not accepted, send password over TLS";
            return Err(Status::invalid_argument(text));
        }
        if without {
            return Ok(None);
        }
        self.hasher.hash(password).await.map(Some)
    }

    /// A token, for the right password.
    pub(super) async fn log_in(&self, r: pb::AuthenticateRequest) -> Result<String, Status> {
        let view = self.load_auth().await?;
        if !view.state.enabled {
            return Err(error::auth_not_enabled());
        }
        let user = view.state.user(&r.name).ok();
        let right = self.hasher.verify(user, &r.password).await?;
        match user {
            Some(user) if right => Ok(token(&view.state, user)),
            _ => Err(error::auth_failed()),
        }
    }

    /// What a token entitles to.
    pub(crate) fn rights(&self, token: Option<&str>) -> Result<Rights, Status> {
        let view = self.auth.view();
        if !view.state.enabled {
            return Ok(Rights::All);
        }
        let Some(token) = token else { return Ok(Rights::Nobody) };
        let user = token_user(&view.state, token).ok_or_else(error::invalid_auth_token)?;
        Ok(view.permissions(user))
    }
}
