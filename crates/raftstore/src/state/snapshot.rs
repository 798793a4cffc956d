//! Snapshots: a RocksDB checkpoint (hard links) here, a stream of records on the way.

use std::fs::File;
use std::io::{self, BufReader, Read as _};
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use parking_lot::Mutex;
use prost::Message as _;
use quorate_proto::peer as pb;
use quorate_store::Space;

use super::backend::{Checkpoint, RocksBackend, Sink, space_from_number, space_number};
use super::meta::StateMeta;
use crate::codec;
use crate::error::RaftStoreError;
use crate::failpoint;
use crate::identity::{self, write_atomically};
use crate::types::SnapshotMeta;

/// Bytes of one chunk on the wire.
pub(crate) const CHUNK_BYTES: usize = 512 << 10;
/// File in a checkpoint's directory that describes it; written last.
const META_FILE: &str = "QUORATE-SNAPSHOT";

/// The content of a snapshot.
#[derive(Debug)]
pub(crate) enum SnapshotData {
    /// Made here.
    Checkpoint(Arc<CheckpointDir>),
    /// Received from a leader: a file of records.
    Received(ReceivedFile),
}

/// A checkpoint on disk; removed with its last user once it is superseded.
#[derive(Debug)]
pub(crate) struct CheckpointDir {
    path: PathBuf,
    meta: SnapshotMeta,
    superseded: AtomicBool,
}

impl Drop for CheckpointDir {
    fn drop(&mut self) {
        if *self.superseded.get_mut() {
            remove(&self.path);
        }
    }
}

/// A file of records; removed when it is dropped.
#[derive(Debug)]
pub(crate) struct ReceivedFile {
    pub path: PathBuf,
}

impl Drop for ReceivedFile {
    fn drop(&mut self) {
        remove(&self.path);
    }
}

/// Best effort: what stays is removed at the next start.
fn remove(path: &Path) {
    if let Err(error) = identity::remove(path) {
        tracing::warn!(path = %path.display(), %error, "cannot remove an old snapshot");
    }
}

/// The directory of snapshots; holds at most one that counts.
pub(crate) struct Snapshots {
    directory: PathBuf,
    current: Mutex<Option<Arc<CheckpointDir>>>,
    next_file: AtomicU64,
}

impl Snapshots {
    /// Opens the directory; removes everything unfinished or superseded.
    pub(crate) fn open(directory: &Path) -> Result<Self, RaftStoreError> {
        let failed = |error| RaftStoreError::io("cannot read", directory, error);
        std::fs::create_dir_all(directory).map_err(failed)?;
        let mut newest: Option<Arc<CheckpointDir>> = None;
        for entry in std::fs::read_dir(directory).map_err(failed)? {
            let path = entry.map_err(failed)?.path();
            let Some(found) = read_meta(&path) else {
                remove(&path);
                continue;
            };
            let found =
                Arc::new(CheckpointDir { path, meta: found, superseded: AtomicBool::new(false) });
            if newest.as_ref().is_none_or(|n| n.meta.last_log_id < found.meta.last_log_id) {
                newest = supersede(newest, found);
            } else {
                found.superseded.store(true, Ordering::Relaxed);
            }
        }
        Ok(Self {
            directory: directory.to_owned(),
            current: Mutex::new(newest),
            next_file: AtomicU64::new(0),
        })
    }

    /// A name that nobody else uses; what has it is removed at the next start.
    pub(crate) fn temporary(&self, purpose: &str) -> PathBuf {
        let number = self.next_file.fetch_add(1, Ordering::Relaxed);
        self.directory.join(format!("{purpose}-{number}"))
    }

    pub(crate) fn current(&self) -> Option<(SnapshotMeta, Arc<CheckpointDir>)> {
        self.current.lock().as_ref().map(|dir| (dir.meta.clone(), Arc::clone(dir)))
    }

