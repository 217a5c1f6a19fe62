//! The watcher of an explanation: it keeps whole rows of scores only until their choice is made, and then what is shown.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use phyla_generate::{At, Fate, Moment, Why};

use super::token::Tokens;
use super::{BeamCandidate, BeamStep, Guesses, Limits, Pass, Pick, Stage, Step, Weighed};

pub(super) struct Recorder<'a> {
    tokens: &'a Tokens<'a>,
    limits: Limits,
    kept: Mutex<Kept>,
}

#[derive(Default)]
struct Kept {
    /// The rows of steps that are still open, each as it was at every stage.
    open: HashMap<At, Vec<(&'static str, Vec<f32>)>>,
    told: Told,
}

/// What was told of a prompt.
#[derive(Default)]
pub(super) struct Told {
    pub steps: Vec<Step>,
    pub beams: Vec<BeamStep>,
    pub guesses: Vec<Guesses>,
    pub passes: Vec<Pass>,
    pub left_out: usize,
}

impl<'a> Recorder<'a> {
    pub fn new(tokens: &'a Tokens<'a>, limits: Limits) -> Self {
        Self { tokens, limits, kept: Mutex::default() }
    }

    pub fn into_told(self) -> Told {
        self.kept.into_inner().unwrap_or_else(PoisonError::into_inner).told
    }

    pub fn hear(&self, moment: &Moment) {
        let kept = &mut *self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        match *moment {
            Moment::Scores { at, stage, scores } => {
                let rows = kept.open.entry(at).or_default();
                let name = match stage {
                    phyla_generate::Stage::Logits => "logits",
                    phyla_generate::Stage::LogProbabilities => "log-probabilities",
                    phyla_generate::Stage::Processor(name) => name,
                    // Told again; where it is something else, something else has changed it.
                    phyla_generate::Stage::Choice if rows.last().is_some_and(|(_, last)| same(last, scores)) => return,
                    phyla_generate::Stage::Choice => "choice",
                };
                // Told, and left as it was, by what leads to nothing of it.
                if kept.told.steps.len() < self.limits.steps {
                    rows.push((name, scores.to_vec()));
                }
            }
            Moment::Picked { at, id, why } => self.picked(kept, at, id, why),
            Moment::Beams { step, candidates, .. } => self.beams(kept, step, candidates),
            Moment::Guessed { at, ids, right } => {
                let tokens = ids.iter().map(|&id| self.tokens.token(id)).collect();
                kept.told.guesses.push(Guesses { step: at.step, tokens, right });
            }
            Moment::Read { ids, positions, bytes } => kept.told.passes.push(Pass { ids, positions, bytes }),
            Moment::Layers { .. } | Moment::Encoded { .. } => {}
        }
    }

    fn picked(&self, kept: &mut Kept, at: At, id: u32, why: Why) {
        let (name, uniform, all) = match why {
            Why::Likeliest => ("likeliest", None, &[][..]),
            Why::Drawn { uniform } => ("drawn", Some(uniform), &[][..]),
            Why::Contrast { weighed } => ("contrast", None, weighed),
        };
        let more: Vec<u32> = std::iter::once(id).chain(all.iter().map(|weighed| weighed.id)).collect();
        let rows = kept.open.remove(&at).unwrap_or_default();
        let below = uniform.and_then(|_| rows.last()).map(|(_, row)| below(row, id));
        let Some(mut step) = self.step(at, &rows, &more) else {
            kept.told.left_out += 1;
            return;
        };
        let candidate = |id: u32| step.candidates.iter().position(|token| token.id == id).unwrap_or(0);
        let weigh = |w: &phyla_generate::Weighed| Weighed {
            candidate: candidate(w.id),
            probability: w.probability,
            likeness: w.likeness,
            score: w.score,
        };
        let weighed = all.iter().map(weigh).collect();
        step.pick = Some(Pick { candidate: candidate(id), why: name, uniform, below, weighed });
        kept.told.steps.push(step);
    }

