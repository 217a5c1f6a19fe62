//! What the fuzz targets call; the bounded test of `crates/phyla/tests/mutations.rs` calls the same.

pub mod entries;
