//! [`Lessor`]: how long leases have left. Only the leader's memory knows; the state does not.

use std::collections::{BTreeMap, BTreeSet};
use std::future::Future;
use std::time::Duration;

use futures::future::join_all;
use parking_lot::Mutex;
use tokio::sync::watch;
use tokio::time::Instant;

use crate::command::{CommandKind, LeaseGrantRequest};
use crate::contract::{LeaseGranted, Store};
use crate::error::StoreError;
use crate::types::{LeaseId, Term};

/// Revocations that are proposed at the same time. They share appends and syncs, so a storm of
/// expiring leases goes by in such groups and does not fill the queue of proposals.
const REVOKE_GROUP: usize = 256;
/// After this time a revocation that failed is tried again.
const RETRY: Duration = Duration::from_millis(500);

/// Attempts to find an id that no lease has. One is nearly always enough.
const ID_ATTEMPTS: usize = 8;

/// Grants a lease by a command; with id 0, chooses one that is free.
///
/// # Errors
/// As [`Store::lease_grant`].
pub async fn grant_lease<S: Store + ?Sized>(
    store: &S,
    id: LeaseId,
    ttl_seconds: i64,
) -> Result<LeaseGranted, StoreError> {
    let mut attempts = if id == 0 { ID_ATTEMPTS } else { 1 };
    loop {
        attempts -= 1;
        // Positive, as etcd's are.
        let id = if id == 0 { rand::random_range(1..=LeaseId::MAX) } else { id };
        let grant = CommandKind::LeaseGrant(LeaseGrantRequest { id, ttl_seconds });
        match store.propose(grant.into()).await {
            Ok(result) => return Ok(LeaseGranted { id, ttl_seconds, revision: result.revision }),
            Err(StoreError::LeaseExists(_)) if attempts > 0 => {}
            Err(error) => return Err(error),
        }
    }
}

/// What a command did to the leases.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LeaseChange {
    /// There is a new one.
    Granted {
        /// Its id.
        id: LeaseId,
        /// Its time to live in seconds.
        ttl_seconds: i64,
    },
    /// It is gone, and its keys with it.
    Revoked {
        /// Its id.
        id: LeaseId,
    },
}

/// This master does not lead, so it does not know what a lease has left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NotLeading;

/// All leases, and on the leader the time each has left.
///
/// A new leader gives every lease its full time again: nobody can know how much of it was left.
/// So a key may stay longer than its lease says, and never goes earlier.
#[derive(Debug)]
pub struct Lessor {
    leases: Mutex<Leases>,
    /// Sent with every change that a waiting task may be interested in.
    changed: watch::Sender<()>,
}

impl Default for Lessor {
    fn default() -> Self {
        Self { leases: Mutex::default(), changed: watch::Sender::new(()) }
    }
}

#[derive(Debug, Default)]
struct Leases {
    /// The term in which this master leads.
    leading: Option<Term>,
    all: BTreeMap<LeaseId, Lease>,
    /// When leases end; those that are being revoked are not in it.
    queue: BTreeSet<(Instant, LeaseId)>,
}

#[derive(Clone, Copy, Debug)]
struct Lease {
    ttl_seconds: i64,
    expires: Instant,
    /// The term in which its revocation was proposed and may still be applied: while this master
    /// leads in it the lease cannot be renewed. In a later one `apply` refuses that revocation.
    expiring: Option<Term>,
}

/// What came of the proposal to revoke a lease.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Revocation {
    /// It was applied, or refused by `apply`.
    Done,
    /// It was not proposed.
    NotProposed,
    /// It may be in the log, and be applied at any time.
    Unknown,
}

/// A lease whose time is over.
#[derive(Clone, Copy)]
struct Due {
    id: LeaseId,
    /// What came of an earlier revocation in this term is not known.
    doubtful: bool,
}

impl Leases {
    /// Starts the time of a lease anew.
    fn schedule(&mut self, id: LeaseId, expires: Instant) {
        let Some(lease) = self.all.get_mut(&id) else { return };
        self.queue.remove(&(lease.expires, id));
        lease.expires = expires;
        if self.leading.is_some() {
            self.queue.insert((expires, id));
        }
    }

    fn insert(&mut self, id: LeaseId, ttl_seconds: i64, now: Instant) {
        self.all.insert(id, Lease { ttl_seconds, expires: now, expiring: None });
        self.schedule(id, now + seconds(ttl_seconds));
    }

    fn remove(&mut self, id: LeaseId) {
        if let Some(lease) = self.all.remove(&id) {
            self.queue.remove(&(lease.expires, id));
        }
    }

    fn extend_all(&mut self, now: Instant) {
        self.queue.clear();
        for (id, lease) in &mut self.all {
            let ends = lease.expiring.is_some() && lease.expiring == self.leading;
            lease.expires = now + if ends { RETRY } else { seconds(lease.ttl_seconds) };
            if self.leading.is_some() {
                self.queue.insert((lease.expires, *id));
            }
        }
    }

    /// Takes leases whose time is over.
    fn take_due(&mut self, now: Instant) -> Vec<Due> {
        let mut due = Vec::new();
        while due.len() < REVOKE_GROUP
            && let Some(&(expires, id)) = self.queue.first()
            && expires <= now
        {
            self.queue.pop_first();
            if let Some(lease) = self.all.get_mut(&id) {
                let doubtful = lease.expiring.is_some() && lease.expiring == self.leading;
                lease.expiring = self.leading;
                due.push(Due { id, doubtful });
            }
        }
        due
    }
}

