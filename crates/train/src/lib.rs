//! Training: recipes, the loop, optimisers, schedules, and everything that a run shows and writes.

mod adapt;
mod average;
mod calibration;
mod corpus;
pub mod critic;
mod error;
mod evaluate;
mod judge;
mod lessons;
pub mod metrics;
pub mod objective;
pub mod optimizer;
pub mod plan;
pub mod progress;
pub mod recipe;
mod records;
mod reference;
pub mod report;
mod resume;
mod reward;
mod rollout;
mod run;
pub mod rundir;
mod sample;
pub mod schedule;
mod setup;
pub mod signals;
mod state;
pub mod step;
mod supply;
pub mod teacher;
pub mod tensorboard;
mod vocabulary;

pub use error::TrainError;
pub use lessons::Lessons;
pub use run::{Options, Stopped, Summary, train};
