//! What stands beside a model while it learns, and is no part of it.

use crate::allocator::Allocator;
use crate::critic::Critic;
use crate::teacher::Teacher;
use crate::thresholds::Thresholds;

/// All of it; most runs have none.
#[derive(Clone, Copy, Debug, Default)]
pub struct Beside<'a> {
    /// The value head of PPO.
    pub critic: Option<&'a Critic>,
    /// Another model, whose distributions are learned.
    pub teacher: Option<&'a Teacher>,
    /// Of graded texts: what lies between the grades.
    pub thresholds: Option<&'a Thresholds>,
    /// What takes directions of an adapter away.
    pub allocator: Option<&'a Allocator>,
}
