//! The state machine's key spaces as column families of one RocksDB.
//!
//! There may be two generations of the families, `a.*` and `b.*`; one key in the default family
//! says which one is live. Installing a snapshot fills the other generation and then flips that
//! key: the only step that counts is one synced write. Whatever a crash leaves of the other
//! generation is dropped at the next start.

use std::io;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use parking_lot::RwLock;
use quorate_store::{Backend, BackendError, Batch, Direction, Space, View};
use rocksdb::{
    BoundColumnFamily, Cache, ColumnFamilyDescriptor, DBWithThreadMode, FlushOptions,
    MultiThreaded, ReadOptions, SnapshotWithThreadMode, WriteBatch, WriteOptions,
};

use super::tables::Tables;
use crate::error::RaftStoreError;
use crate::identity;
use crate::rocks::{self, Sizes};
use crate::torn;

pub(super) type Db = DBWithThreadMode<MultiThreaded>;
pub(super) type Family<'a> = Arc<BoundColumnFamily<'a>>;

/// In the order of [`slot`].
const SPACES: [Space; Space::COUNT] = Space::ALL;

/// Key in the default family: the name of the live generation.
const LIVE: &[u8] = b"live-generation";

const SIZES: Sizes = Sizes { write_buffer: 8 << 20, write_buffers: 3, wal: 64 << 20 };

/// Takes the records of a snapshot in the order of [`SPACES`] and keys: space, key, value.
pub(crate) type Sink<'a> = &'a mut dyn FnMut(Space, &[u8], &[u8]) -> io::Result<()>;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Generation {
    A,
    B,
}

impl Generation {
    fn other(self) -> Self {
        match self {
            Self::A => Self::B,
            Self::B => Self::A,
        }
    }

    fn families(self) -> [&'static str; Space::COUNT] {
        match self {
            Self::A => ["a.latest", "a.history", "a.index", "a.meta", "a.requests", "a.leases"],
            Self::B => ["b.latest", "b.history", "b.index", "b.meta", "b.requests", "b.leases"],
        }
    }

    fn name(self) -> &'static [u8] {
        match self {
            Self::A => b"a",
            Self::B => b"b",
        }
    }
}

/// Position of a space in every array of families.
fn slot(space: Space) -> usize {
    space as usize
}

/// The number that stands for a space in a snapshot's stream.
pub(crate) fn space_number(space: Space) -> u8 {
    // At most 5.
    u8::try_from(slot(space)).unwrap_or(u8::MAX)
}

pub(crate) fn space_from_number(number: u8) -> Option<Space> {
    SPACES.get(usize::from(number)).copied()
}

/// [`Backend`] over RocksDB.
pub(crate) struct RocksBackend {
    db: Db,
    cache: Cache,
    /// Read-locked while a view collects its families, write-locked for the flip.
    live: RwLock<Generation>,
}

pub(super) fn failed(error: rocksdb::Error) -> BackendError {
    BackendError::new(error.into_string())
}

/// Where a snapshot is turned into tables.
fn installing(database: &Path) -> PathBuf {
    database.join("installing")
}

impl RocksBackend {
    /// Opens or creates the database in `path`.
    pub(crate) fn open(path: &Path, cache: &Cache) -> Result<Self, RaftStoreError> {
        let database = |error| RaftStoreError::database(path, error);
        torn::mend(path).map_err(|error| RaftStoreError::io("cannot mend", path, error))?;
        let options = database_options();
        let existing = match path.join("CURRENT").exists() {
            true => Db::list_cf(&options, path).map_err(database)?,
            false => Vec::new(),
        };
        let families = existing
            .iter()
            .map(String::as_str)
            .filter(|name| *name != "default")
            .map(|name| ColumnFamilyDescriptor::new(name, family_options(name, cache)));
        let db = Db::open_cf_descriptors(&options, path, families).map_err(database)?;
        let backend = Self { db, cache: cache.clone(), live: RwLock::new(Generation::A) };
        backend.recover().map_err(|error| RaftStoreError::Database {
            path: path.to_owned(),
            reason: error.to_string(),
        })?;
        Ok(backend)
    }

    /// Finds the live generation and drops what is left of the other one.
    fn recover(&self) -> Result<(), BackendError> {
        let live = live_generation(&self.db)?.unwrap_or(Generation::A);
        *self.live.write() = live;
        identity::remove(&installing(self.db.path())).map_err(BackendError::new)?;
        for name in live.families() {
            if self.db.cf_handle(name).is_none() {
                self.db.create_cf(name, &family_options(name, &self.cache)).map_err(failed)?;
            }
        }
        self.drop_generation(live.other())
    }

    fn drop_generation(&self, generation: Generation) -> Result<(), BackendError> {
        for name in generation.families() {
            if self.db.cf_handle(name).is_some() {
                self.db.drop_cf(name).map_err(failed)?;
            }
        }
        Ok(())
    }

