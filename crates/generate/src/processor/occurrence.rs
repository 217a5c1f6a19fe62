//! The frequency and presence penalties of OpenAI's interface, over the answer.

use super::{History, Processor};

/// Takes from the logit of each id of the answer: for each time that it occurs, and once for occurring at all.
#[derive(Clone, Copy, Debug)]
pub struct OccurrencePenalty {
    /// For each time; below 0 encourages.
    pub frequency: f32,
    /// Once.
    pub presence: f32,
}

impl Processor for OccurrencePenalty {
    fn name(&self) -> &'static str {
        match (self.frequency != 0., self.presence != 0.) {
            (true, true) => "frequency_penalty, presence_penalty",
            (true, false) => "frequency_penalty",
            (false, _) => "presence_penalty",
        }
    }

    fn apply(&self, row: &mut [f32], history: &History) {
        let mut ids = history.new_ids().to_vec();
        ids.sort_unstable();
        for same in ids.chunk_by(|a, b| a == b) {
            if let Some(x) = row.get_mut(same[0] as usize) {
                *x -= same.len() as f32 * self.frequency + self.presence;
            }
        }
    }
}
