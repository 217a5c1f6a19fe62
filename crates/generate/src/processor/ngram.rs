//! No run of ids twice (Paulus et al. 2018, section 2.5), over prompt and answer.

use super::{History, Processor};

/// Rules out ids that would complete a run that has been before.
#[derive(Clone, Copy, Debug)]
pub struct NoRepeatNgram(
    /// Ids of a run, at least 1.
    pub usize,
);

impl Processor for NoRepeatNgram {
    fn name(&self) -> &'static str {
        "no_repeat_ngram_size"
    }

    fn apply(&self, row: &mut [f32], history: &History) {
        rule_out(row, history.ids(), history.ids(), self.0);
    }
}

/// Rules out ids with which the end of `ids` would complete a run of `n` ids of `text`.
pub(super) fn rule_out(row: &mut [f32], text: &[u32], ids: &[u32], n: usize) {
    let n = n.max(1);
    let Some(begun) = (ids.len() + 1).checked_sub(n).map(|from| &ids[from..]) else { return };
    for run in text.windows(n).filter(|run| run.starts_with(begun)) {
        if let Some(x) = row.get_mut(run[n - 1] as usize) {
            *x = f32::NEG_INFINITY;
        }
    }
}