    fn beams(&self, kept: &mut Kept, step: usize, candidates: &[phyla_generate::BeamCandidate]) {
        let mut open: Vec<_> = kept.open.drain().collect();
        open.sort_unstable_by_key(|(at, _)| at.branch);
        for (at, rows) in open {
            let own: Vec<u32> = candidates.iter().filter(|c| c.parent == at.branch).map(|c| c.id).collect();
            match self.step(at, &rows, &own).filter(|_| kept.told.steps.len() < self.limits.steps) {
                Some(step) => kept.told.steps.push(step),
                None => kept.told.left_out += 1,
            }
        }
        let candidate = |c: &phyla_generate::BeamCandidate| {
            let (fate, rank, final_score) = match c.fate {
                Fate::Runs(rank) => ("runs", Some(rank), None),
                Fate::Finished(score) => ("finished", None, Some(score)),
                Fate::Dropped => ("dropped", None, None),
            };
            let token = self.tokens.token(c.id);
            BeamCandidate { parent: c.parent, token, score: c.score, fate, rank, final_score, returned: false }
        };
        kept.told.beams.push(BeamStep { step, candidates: candidates.iter().map(candidate).collect() });
    }

    /// What is shown of a step's rows; `None` if there are none. `more` is shown however unlikely it is.
    fn step(&self, at: At, rows: &[(&'static str, Vec<f32>)], more: &[u32]) -> Option<Step> {
        let ((_, first), (_, last)) = (rows.first()?, rows.last()?);
        let mut ids: Vec<u32> = likeliest(first, self.limits.candidates);
        ids.extend(likeliest(last, self.limits.candidates));
        ids.extend(more);
        let likely = |id: &u32| first.get(*id as usize).copied().unwrap_or(f32::NEG_INFINITY);
        ids.sort_unstable_by(|a, b| likely(b).total_cmp(&likely(a)).then(a.cmp(b)));
        ids.dedup();
        Some(Step {
            branch: at.branch,
            step: at.step,
            candidates: ids.iter().map(|&id| self.tokens.token(id)).collect(),
            stages: rows.iter().map(|(name, row)| stage(name, row, &ids)).collect(),
            pick: None,
        })
    }
}

/// The very same numbers.
fn same(a: &[f32], b: &[f32]) -> bool {
    a.len() == b.len() && a.iter().zip(b).all(|(a, b)| a.to_bits() == b.to_bits())
}

/// The likeliest ids that are not ruled out.
fn likeliest(row: &[f32], count: usize) -> Vec<u32> {
    let mut ids: Vec<u32> = (0..row.len() as u32).filter(|&id| row[id as usize] > f32::NEG_INFINITY).collect();
    let falling = |a: &u32, b: &u32| row[*b as usize].total_cmp(&row[*a as usize]).then(a.cmp(b));
    if count < ids.len() {
        ids.select_nth_unstable_by(count, falling);
        ids.truncate(count);
    }
    ids
}

/// The largest score, and the sum of what all are beside it.
fn total(row: &[f32]) -> (f64, f64) {
    let most = f64::from(row.iter().copied().fold(f32::NEG_INFINITY, f32::max));
    (most, row.iter().map(|&x| (f64::from(x) - most).exp()).filter(|x| !x.is_nan()).sum())
}

fn stage(name: &'static str, row: &[f32], ids: &[u32]) -> Stage {
    let (most, sum) = total(row);
    let probability = |x: f32| (f64::from(x) - most).exp() / sum;
    let bits = |p: f64| if p > 0. { -p * p.log2() } else { 0. };
    let score = |&id: &u32| row.get(id as usize).copied().unwrap_or(f32::NEG_INFINITY);
    Stage {
        name,
        left: row.iter().filter(|&&x| x > f32::NEG_INFINITY).count(),
        entropy: row.iter().map(|&x| bits(probability(x))).sum::<f64>() as f32,
        scores: ids.iter().map(|id| Some(score(id)).filter(|x| x.is_finite())).collect(),
        probabilities: ids.iter().map(|id| probability(score(id)) as f32).collect(),
    }
}

/// The probability of all ids below one.
fn below(row: &[f32], id: u32) -> f64 {
    let (most, sum) = total(row);
    row.iter().take(id as usize).map(|&x| (f64::from(x) - most).exp()).sum::<f64>() / sum
}
