//! Training of the weights themselves: all of them, all but some, or some alone.

use phyla_nn::pattern::{Pattern, PatternError};
use serde::{Deserialize, Serialize};

/// All weights but the frozen ones.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Full {
    /// Path patterns of weights that stay as they are.
    pub freeze: Vec<Pattern>,
}

impl Full {
    /// Whether the parameter at this path stays as it is.
    #[must_use]
    pub fn is_frozen(&self, path: &str) -> bool {
        self.freeze.iter().any(|pattern| pattern.covers(path))
    }

    /// Checks the patterns against the model's parameter paths.
    ///
    /// # Errors
    /// A pattern that matches nothing, or patterns that leave nothing to train.
    pub fn check_paths(&self, paths: &[&str]) -> Result<(), PatternError> {
        for pattern in &self.freeze {
            pattern.require_match(paths.iter().copied())?;
        }
        if !paths.is_empty() && paths.iter().all(|path| self.is_frozen(path)) {
            return Err(PatternError::new(format!(
                "`method.freeze` covers all {} parameters: nothing is left to train",
                paths.len()
            )));
        }
        Ok(())
    }
}

/// One kind of weights, and whatever else is named.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Only {
    /// Path patterns of weights that are trained, too, such as a new head.
    pub also: Vec<Pattern>,
}

impl Only {
    /// Checks the patterns against the model's parameter paths.
    ///
    /// # Errors
    /// A pattern that matches nothing.
    pub fn check_paths(&self, paths: &[&str]) -> Result<(), PatternError> {
        self.also.iter().try_for_each(|pattern| pattern.require_match(paths.iter().copied()))
    }

    /// Whether the parameter at this path is one of the others.
    #[must_use]
    pub fn covers(&self, path: &str) -> bool {
        self.also.iter().any(|pattern| pattern.covers(path))
    }
}
