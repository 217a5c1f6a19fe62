//! Ids that must come: one behind the start, one at the limit of tokens, some at places of their own.

use super::{History, Processor};

/// Leaves one id where the history is one id long: behind a decoder's start, the language of a translation.
#[derive(Clone, Copy, Debug)]
pub struct ForcedBos(
    /// The id.
    pub u32,
);

impl Processor for ForcedBos {
    fn name(&self) -> &'static str {
        "forced_bos_token_id"
    }

    fn apply(&self, row: &mut [f32], history: &History) {
        if history.ids().len() == 1 {
            leave(row, &[self.0]);
        }
    }
}

/// Leaves some ids where the next is the last that the limit allows, so that what is cut off has an end.
#[derive(Clone, Debug)]
pub struct ForcedEos(
    /// The ids, equally likely.
    pub Vec<u32>,
);

impl Processor for ForcedEos {
    fn name(&self) -> &'static str {
        "forced_eos_token_id"
    }

    fn apply(&self, row: &mut [f32], history: &History) {
        if history.new_ids().len() + 1 == history.limit() {
            leave(row, &self.0);
        }
    }
}

/// Leaves one id at each of some positions (Whisper's language and task).
#[derive(Clone, Debug)]
pub struct ForcedIds(
    /// Ids of the whole text before the forced one, the prompt's or the decoder's start included, and the id; `None` forces
    /// nothing. Of several for a position the last counts.
    pub Vec<(usize, Option<u32>)>,
);

impl Processor for ForcedIds {
    fn name(&self) -> &'static str {
        "forced_decoder_ids"
    }

    fn apply(&self, row: &mut [f32], history: &History) {
        let here = self.0.iter().rev().find(|(position, _)| *position == history.ids().len());
        if let Some((_, Some(id))) = here {
            leave(row, &[*id]);
        }
    }
}

/// As certain as an id can be: the logarithm of 1.
fn leave(row: &mut [f32], ids: &[u32]) {
    row.fill(f32::NEG_INFINITY);
    for &id in ids {
        if let Some(x) = row.get_mut(id as usize) {
            *x = 0.;
        }
    }
}
