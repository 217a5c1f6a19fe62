//! `[method]`: which weights are trained, and how.

use phyla_nn::pattern::{Pattern, PatternError};
use serde::{Deserialize, Serialize};

/// The way of adapting the weights.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Method {
    /// Train the weights themselves.
    Full(Full),
}

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
