//! Options of a [`crate::RaftStore`].

use std::net::{SocketAddr, TcpListener};
use std::path::PathBuf;
use std::time::Duration;

use quorate_proto::Tls;

use crate::error::RaftStoreError;

/// Where the other masters reach this one.
#[derive(Debug)]
pub enum PeerListen {
    /// Bind this address.
    Address(SocketAddr),
    /// Use this socket.
    Socket(TcpListener),
}

impl From<SocketAddr> for PeerListen {
    fn from(address: SocketAddr) -> Self {
        Self::Address(address)
    }
}

impl From<TcpListener> for PeerListen {
    fn from(listener: TcpListener) -> Self {
        Self::Socket(listener)
    }
}

/// A member of the first membership. All masters get the same list in the same order; the
/// position, from 1, is the member's id.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InitialMember {
    /// For people; unique.
    pub name: String,
    /// Where the other masters reach it.
    pub peer_url: String,
    /// Where clients reach it.
    pub client_url: String,
}

/// When history is forgotten by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AutoCompaction {
    /// Never; somebody else sees to it.
    Off,
    /// So many revisions are kept.
    Revisions(u64),
    /// Everything younger than this is kept.
    Age(Duration),
}

/// Options of a [`crate::RaftStore`].
#[derive(Debug)]
pub struct Options {
    /// Holds `identity.json`, `lock`, `log/` and `state/`.
    pub data_dir: PathBuf,
    /// Masters of different clusters refuse each other.
    pub cluster_id: String,
    /// This master's name in `initial_members`.
    pub name: String,
    /// Where the other masters reach this one.
    pub peer_listen: PeerListen,
    /// The first membership. Ignored once the directory holds a log.
    pub initial_members: Vec<InitialMember>,
    /// How often a leader shows that it lives.
    pub heartbeat: Duration,
    /// Silence after which a follower stands for election, at least; at most a fifth longer.
    pub election_timeout: Duration,
    /// Entries between two snapshots, at most.
    pub snapshot_every: u64,
    /// Bytes of the log between two snapshots, roughly at most.
    pub snapshot_bytes: u64,
    /// Entries kept in the log though a snapshot has them, for members that lag a little.
    pub log_keep: u64,
    /// The same in bytes: of large entries fewer are kept.
    pub log_keep_bytes: u64,
    /// After this time every request gives up.
    pub request_timeout: Duration,
    /// Longest wait for what is in flight before leadership is handed over.
    pub drain: Duration,
    /// What a leader that was replaced had still answered must be here after this time.
    pub last_words: Duration,
    /// Most proposals in flight on this master.
    pub max_in_flight: usize,
    /// Bytes of the state on disk at which only deletions and compaction are accepted.
    pub size_budget: u64,
    /// Bytes that must stay free on the file system; with fewer the same holds.
    pub disk_reserve: u64,
    /// When history is forgotten by itself.
    pub auto_compaction: AutoCompaction,
    /// How often the leader compares the members' states.
    pub check_every: Duration,
    /// How often a member reads its whole state and compares it with the hash that it kept.
    pub scrub_every: Duration,
    /// This master is new in a cluster that exists already, and has been added to its members.
    pub join: bool,
    /// Speak TLS with the other masters (their URLs begin with `https` then); without it
    /// everything travels in the clear, which is for loopback only.
    pub tls: Option<Tls>,
}

impl Options {
    /// Options with the defaults for everything that has one.
    pub fn new(
        data_dir: impl Into<PathBuf>,
        cluster_id: impl Into<String>,
        name: impl Into<String>,
        peer_listen: impl Into<PeerListen>,
        initial_members: Vec<InitialMember>,
    ) -> Self {
        Self {
            data_dir: data_dir.into(),
            cluster_id: cluster_id.into(),
            name: name.into(),
            peer_listen: peer_listen.into(),
            initial_members,
            heartbeat: Duration::from_millis(100),
            election_timeout: Duration::from_millis(1000),
            snapshot_every: 50_000,
            snapshot_bytes: 64 << 20,
            log_keep: 10_000,
            log_keep_bytes: 32 << 20,
            request_timeout: Duration::from_secs(5),
            drain: Duration::from_millis(200),
            last_words: Duration::from_millis(50),
            max_in_flight: 8192,
            size_budget: 8 << 30,
            disk_reserve: 128 << 20,
            auto_compaction: AutoCompaction::Age(Duration::from_secs(600)),
            check_every: Duration::from_secs(10),
            scrub_every: Duration::from_secs(3600),
            join: false,
            tls: None,
        }
    }