    fn families(&self, generation: Generation) -> Result<[Family<'_>; Space::COUNT], BackendError> {
        families(&self.db, generation)
    }

    /// Replaces the whole content by what `source` hands over. `check` sees the new content before
    /// it becomes visible and may refuse it; then the old content stays.
    pub(crate) fn install(
        &self,
        source: impl FnOnce(Sink<'_>) -> io::Result<()>,
        check: impl FnOnce(&RocksView<'_>) -> Result<(), BackendError>,
    ) -> Result<(), BackendError> {
        let old = *self.live.read();
        let new = old.other();
        self.drop_generation(new)?;
        for name in new.families() {
            self.db.create_cf(name, &family_options(name, &self.cache)).map_err(failed)?;
        }
        self.fill(new, source)?;
        crate::failpoint::pass("install-after-fill");
        check(&self.view_of(new)?)?;
        crate::failpoint::hit("state-install-before-flip")
            .map_err(|error| BackendError::new(error.to_string()))?;
        let mut live = self.live.write();
        let mut synced = WriteOptions::default();
        synced.set_sync(true);
        self.db.put_opt(LIVE, new.name(), &synced).map_err(failed)?;
        *live = new;
        drop(live);
        crate::failpoint::hit("state-install-after-flip")
            .map_err(|error| BackendError::new(error.to_string()))?;
        self.drop_generation(old)
    }

    fn fill(
        &self,
        generation: Generation,
        source: impl FnOnce(Sink<'_>) -> io::Result<()>,
    ) -> Result<(), BackendError> {
        let families = self.families(generation)?;
        let options = generation.families().map(|name| family_options(name, &self.cache));
        let mut tables =
            Tables::new(&options, installing(self.db.path())).map_err(BackendError::new)?;
        source(&mut |space, key, value| tables.put(space, key, value))
            .map_err(BackendError::new)?;
        tables.hand_over(&self.db, &families)
    }

    fn flush_families(&self, families: &[Family<'_>; Space::COUNT]) -> Result<(), BackendError> {
        let mut options = FlushOptions::default();
        options.set_wait(true);
        for family in families {
            self.db.flush_cf_opt(family, &options).map_err(failed)?;
        }
        Ok(())
    }

    /// Makes everything applied so far durable.
    pub(crate) fn flush(&self) -> Result<(), BackendError> {
        let live = self.live.read();
        self.flush_families(&self.families(*live)?)
    }

    fn view_of(&self, generation: Generation) -> Result<RocksView<'_>, BackendError> {
        Ok(RocksView { families: self.families(generation)?, snapshot: self.db.snapshot() })
    }

    /// Bytes of the files and of the write-ahead log.
    pub(crate) fn disk_bytes(&self) -> u64 {
        self.sum("rocksdb.total-sst-files-size") + self.sum("rocksdb.cur-size-all-mem-tables")
    }

    /// An estimate of the bytes that hold living data.
    pub(crate) fn live_bytes(&self) -> u64 {
        self.sum("rocksdb.estimate-live-data-size") + self.sum("rocksdb.cur-size-all-mem-tables")
    }

    /// The sum of a property over the live families; 0 for what RocksDB does not know.
    fn sum(&self, property: &str) -> u64 {
        let live = self.live.read();
        let Ok(families) = self.families(*live) else { return 0 };
        let values = families.iter().map(|f| self.db.property_int_value_cf(f, property));
        values.filter_map(|value| value.ok().flatten()).sum()
    }

    /// Rewrites all files without what is deleted.
    pub(crate) fn compact_files(&self) -> Result<(), BackendError> {
        let families = self.families(*self.live.read())?;
        self.flush_families(&families)?;
        for family in &families {
            self.db.compact_range_cf(family, None::<&[u8]>, None::<&[u8]>);
        }
        Ok(())
    }

    /// Hard-links the present content into `target`, which must not exist. Flushes first, so
    /// that the content is durable here as well.
    pub(crate) fn checkpoint(&self, target: &Path) -> Result<(), BackendError> {
        let checkpoint = rocksdb::checkpoint::Checkpoint::new(&self.db).map_err(failed)?;
        checkpoint.create_checkpoint(target).map_err(failed)
    }
}

/// A checkpoint, opened for reading.
pub(crate) struct Checkpoint {
    db: Db,
    live: Generation,
}

impl Checkpoint {
    pub(crate) fn open(path: &Path) -> Result<Self, BackendError> {
        let mut options = database_options();
        options.create_if_missing(false);
        options.create_missing_column_families(false);
        let names = Db::list_cf(&options, path).map_err(failed)?;
        let db = Db::open_cf_for_read_only(&options, path, names, false).map_err(failed)?;
        let live = live_generation(&db)?.unwrap_or(Generation::A);
        Ok(Self { db, live })
    }

    pub(crate) fn view(&self) -> Result<RocksView<'_>, BackendError> {
        Ok(RocksView { families: families(&self.db, self.live)?, snapshot: self.db.snapshot() })
    }

    /// Hands every record to `sink` until it breaks.
    pub(crate) fn read(
        &self,
        mut sink: impl FnMut(Space, &[u8], &[u8]) -> ControlFlow<()>,
    ) -> Result<(), BackendError> {
        let view = self.view()?;
        for space in SPACES {
            let mut stopped = false;
            view.scan(space, &[], None, Direction::Forward, &mut |key, value| {
                let flow = sink(space, key, value);
                stopped = flow.is_break();
                flow
            })?;
            if stopped {
                break;
            }
        }
        Ok(())
    }
}

fn database_options() -> rocksdb::Options {
    let mut options = rocks::database_options(&SIZES);
    options.set_db_write_buffer_size(12 << 20);
    options
}

fn family_options(name: &str, cache: &Cache) -> rocksdb::Options {
    let mut options = rocks::family_options(&SIZES, cache, !name.ends_with("history"));
    options.set_arena_block_size(256 << 10);
    options.set_compression_type(rocksdb::DBCompressionType::Lz4);
    options
}

fn live_generation(db: &Db) -> Result<Option<Generation>, BackendError> {
    match db.get(LIVE).map_err(failed)?.as_deref() {
        None => Ok(None),
        Some(b"a") => Ok(Some(Generation::A)),
        Some(b"b") => Ok(Some(Generation::B)),
        Some(other) => Err(BackendError::new(format!("unknown generation {other:?}"))),
    }
}

fn families(db: &Db, generation: Generation) -> Result<[Family<'_>; Space::COUNT], BackendError> {
    let [latest, history, index, meta, requests, leases] = generation.families().map(|name| {
        db.cf_handle(name).ok_or_else(|| BackendError::new(format!("no column family {name}")))
    });
    Ok([latest?, history?, index?, meta?, requests?, leases?])
}

/// A consistent view; it survives the installation of a snapshot.
pub(crate) struct RocksView<'a> {
    families: [Family<'a>; Space::COUNT],
    snapshot: SnapshotWithThreadMode<'a, Db>,
}

impl View for RocksView<'_> {
    fn get(&self, space: Space, key: &[u8]) -> Result<Option<Bytes>, BackendError> {
        let value =
            self.snapshot.get_pinned_cf(&self.families[slot(space)], key).map_err(failed)?;
        Ok(value.map(|value| Bytes::copy_from_slice(&value)))
    }

    fn scan(
        &self,
        space: Space,
        start: &[u8],
        end: Option<&[u8]>,
        direction: Direction,
        visit: &mut dyn FnMut(&[u8], &[u8]) -> ControlFlow<()>,
    ) -> Result<(), BackendError> {
        if end.is_some_and(|end| end <= start) {
            return Ok(());
        }
        let mut options = ReadOptions::default();
        options.set_iterate_lower_bound(start);
        if let Some(end) = end {
            options.set_iterate_upper_bound(end);
        }
        let family = &self.families[slot(space)];
        let mut iterator = self.snapshot.raw_iterator_cf_opt(family, options);
        match direction {
            Direction::Forward => iterator.seek_to_first(),
            Direction::Backward => iterator.seek_to_last(),
        }
        while let Some((key, value)) = iterator.item() {
            if visit(key, value).is_break() {
                return Ok(());
            }
            match direction {
                Direction::Forward => iterator.next(),
                Direction::Backward => iterator.prev(),
            }
        }
        iterator.status().map_err(failed)
    }
}

impl Backend for RocksBackend {
    type View<'a> = RocksView<'a>;

    #[expect(clippy::expect_used, reason = "the live families exist: the lock keeps them")]
    fn view(&self) -> RocksView<'_> {
        let live = self.live.read();
        self.view_of(*live).expect("the families of the live generation")
    }

    /// Not synced: what a crash of the machine loses is applied again from the log.
    fn commit(&self, batch: Batch) -> Result<(), BackendError> {
        let live = self.live.read();
        let families = self.families(*live)?;
        let mut write = WriteBatch::default();
        for (space, key, value) in batch.ops {
            let family = &families[slot(space)];
            match value {
                Some(value) => write.put_cf(family, key, value),
                None => write.delete_cf(family, key),
            }
        }
        // Keys of one family follow one another: the batch is ordered.
        let mut options = WriteOptions::default();
        options.set_memtable_insert_hint_per_batch(true);
        self.db.write_opt(write, &options).map_err(failed)
    }
}

#[cfg(test)]
#[path = "backend_test.rs"]
mod tests;
