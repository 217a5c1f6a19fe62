//! Log-probabilities of what the processors before have left.

use phyla_kernels::loss::log_softmax_rows;

use super::{History, Processor};

/// Makes the probabilities sum to 1 again.
#[derive(Clone, Copy, Debug)]
pub struct Renormalize;

impl Processor for Renormalize {
    fn name(&self) -> &'static str {
        "renormalize_logits"
    }

    fn apply(&self, row: &mut [f32], _: &History) {
        // Where nothing is left there is nothing to share out, and a logarithm of it would be no number.
        if crate::sampler::largest(row) > f32::NEG_INFINITY {
            log_softmax_rows(row, row.len());
        }
    }
}