    pub(crate) fn validate(&self) -> Result<(), RaftStoreError> {
        self.validate_with(self.tls.is_some())
    }

    pub(crate) fn validate_with(&self, tls: bool) -> Result<(), RaftStoreError> {
        let invalid = |reason: String| Err(RaftStoreError::Options(reason));
        if self.cluster_id.is_empty() {
            return invalid("the cluster id is empty".into());
        }
        if !self.initial_members.iter().any(|member| member.name == self.name) {
            let names: Vec<_> = self.initial_members.iter().map(|m| m.name.as_str()).collect();
            return invalid(format!(
                "master {:?} is not in the list of initial masters ({})",
                self.name,
                names.join(", ")
            ));
        }
        for (i, member) in self.initial_members.iter().enumerate() {
            let before = &self.initial_members[..i];
            if before.iter().any(|m| m.name == member.name || m.peer_url == member.peer_url) {
                return invalid(format!("initial master {:?} is listed twice", member.name));
            }
        }
        let scheme = if tls { "https://" } else { "http://" };
        if let Some(member) = self.initial_members.iter().find(|m| !m.peer_url.starts_with(scheme))
        {
            return invalid(format!(
                "the peer address of {:?} is {:?}, it must begin with {scheme}",
                member.name, member.peer_url
            ));
        }
        if self.heartbeat.is_zero() || self.election_timeout < self.heartbeat * 3 {
            return invalid(format!(
                "the election timeout ({:?}) must be at least three heartbeats ({:?} each)",
                self.election_timeout, self.heartbeat
            ));
        }
        Ok(())
    }

    /// openraft's least and greatest election timeout, in milliseconds. A follower of a leader
    /// waits for the lease, which is the greatest, and then for a random time between the two:
    /// one to one and a fifth of ours.
    pub(crate) fn election_range(&self) -> (u64, u64) {
        let silence = u64::try_from(self.election_timeout.as_millis()).unwrap_or(u64::MAX);
        (silence.saturating_mul(2) / 5, silence.saturating_mul(3) / 5)
    }

    pub(crate) fn raft_config(&self) -> Result<openraft::Config, RaftStoreError> {
        let millis = |duration: Duration| u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
        let (election_min, election_max) = self.election_range();
        openraft::Config {
            cluster_name: self.cluster_id.clone(),
            heartbeat_interval: millis(self.heartbeat),
            election_timeout_min: election_min,
            election_timeout_max: election_max,
            // Bounds the whole installation of a snapshot, not a chunk.
            install_snapshot_timeout: 600_000,
            max_payload_entries: 512,
            max_append_entries: Some(4096),
            replication_lag_threshold: self.snapshot_every + self.log_keep,
            snapshot_policy: openraft::SnapshotPolicy::LogsSinceLast(self.snapshot_every),
            max_in_snapshot_log_to_keep: self.log_keep,
            // Large batches: each one leaves a tombstone that every iterator has to pass.
            purge_batch_size: (self.log_keep / 2).max(1),
            api_channel_size: Some(16_384),
            notification_channel_size: Some(16_384),
            quorum_loss_probe_interval: Some(election_max * 2),
            enable_pre_vote: Some(true),
            backoff: "20ms 40ms 80ms ..500ms".into(),
            // The state is not flushed when it is applied: a restarted leader must be elected.
            enable_leader_restore: Some(false),
            // A follower that lost its log must not be trusted again.
            allow_log_reversion: Some(false),
            ..openraft::Config::default()
        }
        .validate()
        .map_err(|error| RaftStoreError::Options(error.to_string()))
    }
}

#[cfg(test)]
#[path = "options_test.rs"]
mod tests;
