//! What is being written has been looked at already when the store shows it to the cache.

use std::collections::HashMap;
use std::sync::Arc;

use bytes::Bytes;
use parking_lot::Mutex;

use crate::stored::Stored;

/// Entries for writes whose change has not come yet; beyond that all are forgotten.
const MOST: usize = 16 * 1024;

/// Looks at texts that are on their way through the store, by key.
#[derive(Default)]
pub(crate) struct Fresh(Mutex<HashMap<Bytes, (Bytes, Arc<Stored>)>>);

impl Fresh {
    /// Before it is proposed.
    pub fn note(&self, key: Bytes, text: Bytes, seen: Arc<Stored>) {
        let mut entries = self.0.lock();
        if entries.len() >= MOST {
            // Of changes that were read in a list, not followed.
            entries.clear();
        }
        entries.insert(key, (text, seen));
    }

    /// When it has come, or never will.
    pub fn take(&self, key: &[u8], text: &[u8]) -> Option<Stored> {
        let mut entries = self.0.lock();
        if entries.get(key).is_none_or(|(noted, _)| *noted != text) {
            return None;
        }
        let (_, seen) = entries.remove(key)?;
        drop(entries);
        Some(Arc::try_unwrap(seen).unwrap_or_else(|shared| Stored::clone(&shared)))
    }
}

#[cfg(test)]
mod tests {
    use quorate_objects::kinds;

    use super::*;
    use crate::object::look;

    #[test]
    fn only_the_very_text_is_taken_and_only_once() {
        let fresh = Fresh::default();
        let text = Bytes::from_static(br#"{"metadata":{"name":"a"}}"#);
        let seen = Arc::new(look(&kinds::CONFIG_MAP, &text).unwrap());
        fresh.note(Bytes::from_static(b"k"), text.clone(), seen);
        assert!(fresh.take(b"other", &text).is_none());
        assert!(fresh.take(b"k", br#"{"metadata":{"name":"b"}}"#).is_none(), "another's write");
        let taken = fresh.take(b"k", &text).unwrap();
        assert_eq!(taken.meta.name.as_deref(), Some("a"));
        assert!(fresh.take(b"k", &text).is_none());
    }
}
