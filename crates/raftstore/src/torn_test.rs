#![allow(clippy::unwrap_used)]

use rocksdb::{DB, DBRecoveryMode, Options, WriteOptions};

use super::*;

fn options() -> Options {
    let mut options = Options::default();
    options.create_if_missing(true);
    options.set_wal_recovery_mode(DBRecoveryMode::TolerateCorruptedTailRecords);
    options.set_track_and_verify_wals_in_manifest(true);
    options.set_recycle_log_file_num(0);
    options
}

/// A database that has written `sizes` and was not closed in order; its log as it was then.
fn written(directory: &Path, sizes: &[usize]) -> (PathBuf, Vec<u8>) {
    let mut synced = WriteOptions::default();
    synced.set_sync(true);
    let database = DB::open(&options(), directory).unwrap();
    for (number, size) in sizes.iter().enumerate() {
        database.put_opt([u8::try_from(number).unwrap()], vec![b'x'; *size], &synced).unwrap();
    }
    let log = newest_log(directory).unwrap().unwrap();
    let bytes = fs::read(&log).unwrap();
    drop(database);
    fs::write(&log, &bytes).unwrap();
    (log, bytes)
}

/// How many of the values are there after the damage, or why it does not open.
fn reopened(directory: &Path, count: u8) -> Result<usize, String> {
    mend(directory).unwrap();
    let database = DB::open(&options(), directory).map_err(|error| error.to_string())?;
    Ok((0..count).filter(|number| database.get([*number]).unwrap().is_some()).count())
}

#[test]
fn a_record_whose_end_reads_as_zeros_is_cut_off() {
    // The second one fits into a block, and goes over several.
    for last in [3_000, 100_000] {
        let directory = tempfile::tempdir().unwrap();
        let (log, mut bytes) = written(directory.path(), &[700, last]);
        let from = (bytes.len() - last / 2).next_multiple_of(SECTOR);
        bytes[from..].fill(0);
        fs::write(&log, &bytes).unwrap();
        let refused = DB::open_for_read_only(&options(), directory.path(), false);
        assert!(refused.is_err(), "RocksDB forgives this by itself now: this module may go");
        assert_eq!(reopened(directory.path(), 2), Ok(1));
    }
}

#[test]
fn what_is_whole_stays_as_it_is() {
    let directory = tempfile::tempdir().unwrap();
    let (log, bytes) = written(directory.path(), &[700, 3_000, 40_000]);
    assert_eq!(torn_at(&bytes), None);
    assert_eq!(reopened(directory.path(), 3), Ok(3));
    // A value of zeros at the end is no torn record, nor is room after the last record.
    let zeros = tempfile::tempdir().unwrap();
    let database = DB::open(&options(), zeros.path()).unwrap();
    database.put(b"k", vec![0; 5_000]).unwrap();
    let mut bytes = fs::read(newest_log(zeros.path()).unwrap().unwrap()).unwrap();
    assert_eq!(torn_at(&bytes), None);
    bytes.extend([0; 4096]);
    assert_eq!(torn_at(&bytes), None);
    assert_eq!(torn_at(&[]), None);
    assert_eq!(torn_at(&[0; 4096]), None);
    drop(log);
}

#[test]
fn damage_in_the_middle_is_left_alone() {
    let directory = tempfile::tempdir().unwrap();
    let (log, mut bytes) = written(directory.path(), &[700, 3_000, 3_000]);
    bytes[1024..2048].fill(0);
    fs::write(&log, &bytes).unwrap();
    assert_eq!(torn_at(&bytes), None);
    assert!(reopened(directory.path(), 3).is_err());
    // Also with zeros at the end, when the bad record ends before them.
    let length = bytes.len();
    bytes[length - 100..].fill(0);
    bytes.extend([0; 4096]);
    assert_eq!(torn_at(&bytes), None);
}
