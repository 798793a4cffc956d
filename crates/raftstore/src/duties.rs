//! What the leader does now and then: votes for learners that have caught up, compaction, and the
//! comparison of the members' states.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use futures::future::join_all;
use openraft::async_runtime::WatchReceiver as _;
use quorate_proto::peer as pb;
use quorate_store::{
    Alarm, AlarmKind, Command, CommandKind, CompactRequest, MemberId, Revision, Store as _, Term,
};
use tokio::time::{Instant, MissedTickBehavior, interval};

use crate::options::AutoCompaction;
use crate::peer::Client;
use crate::store::RaftStore;

/// How often the leader looks after what is not urgent.
const INTERVAL: Duration = Duration::from_millis(100);
/// Entries per turn that move a compaction forward: it goes on with each entry, so without
/// writes it would stand still.
const COMPACTION_ENTRIES: usize = 32;
/// A compaction by age happens this often per age.
const AGE_STEPS: u32 = 10;
/// How long a member gets to say what it has.
const ASK_TIMEOUT: Duration = Duration::from_secs(1);

/// The leader's task.
pub(crate) struct Duties {
    pub store: Arc<RaftStore>,
    pub compaction: AutoCompaction,
    pub check_every: Duration,
}

impl Duties {
    /// The task "duties"; what fails is tried again at a later turn.
    pub(crate) async fn run(self) {
        let mut tick = interval(INTERVAL);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut compactor = Compactor::new(self.compaction);
        let mut check_at = Instant::now() + self.check_every;
        loop {
            tick.tick().await;
            let state = &self.store.state;
            compactor.note(state.machine.revision(), Instant::now());
            let Some(term) = self.store.leadership.borrow().ready else { continue };
            self.store.members.finish_change().await;
            self.store.members.promote_ready().await;
            self.lift_alarms_of_removed().await;
            let due = compactor.due(state.machine.revision(), state.machine.compact_revision());
            if let Some(revision) = due {
                self.compact(revision, term).await;
            }
            if state.machine.compacting() {
                let entries = (0..COMPACTION_ENTRIES).map(|_| self.store.raft.write_blank());
                join_all(entries).await;
            }
            if Instant::now() >= check_at {
                check_at = Instant::now() + self.check_every;
                compare(&self.store).await;
            }
        }
    }

    /// Nobody else lifts them, and a member that is full keeps all from writing.
    async fn lift_alarms_of_removed(&self) {
        let mut alarms = self.store.alarms().borrow().clone();
        {
            let metrics = self.store.raft.server_metrics();
            let metrics = metrics.borrow_watched();
            let membership = metrics.membership_config.membership();
            alarms.retain(|alarm| membership.get_node(&alarm.member).is_none());
        }
        for alarm in alarms {
            let member = alarm.member;
            match self.store.set_alarm(alarm, false).await {
                Ok(_) => tracing::info!(member, "lifted the alarm of a member that was removed"),
                Err(error) => tracing::debug!(%error, member, "its alarm is not lifted yet"),
            }
        }
    }

    async fn compact(&self, revision: Revision, fence: Term) {
        let kind = CommandKind::Compact(CompactRequest { revision });
        match self.store.propose(Command { fence, ..kind.into() }).await {
            Ok(_) => tracing::info!(revision, "compacted the history"),
            Err(error) => tracing::debug!(%error, revision, "did not compact the history"),
        }
    }
}

/// Decides when to compact, and up to where.
struct Compactor {
    policy: AutoCompaction,
    /// Revisions with the time at which each was the newest, oldest first.
    seen: VecDeque<(Instant, Revision)>,
}

impl Compactor {
    fn new(policy: AutoCompaction) -> Self {
        Self { policy, seen: VecDeque::new() }
    }

    /// Takes note of the present revision. Followers do it, too, so that a new leader knows.
    fn note(&mut self, revision: Revision, now: Instant) {
        let AutoCompaction::Age(age) = self.policy else { return };
        let step = age / AGE_STEPS;
        if self.seen.back().is_none_or(|(last, _)| now >= *last + step) {
            self.seen.push_back((now, revision));
        }
        // The first one that is old enough stays: it says up to where to compact.
        while self.seen.get(1).is_some_and(|(at, _)| *at + age <= now) {
            self.seen.pop_front();
        }
        if self.seen.len() > 2 * AGE_STEPS as usize {
            self.seen.pop_front();
        }
    }

    /// Up to where to compact now, if at all.
    fn due(&self, revision: Revision, compacted: Revision) -> Option<Revision> {
        let target = match self.policy {
            AutoCompaction::Off => return None,
            // Not for every single revision.
            AutoCompaction::Revisions(keep) => {
                let target = revision.saturating_sub(keep);
                (target > compacted + keep / 10).then_some(target)?
            }
            AutoCompaction::Age(age) => {
                let (at, target) = *self.seen.front()?;
                (at.elapsed() >= age).then_some(target)?
            }
        };
        (target > compacted).then_some(target)
    }
}

/// Compares the members' content at equal revisions, and raises the alarm for a member that differs
/// from the majority.
pub(crate) async fn compare(store: &RaftStore) {
    let others = store.others();
    let members = others.iter().map(|(id, info)| (*id, info));
    let ask = |mut client: Client| async move { client.state(pb::StateRequest {}).await };
    let replies = store.peers.ask_all(members, ASK_TIMEOUT, ask).await;
    let equal = |(id, reply): (MemberId, pb::StateReply)| {
        // The leader has applied what a follower has, unless it was too long ago.
        let ours = store.state.machine.content_at(reply.revision)?;
        Some((id, ours == reply.content))
    };
    let answers: Vec<(MemberId, bool)> = replies.into_iter().filter_map(equal).collect();
    let agree = answers.iter().filter(|(_, equal)| *equal).count() + 1;
    for id in wrong(&answers, store.id, agree * 2 > others.len() + 1) {
        let alarm = Alarm { member: id, kind: AlarmKind::Corrupt.into() };
        if store.alarms().borrow().contains(&alarm) {
            continue;
        }
        tracing::error!(member = id, "this member's state differs from the others'");
        if let Err(error) = store.set_alarm(alarm, true).await {
            tracing::warn!(%error, "the CORRUPT alarm could not be raised yet");
        }
    }
}

/// Who is right? Those who differ from a majority are not. A leader without a majority is wrong
/// itself when two others or more differ from it; with one against one nobody can tell.
fn wrong(answers: &[(MemberId, bool)], leader: MemberId, majority: bool) -> Vec<MemberId> {
    let differ: Vec<_> = answers.iter().filter(|(_, equal)| !equal).map(|(id, _)| *id).collect();
    if majority {
        return differ;
    }
    if differ.len() >= 2 && differ.len() == answers.len() {
        return vec![leader];
    }
    if !differ.is_empty() {
        tracing::error!("the members' states differ, and it cannot be told which are right");
    }
    Vec::new()
}

#[cfg(test)]
#[path = "duties_test.rs"]
mod tests;
