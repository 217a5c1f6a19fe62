//! Ids that a caller's function allows behind a text (De Cao et al. 2021: names of entities): for what no setting says.

use std::fmt;
use std::sync::Arc;

use super::{History, Processor};

/// Which ids may follow: from the number of the prompt in its call and all ids so far, the prompt's (behind an encoder the
/// decoder's) included, to those that may be next. None is an error of the call.
type Allowed = dyn Fn(usize, &[u32]) -> Vec<u32> + Send + Sync;

/// Leaves the ids that a function allows. Two of them are equal if they are the same function.
///
/// ```
/// use phyla_generate::{GenerationConfig, PrefixAllowed};
///
/// // Even ids only.
/// let even = PrefixAllowed::new(|_, _| (0..100).step_by(2).collect());
/// let config = GenerationConfig { prefix_allowed: Some(even), ..Default::default() };
/// ```
#[derive(Clone)]
pub struct PrefixAllowed(Arc<Allowed>);

impl PrefixAllowed {
    /// By this function: of the number of the prompt in its call, and all ids so far.
    pub fn new(allowed: impl Fn(usize, &[u32]) -> Vec<u32> + Send + Sync + 'static) -> Self {
        Self(Arc::new(allowed))
    }
}

impl Processor for PrefixAllowed {
    fn name(&self) -> &'static str {
        "prefix_allowed"
    }

    fn apply(&self, row: &mut [f32], history: &History) {
        let ids = self.0(history.number(), history.ids());
        let kept: Vec<(u32, f32)> = ids.iter().filter_map(|&id| Some((id, *row.get(id as usize)?))).collect();
        row.fill(f32::NEG_INFINITY);
        for (id, x) in kept {
            row[id as usize] = x;
        }
    }
}

impl fmt::Debug for PrefixAllowed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PrefixAllowed")
    }
}

impl PartialEq for PrefixAllowed {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}
