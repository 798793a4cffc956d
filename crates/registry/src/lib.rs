//! Typed objects over the store, and the caches that all watchers read
