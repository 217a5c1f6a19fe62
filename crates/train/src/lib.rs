//! Training: recipes, schedules, and everything that a run shows and writes.

pub mod metrics;
pub mod progress;
pub mod recipe;
pub mod report;
pub mod rundir;
pub mod schedule;
pub mod signals;
pub mod tensorboard;
