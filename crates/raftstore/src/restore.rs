//! Making a state from an image: a new cluster from a snapshot file, or a member's damaged state
//! from another member's. Both work on the directory of a master that does not run.

use std::fs::File;
use std::io::{self, BufReader, Write as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use openraft::impls::leader_id_std::LeaderId;
use openraft::storage::RaftLogStorage as _;
use quorate_proto::peer as pb;
use quorate_store::{Backend as _, MemberId, Revision, StateMachine, read_image};
use rocksdb::Cache;

use crate::error::RaftStoreError;
use crate::fatal::Fatal;
use crate::identity::{self, DirectoryLock, Identity, write_atomically};
use crate::log::LogStore;
use crate::options::Options;
use crate::peer::Peers;
use crate::start::{initial_nodes, position};
use crate::state::{RocksBackend, Sink, StateMeta};
use crate::types::{LogId, Membership, StoredMembership, Vote};

/// Says that the state was rebuilt, so that the member's CORRUPT alarm may be lifted.
const REBUILT: &str = "rebuilt";
/// How long another master may be silent.
const FETCH_TIMEOUT: Duration = Duration::from_secs(10);
/// The databases here are written once and read once.
const CACHE_BYTES: usize = 1 << 20;

/// What a state holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Restored {
    /// Its revision.
    pub revision: Revision,
    /// The index of the last entry in it.
    pub index: u64,
    /// The term of that entry.
    pub term: u64,
}

/// Makes the directory of a master of a *new* cluster from a snapshot file. All its masters are
/// restored from the same file, with the same list of members and a cluster id of their own;
/// then they are started as usual. `tls` says whether they will speak TLS with each other.
///
/// # Errors
/// When the file is damaged, or the directory holds anything already.
pub async fn restore(
    image: &Path,
    options: &Options,
    tls: bool,
) -> Result<Restored, RaftStoreError> {
    options.validate_with(tls)?;
    let data_dir = &options.data_dir;
    let create = |error| RaftStoreError::io("cannot create", data_dir, error);
    std::fs::create_dir_all(data_dir).map_err(create)?;
    let _lock = DirectoryLock::acquire(data_dir)?;
    if Identity::read(data_dir)?.is_some() || data_dir.join("state").exists() {
        return Err(RaftStoreError::Options(format!(
            "{} belongs to a master already; restore into an empty directory",
            data_dir.display()
        )));
    }
    let id = position(&options.initial_members, &options.name);
    let membership = Membership::new(
        vec![initial_nodes(&options.initial_members).into_keys().collect()],
        initial_nodes(&options.initial_members),
    )
    .map_err(|error| RaftStoreError::Options(error.to_string()))?;
    // Under another name, so that a damaged file leaves the directory free for the next try.
    let new = data_dir.join("state.new");
    remove(&new)?;
    let filled = fill(image, &new, Some(membership));
    if filled.is_err() {
        remove(&new)?;
    }
    let (log_id, restored) = filled?;
    std::fs::rename(&new, data_dir.join("state"))
        .map_err(|error| RaftStoreError::io("cannot name the state in", data_dir, error))?;
    write_log(data_dir, id, log_id).await?;
    // Last: without it nothing of this counts.
    let identity = Identity {
        cluster_id: options.cluster_id.clone(),
        member_id: id,
        name: options.name.clone(),
        instance: rand::random_range(1..=u64::MAX),
    };
    identity.write_to(data_dir)?;
    Ok(restored)
}

/// Replaces a member's state by that of another member, for a member whose data is wrong. Votes
/// and log stay, so it takes part under its old id.
///
/// # Errors
/// When no other member sends its state; then everything stays as it was.
pub async fn rebuild(options: &Options) -> Result<Restored, RaftStoreError> {
    options.validate()?;
    let data_dir = &options.data_dir;
    let _lock = DirectoryLock::acquire(data_dir)?;
    let Some(identity) = Identity::read(data_dir)? else {
        let reason = format!("{} belongs to no master", data_dir.display());
        return Err(RaftStoreError::Options(reason));
    };
    let peers = Peers::new(&options.cluster_id, options.tls.clone())?;
    peers.introduce(identity.member_id);
    let image = data_dir.join("rebuild.image");
    fetch(&peers, options, &identity, &image).await?;
    let (new, old, present) =
        (data_dir.join("state.new"), data_dir.join("state.old"), data_dir.join("state"));
    remove(&new)?;
    remove(&old)?;
    let (_, restored) = fill(&image, &new, None)?;
    let failed = |error| RaftStoreError::io("cannot exchange the state in", data_dir, error);
    // Snapshots first: none of them may ever be newer than the state, or wrong as it was.
    remove(&data_dir.join("snapshots"))?;
    std::fs::rename(&present, &old).map_err(failed)?;
    std::fs::rename(&new, &present).map_err(failed)?;
    write_atomically(&data_dir.join(REBUILT), b"").map_err(failed)?;
    remove(&old)?;
    remove(&image)?;
    Ok(restored)
}

/// Reads a snapshot file to its end.
///
/// # Errors
/// When it is damaged.
pub fn verify(image: &Path) -> Result<Restored, RaftStoreError> {
    let scratch = image.with_extension("verify");
    remove(&scratch)?;
    let verified = fill(image, &scratch, None);
    remove(&scratch)?;
    verified.map(|(_, restored)| restored)
}

