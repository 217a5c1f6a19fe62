//! Biases on runs of ids: what a user likes to read more or less of.

use super::{History, Processor};

/// Adds to the logit of a run's last id behind all its others; of a run of one id always. Of several runs all count.
#[derive(Clone, Debug)]
pub struct SequenceBias(
    /// Runs, none empty, and what is added.
    pub Vec<(Vec<u32>, f32)>,
);

impl Processor for SequenceBias {
    fn name(&self) -> &'static str {
        "sequence_bias"
    }

    fn apply(&self, row: &mut [f32], history: &History) {
        for (run, bias) in &self.0 {
            if let Some(x) = completing(row, history, run) {
                *x += bias;
            }
        }
    }
}

/// The logit of a run's last id, if its others stand at the end of the text.
pub(super) fn completing<'r>(row: &'r mut [f32], history: &History, run: &[u32]) -> Option<&'r mut f32> {
    let (last, before) = run.split_last()?;
    row.get_mut(*last as usize).filter(|_| history.ids().ends_with(before))
}
