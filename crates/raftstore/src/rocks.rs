//! RocksDB settings that both databases share. Small on purpose: an idle master must fit in
//! 50 MB together with everything else.

use rocksdb::{BlockBasedOptions, Cache, DBRecoveryMode, Options};

/// Limits of one database.
pub(crate) struct Sizes {
    /// Bytes of one write buffer.
    pub write_buffer: usize,
    /// Write buffers per column family, the one being filled included.
    pub write_buffers: i32,
    /// Bytes of write-ahead log after which the column family that pins it is flushed.
    pub wal: u64,
}

/// Options of a database (not of its column families).
pub(crate) fn database_options(sizes: &Sizes) -> Options {
    let mut options = Options::default();
    options.create_if_missing(true);
    options.create_missing_column_families(true);
    // A torn tail is normal after a crash and tolerated; a bad record in the middle is not. With
    // the WALs tracked in the manifest a whole missing WAL is noticed as well. Both need WAL
    // files that are never recycled.
    options.set_wal_recovery_mode(DBRecoveryMode::TolerateCorruptedTailRecords);
    options.set_track_and_verify_wals_in_manifest(true);
    options.set_recycle_log_file_num(0);
    options.set_max_total_wal_size(sizes.wal);
    options.set_max_background_jobs(2);
    options.set_max_open_files(256);
    options.set_keep_log_file_num(3);
    options.set_max_log_file_size(4 << 20);
    options.set_stats_dump_period_sec(0);
    options.set_stats_persist_period_sec(0);
    options.set_bytes_per_sync(1 << 20);
    options
}

/// Options of a column family.
pub(crate) fn family_options(sizes: &Sizes, cache: &Cache, bloom: bool) -> Options {
    let mut table = BlockBasedOptions::default();
    table.set_block_cache(cache);
    table.set_block_size(16 << 10);
    // Indexes and filters stay with their open tables, about 4 MB for a million keys. In the cache
    // they would be thrown out by each other: the filter of one table is larger than a shard of
    // the cache, and was then read, whole, for every single key.
    table.set_cache_index_and_filter_blocks(false);
    table.set_format_version(5);
    if bloom {
        table.set_bloom_filter(10.0, false);
    }
    let mut options = Options::default();
    options.set_block_based_table_factory(&table);
    options.set_write_buffer_size(sizes.write_buffer);
    options.set_max_write_buffer_number(sizes.write_buffers);
    options.set_target_file_size_base(16 << 20);
    options.set_max_bytes_for_level_base(64 << 20);
    options.set_level_compaction_dynamic_level_bytes(true);
    options
}
