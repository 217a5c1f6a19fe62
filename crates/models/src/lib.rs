//! Architectures, checkpoints and model families.

pub mod checkpoint;
