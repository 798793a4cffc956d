//! End-to-end tests: real processes only
