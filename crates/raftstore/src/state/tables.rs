//! Fills empty column families with records that come in order, as finished tables: nothing is
//! buffered, sorted or compacted, which is several times as fast as writes.

use std::io;
use std::path::PathBuf;

use quorate_store::{BackendError, Space};
use rocksdb::{IngestExternalFileOptions, Options, SstFileWriter};

use super::backend::{Db, Family, failed};
use crate::identity::remove;

/// Bytes of a table; that of the tables that compaction makes.
const TABLE_BYTES: u64 = 16 << 20;

/// Records on their way into the families of one generation.
pub(super) struct Tables<'a> {
    /// Of the families, in the order of their spaces.
    options: &'a [Options; Space::COUNT],
    /// Where tables are written before they become the database's; on the same file system.
    directory: PathBuf,
    written: [Vec<PathBuf>; Space::COUNT],
    open: Option<(Space, SstFileWriter<'a>)>,
}

impl<'a> Tables<'a> {
    /// In an empty directory, which is made.
    pub(super) fn new(
        options: &'a [Options; Space::COUNT],
        directory: PathBuf,
    ) -> io::Result<Self> {
        remove(&directory)?;
        std::fs::create_dir(&directory)?;
        Ok(Self { options, directory, written: Default::default(), open: None })
    }

    /// Adds a record. Spaces come one after the other, keys within one in ascending order; RocksDB
    /// refuses any other.
    pub(super) fn put(&mut self, space: Space, key: &[u8], value: &[u8]) -> io::Result<()> {
        let full = |(of, table): &(Space, SstFileWriter<'_>)| {
            *of != space || table.file_size() >= TABLE_BYTES
        };
        if self.open.as_ref().is_some_and(full) {
            self.finish()?;
        }
        let (_, table) = match &mut self.open {
            Some(open) => open,
            None => {
                let written = &mut self.written[space as usize];
                let name = format!("{}-{}", space.name(), written.len());
                let path = self.directory.join(name);
                let table = SstFileWriter::create(&self.options[space as usize]);
                table.open(&path).map_err(io::Error::other)?;
                written.push(path);
                self.open.insert((space, table))
            }
        };
        table.put(key, value).map_err(io::Error::other)
    }

    /// Ends the table that is being written, which syncs it.
    fn finish(&mut self) -> io::Result<()> {
        match self.open.take() {
            Some((_, mut table)) => table.finish().map_err(io::Error::other),
            None => Ok(()),
        }
    }

    /// Makes the tables the content of the families, durably.
    pub(super) fn hand_over(
        mut self,
        db: &Db,
        families: &[Family<'_>; Space::COUNT],
    ) -> Result<(), BackendError> {
        self.finish().map_err(BackendError::new)?;
        let mut options = IngestExternalFileOptions::default();
        options.set_move_files(true);
        for (family, tables) in families.iter().zip(std::mem::take(&mut self.written)) {
            if !tables.is_empty() {
                db.ingest_external_file_cf_opts(family, &options, tables).map_err(failed)?;
            }
        }
        Ok(())
    }
}

impl Drop for Tables<'_> {
    fn drop(&mut self) {
        if let Err(error) = remove(&self.directory) {
            tracing::warn!(path = %self.directory.display(), %error, "cannot remove tables");
        }
    }
}
