//! Phyla.
