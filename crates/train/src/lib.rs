//! Training: recipes, schedules, and everything a run writes down.

pub mod recipe;
pub mod schedule;
