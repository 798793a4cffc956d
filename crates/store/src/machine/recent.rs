//! [`Recent`]: records as they are, of keys that were looked at lately. Whoever changes a key has
//! mostly read or written it a moment before.

use bytes::Bytes;
use parking_lot::Mutex;
use quick_cache::Weighter;
use quick_cache::unsync::Cache;

/// Bytes kept, roughly.
const BYTES: u64 = 4 << 20;
/// What an entry takes beside its key and its record.
const ENTRY_BYTES: u64 = 96;
/// Of one entry, to begin with.
const ESTIMATE: u64 = 512;

/// The present record of a key; nothing, when the key does not exist.
type Record = Option<Bytes>;

#[derive(Clone)]
struct Size;

impl Weighter<Bytes, Record> for Size {
    fn weight(&self, key: &Bytes, record: &Record) -> u64 {
        ENTRY_BYTES + (key.len() + record.as_ref().map_or(0, Bytes::len)) as u64
    }
}

/// Of the applied state, for the one who applies: readers have views of their own.
pub(super) struct Recent(Mutex<Cache<Bytes, Record, Size>>);

impl Default for Recent {
    fn default() -> Self {
        let items = usize::try_from(BYTES / ESTIMATE).unwrap_or(1);
        Self(Mutex::new(Cache::with_weighter(items, BYTES, Size)))
    }
}

impl Recent {
    /// What is known of the key.
    pub fn get(&self, key: &[u8]) -> Option<Record> {
        self.0.lock().get(key).cloned()
    }

    /// The key's record is this now.
    pub fn set(&self, key: &[u8], record: Record) {
        // The key may be a piece of a large message.
        self.0.lock().insert(Bytes::copy_from_slice(key), record);
    }

    /// The state has been replaced.
    pub fn clear(&self) {
        self.0.lock().clear();
    }
}