fn seconds(ttl: i64) -> Duration {
    Duration::from_secs(u64::try_from(ttl).unwrap_or(0))
}

impl Lessor {
    /// Called with what was applied, in order.
    pub(crate) fn change(&self, changes: Vec<LeaseChange>) {
        if changes.is_empty() {
            return;
        }
        let now = Instant::now();
        let mut leases = self.leases.lock();
        for change in changes {
            match change {
                LeaseChange::Granted { id, ttl_seconds } => leases.insert(id, ttl_seconds, now),
                LeaseChange::Revoked { id } => leases.remove(id),
            }
        }
        drop(leases);
        self.changed.send_replace(());
    }

    /// The state was replaced.
    pub(crate) fn reset(&self, all: Vec<(LeaseId, i64)>) {
        let now = Instant::now();
        let mut leases = self.leases.lock();
        leases.all.clear();
        leases.queue.clear();
        for (id, ttl_seconds) in all {
            leases.insert(id, ttl_seconds, now);
        }
        drop(leases);
        self.changed.send_replace(());
    }

    /// This master leads in that term, or does not lead. Every new term of its own gives all
    /// leases their full time.
    pub fn lead(&self, term: Option<Term>) {
        let mut leases = self.leases.lock();
        if leases.leading == term {
            return;
        }
        leases.leading = term;
        leases.extend_all(Instant::now());
        drop(leases);
        self.changed.send_replace(());
    }

    /// All leases.
    pub fn ids(&self) -> Vec<LeaseId> {
        self.leases.lock().all.keys().copied().collect()
    }

    /// Gives a lease its full time again and returns that, in seconds; 0 when there is no such
    /// lease. A lease that is just being revoked is waited for. Cancel it after your time-out.
    ///
    /// The leader must make sure *afterwards* that it still led: another one may have counted
    /// the lease's time already.
    ///
    /// # Errors
    /// When this master does not lead.
    pub async fn renew(&self, id: LeaseId) -> Result<i64, NotLeading> {
        let mut changed = self.changed.subscribe();
        loop {
            changed.mark_unchanged();
            {
                let mut leases = self.leases.lock();
                if leases.leading.is_none() {
                    return Err(NotLeading);
                }
                match leases.all.get(&id).copied() {
                    None => return Ok(0),
                    Some(lease) if lease.expiring != leases.leading => {
                        leases.schedule(id, Instant::now() + seconds(lease.ttl_seconds));
                        return Ok(lease.ttl_seconds);
                    }
                    Some(_) => {}
                }
            }
            // The sender lives in `self`.
            let _ = changed.changed().await;
        }
    }

    /// The granted time of a lease and what is left of it; `None` when there is no such lease.
    ///
    /// # Errors
    /// When this master does not lead.
    pub fn remaining(&self, id: LeaseId) -> Result<Option<(i64, Duration)>, NotLeading> {
        let leases = self.leases.lock();
        if leases.leading.is_none() {
            return Err(NotLeading);
        }
        let left = |lease: &Lease| lease.expires.saturating_duration_since(Instant::now());
        Ok(leases.all.get(&id).map(|lease| (lease.ttl_seconds, left(lease))))
    }

    /// Revokes leases as their time ends, as long as this master leads: `revoke` proposes the
    /// revocation fenced with the term, and says what came of it. Never returns.
    pub async fn expire<F: Future<Output = Revocation>>(
        &self,
        revoke: impl Fn(LeaseId, Term) -> F,
    ) {
        let mut changed = self.changed.subscribe();
        loop {
            changed.mark_unchanged();
            let (due, term, next) = {
                let mut leases = self.leases.lock();
                let due = leases.take_due(Instant::now());
                let next = leases.queue.first().map(|(expires, _)| *expires);
                (due, leases.leading.unwrap_or(0), next)
            };
            if due.is_empty() {
                let wait = async {
                    match next {
                        Some(next) => tokio::time::sleep_until(next).await,
                        None => std::future::pending().await,
                    }
                };
                tokio::select! {
                    () = wait => {}
                    // The sender lives in `self`.
                    _ = changed.changed() => {}
                }
                continue;
            }
            let revoked = due.iter().map(|due| revoke(due.id, term));
            let outcomes = join_all(revoked).await;
            let failed = due.into_iter().zip(outcomes);
            let failed: Vec<_> = failed.filter(|(_, came)| *came != Revocation::Done).collect();
            self.retry_later(&failed, term);
        }
    }

    /// Tries again soon, unless another term has begun, which gave the leases their full time.
    fn retry_later(&self, failed: &[(Due, Revocation)], term: Term) {
        let mut leases = self.leases.lock();
        if failed.is_empty() || leases.leading != Some(term) {
            return;
        }
        for (Due { id, doubtful }, came) in failed {
            if *came == Revocation::NotProposed
                && !doubtful
                && let Some(lease) = leases.all.get_mut(id)
            {
                lease.expiring = None;
            }
            leases.schedule(*id, Instant::now() + RETRY);
        }
        drop(leases);
        self.changed.send_replace(());
    }
}

#[cfg(test)]
#[path = "lessor_test.rs"]
mod tests;