pub(crate) fn is_rebuilt(data_dir: &Path) -> bool {
    data_dir.join(REBUILT).exists()
}

pub(crate) fn forget_rebuilt(data_dir: &Path) {
    if let Err(error) = std::fs::remove_file(data_dir.join(REBUILT)) {
        tracing::warn!(%error, "cannot remove the mark of the rebuilt state");
    }
}

fn remove(path: &Path) -> Result<(), RaftStoreError> {
    identity::remove(path).map_err(|error| RaftStoreError::io("cannot remove", path, error))
}

/// Fills a new database with an image. With a membership the state becomes that of a new
/// cluster: what it knew of the old one's members is forgotten.
fn fill(
    image: &Path,
    database: &Path,
    membership: Option<Membership>,
) -> Result<(LogId, Restored), RaftStoreError> {
    let damaged = |reason: String| RaftStoreError::Damaged { path: image.into(), reason };
    let file =
        File::open(image).map_err(|error| RaftStoreError::io("cannot open", image, error))?;
    let backend = Arc::new(RocksBackend::open(database, &Cache::new_lru_cache(CACHE_BYTES))?);
    let source = |sink: Sink<'_>| {
        let file = BufReader::with_capacity(1 << 20, file);
        read_image(file, |space, key, value| sink(space, &key, &value))
    };
    backend.install(source, |_| Ok(())).map_err(|error| damaged(error.to_string()))?;
    let machine =
        StateMachine::open(Arc::clone(&backend), 0).map_err(|error| damaged(error.to_string()))?;
    if !machine.scrub().map_err(|error| damaged(error.to_string()))? {
        return Err(damaged("its content does not match its own hash".into()));
    }
    let mut meta = StateMeta::load(&backend.view()).map_err(|error| damaged(error.to_string()))?;
    let Some(log_id) = meta.applied else {
        return Err(damaged("it was not made by a replicated store".into()));
    };
    if let Some(membership) = membership {
        meta.membership = StoredMembership::new(Some(log_id), membership);
        machine.forget_members(meta.changes(true)).map_err(|error| damaged(error.to_string()))?;
    }
    backend.flush().map_err(|error| damaged(error.to_string()))?;
    let restored =
        Restored { revision: machine.revision(), index: log_id.index, term: log_id.leader_id.term };
    Ok((log_id, restored))
}

/// A log that begins after the state, with a vote that makes newer terms begin after it, too.
async fn write_log(data_dir: &Path, id: MemberId, log_id: LogId) -> Result<(), RaftStoreError> {
    let directory = data_dir.join("log");
    let cache = Cache::new_lru_cache(CACHE_BYTES);
    let (mut log, writer) = LogStore::open(&directory, &cache, Arc::default(), Fatal::new())?;
    let failed = |error| RaftStoreError::io("cannot write", &directory, error);
    let leader_id = LeaderId { term: log_id.leader_id.term, voted_for: id };
    log.save_vote(&Vote { leader_id, committed: false }).await.map_err(failed)?;
    log.purge(log_id).await.map_err(failed)?;
    drop(log);
    let ended = tokio::task::spawn_blocking(move || writer.join()).await;
    ended.map_err(|error| failed(io::Error::other(error)))
}

/// Fetches the state of the other member that is furthest ahead.
async fn fetch(
    peers: &Peers,
    options: &Options,
    identity: &Identity,
    image: &PathBuf,
) -> Result<(), RaftStoreError> {
    let mut reasons = vec!["none of the others answers".to_owned()];
    let mut best = None;
    let mut nodes = initial_nodes(&options.initial_members);
    nodes.retain(|_, info| info.name != identity.name);
    for (id, info) in nodes {
        let peer = match peers.get(id, &info) {
            Ok(peer) => peer,
            Err(status) => {
                reasons.push(status.message().to_owned());
                continue;
            }
        };
        let mut client = peer.urgent();
        let asked = tokio::time::timeout(FETCH_TIMEOUT, client.state(pb::StateRequest {})).await;
        match asked.unwrap_or_else(|_| Err(tonic::Status::deadline_exceeded("no answer"))) {
            Ok(reply) => {
                let revision = reply.into_inner().revision;
                if best.as_ref().is_none_or(|(most, _)| *most < revision) {
                    best = Some((revision, peer));
                }
            }
            Err(status) => reasons.push(format!("{}: {}", info.name, status.message())),
        }
    }
    let Some((_, peer)) = best else { return Err(RaftStoreError::Fetch(reasons.join("; "))) };
    let gone = |status: tonic::Status| RaftStoreError::Fetch(status.message().to_owned());
    let mut chunks = peer.separate().image(pb::ImageRequest {}).await.map_err(gone)?.into_inner();
    let failed = |error| RaftStoreError::io("cannot write", image, error);
    let mut file = File::create(image).map_err(failed)?;
    loop {
        let next = tokio::time::timeout(FETCH_TIMEOUT, chunks.message()).await;
        let late = |_| RaftStoreError::Fetch("the other master sends nothing any more".into());
        let Some(chunk) = next.map_err(late)?.map_err(gone)? else { break };
        file.write_all(&chunk.data).map_err(failed)?;
    }
    file.sync_all().map_err(failed)
}