    /// Makes a snapshot of what is applied now. Blocking.
    pub(crate) fn build(
        &self,
        backend: &RocksBackend,
    ) -> io::Result<(SnapshotMeta, Arc<CheckpointDir>)> {
        let building = self.temporary("building");
        remove(&building);
        backend.checkpoint(&building).map_err(io::Error::other)?;
        // Read from the checkpoint itself: it is what it says, however much was applied since.
        let state = {
            let checkpoint = Checkpoint::open(&building).map_err(io::Error::other)?;
            StateMeta::load(&checkpoint.view().map_err(io::Error::other)?)?
        };
        let meta = state.snapshot_meta();
        let header = pb::SnapshotHeader {
            vote: None,
            last: meta.last_log_id.map(codec::log_id_to),
            membership: Some(codec::stored_membership_to(&meta.last_membership)),
        };
        failpoint::pass("snapshot-before-meta");
        write_atomically(&building.join(META_FILE), &header.encode_to_vec())?;
        let (term, index) = meta.last_log_id.map_or((0, 0), |id| (id.leader_id.term, id.index));
        let mut current = self.current.lock();
        if let Some(present) = current.as_ref()
            && present.meta.last_log_id >= meta.last_log_id
        {
            remove(&building);
            return Ok((present.meta.clone(), Arc::clone(present)));
        }
        let path = self.directory.join(format!("{term}-{index}"));
        failpoint::pass("snapshot-before-rename");
        std::fs::rename(&building, &path)?;
        failpoint::pass("snapshot-after-rename");
        File::open(&self.directory)?.sync_all()?;
        let built = Arc::new(CheckpointDir {
            path,
            meta: meta.clone(),
            superseded: AtomicBool::new(false),
        });
        *current = supersede(current.take(), Arc::clone(&built));
        Ok((meta, built))
    }
}

fn supersede(
    old: Option<Arc<CheckpointDir>>,
    new: Arc<CheckpointDir>,
) -> Option<Arc<CheckpointDir>> {
    if let Some(old) = old {
        old.superseded.store(true, Ordering::Relaxed);
    }
    Some(new)
}

fn read_meta(path: &Path) -> Option<SnapshotMeta> {
    let name = path.file_name()?.to_str()?;
    if name.starts_with("building") || name.starts_with("receiving") {
        return None;
    }
    let bytes = std::fs::read(path.join(META_FILE)).ok()?;
    snapshot_meta(pb::SnapshotHeader::decode(bytes.as_slice()).ok()?).ok()
}

/// The openraft description in a header.
pub(crate) fn snapshot_meta(header: pb::SnapshotHeader) -> Result<SnapshotMeta, codec::Malformed> {
    Ok(SnapshotMeta {
        last_log_id: header.last.map(codec::log_id_from),
        last_membership: codec::stored_membership_from(header.membership.unwrap_or_default())?,
    })
}

/// Checksum and count over a stream of records.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Digest {
    pub records: u64,
    pub checksum: u64,
}

impl Digest {
    pub(crate) fn new() -> Self {
        // FNV-1a's offset basis.
        Self { records: 0, checksum: 0xcbf2_9ce4_8422_2325 }
    }

