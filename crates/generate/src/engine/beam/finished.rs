//! The finished beams of a prompt, best first, and when no running one can get among them.
//!
//! Plain beams are judged as in transformers 5. Beams in groups and beams with words to write are judged as in version 4.28.1,
//! the reference for both: a score is over the length of the whole sequence, prompt included and end excluded, and what
//! a running beam may come to is told by the best continuation that was on offer, whether it ended or not.

use super::super::Prompt;
use crate::Settings;
use crate::config::EarlyStopping;

/// A finished beam.
#[derive(Clone, Debug, PartialEq)]
pub(in super::super) struct Finished {
    /// The new ids.
    pub ids: Vec<u32>,
    /// For each of them the rank of the beam that it continues.
    pub origins: Vec<u32>,
    /// Log-probability over length to a power.
    pub score: f64,
    /// Whether all words that were to be written are.
    pub met: bool,
}

/// All of a prompt, at most as many as there are beams.
#[derive(Debug)]
pub(in super::super) struct Hypotheses<'a> {
    settings: &'a Settings,
    prompt: usize,
    limit: usize,
    pub best: Vec<Finished>,
}

impl<'a> Hypotheses<'a> {
    /// None yet.
    pub fn new(prompt: &Prompt, settings: &'a Settings) -> Self {
        Self { settings, prompt: prompt.ids.len(), limit: prompt.limit, best: vec![] }
    }

    /// Whether scores are those of version 4.28.1.
    pub fn older(&self) -> bool {
        self.settings.groups > 1 || !self.settings.forced_words.is_empty()
    }

    /// Adds one, if it is good enough; returns its score. `sum` is its log-probability; `ended` if its last id is an end.
    pub fn add(&mut self, finished: Finished, sum: f32, ended: bool) -> f32 {
        let most = self.settings.beams;
        let length = if self.older() { finished.ids.len() - usize::from(ended) } else { finished.ids.len() };
        let score = self.score(sum, length);
        let full = self.best.len() == most;
        let at = if self.older() {
            // Of equals the later, and what is impossible never; no new one takes the place of an equal last one.
            if score == f64::NEG_INFINITY || full && self.worst() >= score {
                return score as f32;
            }
            self.best.partition_point(|other| other.score > score)
        } else {
            self.best.partition_point(|other| other.score >= score)
        };
        self.best.insert(at, Finished { score, ..finished });
        self.best.truncate(most);
        score as f32
    }

    /// What a beam of `length` new ids scores.
    pub fn score(&self, sum: f32, length: usize) -> f64 {
        let power = f64::from(self.settings.length_penalty);
        if self.older() {
            f64::from(sum) / ((self.prompt + length) as f64).powf(power)
        } else {
            f64::from(sum / (length as f64).powf(power) as f32)
        }
    }

    /// Whether a running beam may get among the finished ones: the best has come to `sum` with so many new ids.
    pub fn can_improve(&self, sum: f32, length: usize) -> bool {
        if self.best.len() < self.settings.beams {
            return true;
        }
        let length = match self.settings.early_stopping {
            EarlyStopping::Enough => return false,
            // The longer the better: as long as it may become.
            EarlyStopping::Never if self.settings.length_penalty > 0. => self.limit,
            EarlyStopping::Never | EarlyStopping::Likely => length,
        };
        self.score(sum, length) > self.worst()
    }

    fn worst(&self) -> f64 {
        self.best.last().map_or(f64::NEG_INFINITY, |worst| worst.score)
    }
}