    pub(crate) fn update(&mut self, data: &[u8]) {
        for byte in data {
            self.checksum = (self.checksum ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
        }
    }
}

impl SnapshotData {
    /// Cuts the content into chunks and hands them to `send` until it returns false. Blocking.
    pub(crate) fn send(&self, mut send: impl FnMut(Vec<u8>) -> bool) -> io::Result<Option<Digest>> {
        let Self::Checkpoint(dir) = self else {
            return Err(io::Error::other("only a snapshot made here can be sent"));
        };
        let checkpoint = Checkpoint::open(&dir.path).map_err(io::Error::other)?;
        let mut digest = Digest::new();
        let mut chunk = Vec::with_capacity(CHUNK_BYTES);
        let mut open = true;
        checkpoint
            .read(|space, key, value| {
                encode_record(&mut chunk, space_number(space), key, value);
                digest.records += 1;
                if chunk.len() >= CHUNK_BYTES {
                    digest.update(&chunk);
                    open = send(std::mem::replace(&mut chunk, Vec::with_capacity(CHUNK_BYTES)));
                }
                if open { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
            })
            .map_err(io::Error::other)?;
        if open && !chunk.is_empty() {
            digest.update(&chunk);
            open = send(chunk);
        }
        Ok(open.then_some(digest))
    }

    /// Replaces the backend's content by this snapshot. Blocking.
    pub(crate) fn install(&self, backend: &RocksBackend, meta: &SnapshotMeta) -> io::Result<()> {
        let check = |view: &super::backend::RocksView<'_>| {
            let found = StateMeta::load(view)
                .map_err(|error| quorate_store::BackendError::new(error.to_string()))?;
            if found.applied != meta.last_log_id {
                let reason = format!(
                    "the snapshot holds the state at {:?}, not at {:?}",
                    found.applied, meta.last_log_id
                );
                return Err(quorate_store::BackendError::new(reason));
            }
            Ok(())
        };
        let result = match self {
            Self::Received(file) => {
                let file = File::open(&file.path)?;
                let mut records = RecordReader(BufReader::with_capacity(CHUNK_BYTES, file));
                let source = |sink: Sink<'_>| {
                    while let Some((space, key, value)) = records.record()? {
                        sink(space, &key, &value)?;
                    }
                    Ok(())
                };
                backend.install(source, check)
            }
            Self::Checkpoint(dir) => {
                let checkpoint = Checkpoint::open(&dir.path).map_err(io::Error::other)?;
                let source = |sink: Sink<'_>| {
                    let mut taken = Ok(());
                    let read = checkpoint.read(|space, key, value| {
                        taken = sink(space, key, value);
                        match taken {
                            Ok(()) => ControlFlow::Continue(()),
                            Err(_) => ControlFlow::Break(()),
                        }
                    });
                    read.map_err(io::Error::other).and(taken)
                };
                backend.install(source, check)
            }
        };
        result.map_err(io::Error::other)
    }
}

/// `space` (1 byte), lengths of key and value (4 bytes each, little endian), key, value.
fn encode_record(chunk: &mut Vec<u8>, space: u8, key: &[u8], value: &[u8]) {
    let length = |bytes: &[u8]| u32::try_from(bytes.len()).unwrap_or(u32::MAX).to_le_bytes();
    chunk.push(space);
    chunk.extend_from_slice(&length(key));
    chunk.extend_from_slice(&length(value));
    chunk.extend_from_slice(key);
    chunk.extend_from_slice(value);
}

/// Space, key and value.
type Record = (Space, Vec<u8>, Vec<u8>);

struct RecordReader<R>(R);

impl<R: io::Read> RecordReader<R> {
    fn record(&mut self) -> io::Result<Option<Record>> {
        let mut header = [0_u8; 9];
        let first = self.0.read(&mut header[..1])?;
        if first == 0 {
            return Ok(None);
        }
        self.0.read_exact(&mut header[1..])?;
        let [space, k0, k1, k2, k3, v0, v1, v2, v3] = header;
        let space = space_from_number(space)
            .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "unknown key space"))?;
        let key = self.bytes(u32::from_le_bytes([k0, k1, k2, k3]))?;
        let value = self.bytes(u32::from_le_bytes([v0, v1, v2, v3]))?;
        Ok(Some((space, key, value)))
    }

    fn bytes(&mut self, length: u32) -> io::Result<Vec<u8>> {
        let mut bytes = Vec::new();
        // `take` bounds the allocation by what is really there.
        let read = self.0.by_ref().take(u64::from(length)).read_to_end(&mut bytes)?;
        if read < length as usize {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        Ok(bytes)
    }
}
