//! Objectives on completions that were compared or judged: from a batch to sums of log-probabilities, and from the losses
//! on those, which the files beside this one hold as plain formulas with their slopes, back to gradients.

mod cpo;
mod curve;
mod dpo;
mod kto;
mod odds;
mod online;
mod ordinal;
mod reward;
mod weight;

use std::ops::Range;

use candle_core::Result;
use phyla_data::batch::{Batch, IGNORE, Judged, Labels, Pairs as Compared};
use phyla_models::Model;
use phyla_nn::Pass;
use phyla_ops::Tensor;

pub use cpo::cpo;
pub(crate) use curve::sigmoid;
pub use dpo::dpo;
pub use kto::{divergence, kto};
pub use odds::orpo;
pub use online::online;
pub use ordinal::{GradeLoss, cumulative, grade_of, ranked};
pub use reward::bradley_terry;

use super::{Counts, Mode, Part, Seen, see, values};
use crate::metrics::Means;
use crate::recipe::{CpoLoss, Objective};
use crate::thresholds::Thresholds;

/// Completions of some rows under the policy and, where there is one, under the reference; `[rows]` each.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Side {
    /// Log-probabilities under the policy: sums, or means over tokens where the loss wants those.
    pub log_probs: Vec<f64>,
    /// The same under the reference; zeros without one.
    pub reference: Vec<f64>,
    /// Tokens of each completion.
    pub tokens: Vec<usize>,
}

impl Side {
    /// `log π(y|x) - log π_ref(y|x)`.
    #[must_use]
    pub fn ratio(&self, at: usize) -> f64 {
        self.log_probs[at] - self.reference[at]
    }
}

/// The two completions of each prompt.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Pairs {
    /// The preferred ones.
    pub chosen: Side,
    /// The others.
    pub rejected: Side,
    /// What each pair counts for; empty where all count alike.
    pub weights: Vec<f64>,
}

impl Pairs {
    /// Prompts.
    #[must_use]
    pub fn count(&self) -> usize {
        self.chosen.log_probs.len()
    }

    fn weight(&self, at: usize) -> f64 {
        self.weights.get(at).copied().unwrap_or(1.)
    }
}

/// A loss summed over pairs, and its slopes.
#[derive(Clone, Debug, PartialEq)]
pub struct PairLoss {
    /// The sum.
    pub value: f64,
    /// By the chosen completions' log-probabilities (of a reward model: rewards).
    pub chosen: Vec<f64>,
    /// By the rejected ones'.
    pub rejected: Vec<f64>,
}

impl PairLoss {
    fn zero(count: usize) -> Self {
        Self { value: 0., chosen: vec![0.; count], rejected: vec![0.; count] }
    }

    fn put(&mut self, at: usize, value: f64, [chosen, rejected]: [f64; 2]) {
        self.value += value;
        self.chosen[at] += chosen;
        self.rejected[at] += rejected;
    }

    fn add(&mut self, other: &Self, weight: f64) {
        self.value += weight * other.value;
        for (sum, more) in [(&mut self.chosen, &other.chosen), (&mut self.rejected, &other.rejected)] {
            sum.iter_mut().zip(more).for_each(|(sum, more)| *sum += weight * more);
        }
    }
}

/// What a batch gives.
#[derive(Default)]
pub(super) struct Found {
    /// Its losses.
    pub parts: Vec<(Part, Tensor)>,
    /// What else is told of it.
    pub means: Means,
    /// Of a reward model, by how much the chosen texts are above the others.
    pub margins: Vec<f64>,
}

/// Log-probabilities of the tokens of a batch's completions, row after row.
struct Completions {
    tokens: Tensor,
    /// The same as numbers.
    numbers: Vec<f32>,
    /// Which of them each row has, those of its prompt included where they count.
    rows: Vec<Range<usize>>,
    /// How many of a row, at its end, are the completion's.
    lengths: Vec<usize>,
    /// What a completion's token counts for: all alike, but for `ld_alpha`.
    weights: Vec<f64>,
    /// Beside `numbers`, where the loss wants it: the logarithm of the probability that two draws of the token are the same.
    repeats: Vec<f64>,
}

impl Completions {
    fn new(model: &Model, batch: &Batch, hidden: &Tensor, pass: &mut Pass, objective: &Objective) -> Result<Self> {
        let targets = counted(batch);
        let tokens = model.log_probs(hidden, &targets, pass)?;
        let mut made = Self::over(tokens, batch, &targets, objective)?;
        if let Objective::Dpo(dpo) = objective
            && dpo.use_weighting
        {
            made.repeats = weight::repeats(model, hidden, &targets)?;
        }
        Ok(made)
    }

    /// `tokens` are the log-probabilities of the `targets` that count.
    fn over(tokens: Tensor, batch: &Batch, targets: &[i32], objective: &Objective) -> Result<Self> {
        let count = |targets: &[i32]| targets.iter().filter(|&&target| target != IGNORE).count();
        let lengths: Vec<usize> = batch.targets.chunks(batch.time.max(1)).map(count).collect();
        let mut end = 0;
        let rows: Vec<Range<usize>> = targets
            .chunks(batch.time.max(1))
            .map(|row| {
                let start = end;
                end += count(row);
                start..end
            })
            .collect();
        let mut made =
            Self { numbers: values(&tokens)?, tokens, weights: vec![1.; end], repeats: vec![], rows, lengths };
        if let Some(alpha) = objective.ld_alpha() {
            made.discount(alpha);
        }
        if objective.takes_means() {
            made.average();
        }
        Ok(made)
    }

    /// Tokens beyond the length of the shorter completion of a pair count for `alpha` (Liu et al. 2024, LD-DPO).
    fn discount(&mut self, alpha: f64) {
        let half = self.lengths.len() / 2;
        for row in 0..self.lengths.len() {
            let shared = self.lengths[row].min(self.lengths[(row + half) % self.lengths.len()]);
            let completion = self.completion(row);
            self.weights[completion.start + shared..completion.end].fill(alpha);
        }
    }

    fn average(&mut self) {
        for row in 0..self.lengths.len() {
            let completion = self.completion(row);
            let share = 1. / self.lengths[row].max(1) as f64;
            self.weights[completion].fill(share);
        }
    }

    fn completion(&self, row: usize) -> Range<usize> {
        self.rows[row].end - self.lengths[row]..self.rows[row].end
    }

    fn log_prob(&self, row: usize) -> f64 {
        let of = self.completion(row);
        self.numbers[of.clone()].iter().zip(&self.weights[of]).map(|(&x, weight)| f64::from(x) * weight).sum()
    }

    fn side(&self, rows: Range<usize>, reference: Option<&[f32]>) -> Side {
        Side {
            log_probs: rows.clone().map(|row| self.log_prob(row)).collect(),
            reference: match reference {
                Some(known) => known[rows.clone()].iter().map(|&x| f64::from(x)).collect(),
                None => vec![0.; rows.len()],
            },
            tokens: self.lengths[rows].to_vec(),
        }
    }

    /// How near a completion is to what the policy itself would write: the geometric mean over its tokens of their
    /// probabilities, each over the mean probability of a token that is drawn there (Zhou et al. 2024, equation 2).
    fn agreement(&self, row: usize) -> f64 {
        let of = self.completion(row);
        let each = self.numbers[of.clone()].iter().zip(&self.repeats[of.clone()]);
        let sum: f64 = each.map(|(&own, repeat)| f64::from(own) - repeat).sum();
        (sum / of.len().max(1) as f64).exp()
    }

    /// What the pairs count for; nothing where all count alike.
    fn agreements(&self) -> Vec<f64> {
        let half = self.rows.len() / 2;
        if self.repeats.is_empty() {
            return vec![];
        }
        (0..half).map(|at| self.agreement(at) * self.agreement(at + half)).collect()
    }

    /// A number with these slopes by the rows' log-probabilities.
    fn loss<'a>(&self, value: f64, slopes: impl Iterator<Item = &'a f64>, scale: f64) -> Result<Tensor> {
        let mut gradient = vec![0f32; self.numbers.len()];
        for (row, slope) in slopes.enumerate() {
            for token in self.completion(row) {
                gradient[token] = (slope * self.weights[token] * scale) as f32;
            }
        }
        phyla_ops::reduced(&self.tokens, value * scale, gradient)
    }

    /// How unlikely the tokens of some rows are, each counting once.
    fn likelihood(&self, rows: Range<usize>, scale: f64) -> Result<Tensor> {
        let tokens = self.rows[rows.start].start..self.rows[rows.end - 1].end;
        let sum: f64 = self.numbers[tokens.clone()].iter().map(|&x| f64::from(x)).sum();
        let mut gradient = vec![0f32; self.numbers.len()];
        gradient[tokens].fill(-scale as f32);
        phyla_ops::reduced(&self.tokens, -sum * scale, gradient)
    }
}

/// The targets that count: those of completions, and where likelihood is that of whole texts, in the chosen rows' prompts
/// too.
fn counted(batch: &Batch) -> Vec<i32> {
    let mut targets = batch.targets.clone();
    if !matches!(&batch.labels, Labels::Pairs(pairs) if pairs.whole) {
        return targets;
    }
    for row in 0..batch.batch / 2 {
        let (first, length) = (row * batch.time, batch.lengths[row]);
        let ids = &batch.ids[first..first + length];
        targets[first..].iter_mut().zip(&ids[1.min(length)..]).for_each(|(target, &id)| *target = id as i32);
    }
    targets
}

/// The losses of a batch of compared completions; `scale` is one over what a part's mean is over.
pub(super) fn compared(
    objective: &Objective,
    model: &Model,
    (batch, pairs): (&Batch, &Compared),
    seen: &mut Seen,
    scale: impl Fn(Part) -> f64,
) -> Result<Found> {
    if matches!(objective, Objective::Reward(_)) {
        return rewarded(objective, model, (batch, pairs), seen, scale(Part::Rows));
    }
    contrast(objective, &Completions::new(model, batch, &seen.hidden, &mut seen.pass, objective)?, pairs, scale)
}

/// The losses of pairs whose log-probabilities are known.
fn contrast(objective: &Objective, made: &Completions, pairs: &Compared, scale: impl Fn(Part) -> f64) -> Result<Found> {
    let (half, reference) = (made.rows.len() / 2, pairs.reference.as_deref());
    let [chosen, rejected] = [0..half, half..2 * half].map(|rows| made.side(rows, reference));
    let sides = Pairs { chosen, rejected, weights: made.agreements() };
    let (loss, beta, likelihood) = match objective {
        Objective::Dpo(settings) => (dpo(settings, &sides), settings.beta, settings.weight_of_sft()),
        Objective::Orpo(settings) => (orpo(settings.beta, &sides), settings.beta, 1.),
        Objective::Cpo(settings) => (cpo(settings, &sides), settings.beta, settings.cpo_alpha),
        Objective::Simpo(settings) => (cpo(&settings.as_cpo(), &sides), settings.beta, 0.),
        Objective::OnlineDpo(settings) => (online(settings, &sides, pairs.margins.as_deref()), settings.beta, 0.),
        other => candle_core::bail!("`{}` does not learn from pairs of completions", other.name()),
    };
    let slopes = loss.chosen.iter().chain(&loss.rejected);
    let mut parts = vec![(Part::Rows, made.loss(loss.value, slopes, scale(Part::Rows))?)];
    if likelihood != 0. {
        parts.push((Part::Tokens, made.likelihood(0..half, likelihood * scale(Part::Tokens))?));
    }
    let shape = if let Objective::Cpo(cpo) = objective { cpo.alpha } else { 0. };
    let reward =
        |side: &Side| -> Vec<f64> { (0..half).map(|at| beta * cpo::reward(shape, side.ratio(at)).0).collect() };
    let (chosen, rejected) = (reward(&sides.chosen), reward(&sides.rejected));
    let mut means = rewards(&chosen, &rejected);
    means.add("logps/chosen", &sides.chosen.log_probs);
    means.add("logps/rejected", &sides.rejected.log_probs);
    Ok(Found { parts, means, ..Found::default() })
}

/// The losses of a batch of completions judged one by one.
pub(super) fn judged(
    objective: &Objective,
    model: &Model,
    (batch, judged): (&Batch, &Judged),
    seen: &mut Seen,
    scale: f64,
) -> Result<Found> {
    let Objective::Kto(settings) = objective else {
        candle_core::bail!("`{}` does not learn from completions judged one by one", objective.name());
    };
    let made = Completions::new(model, batch, &seen.hidden, &mut seen.pass, objective)?;
    let side = made.side(0..batch.batch, judged.reference.as_deref());
    let mut means = Means::default();
    let mut kl = 0.;
    if let Some(other) = &judged.mismatched {
        let Labels::Judged(labels) = &other.labels else { candle_core::bail!("mismatched rows without their labels") };
        let sums = log_probs(objective, model, other)?;
        kl = divergence(&Side { log_probs: sums, ..Completions::known(labels.reference.as_deref(), other.batch) });
        means.add("kl", &[kl]);
    }
    let (value, slopes) = kto(settings, &side, &judged.desirable, kl);
    for (name, wanted) in [("chosen", true), ("rejected", false)] {
        let rows: Vec<usize> = (0..batch.batch).filter(|&row| judged.desirable[row] == wanted).collect();
        means.add(
            &format!("rewards/{name}"),
            &rows.iter().map(|&at| settings.beta * side.ratio(at)).collect::<Vec<_>>(),
        );
        means.add(&format!("logps/{name}"), &rows.iter().map(|&at| side.log_probs[at]).collect::<Vec<_>>());
    }
    let parts = vec![(Part::Rows, made.loss(value, slopes.iter(), scale)?)];
    Ok(Found { parts, means, ..Found::default() })
}

impl Completions {
    /// A side of which only the reference is known.
    fn known(reference: Option<&[f32]>, rows: usize) -> Side {
        let reference = reference.map_or_else(|| vec![0.; rows], |known| known.iter().map(|&x| f64::from(x)).collect());
        Side { reference, ..Side::default() }
    }
}

/// The losses of a batch of compared texts under a reward model.
fn rewarded(
    objective: &Objective,
    model: &Model,
    (batch, pairs): (&Batch, &Compared),
    seen: &mut Seen,
    scale: f64,
) -> Result<Found> {
    let Objective::Reward(settings) = objective else { candle_core::bail!("no objective of a reward model") };
    let logits = &scored(model, batch.batch, seen)?;
    let scores: Vec<f64> = values(logits)?.into_iter().map(f64::from).collect();
    let (chosen, rejected) = scores.split_at(batch.batch / 2);
    let centre = settings.center_rewards_coefficient.unwrap_or(0.);
    let loss = bradley_terry(chosen, rejected, pairs.margins.as_deref(), centre);
    let gradient = loss.chosen.iter().chain(&loss.rejected).map(|slope| (slope * scale) as f32).collect();
    let loss = phyla_ops::reduced(logits, loss.value * scale, gradient)?;
    let margins = chosen.iter().zip(rejected).map(|(chosen, rejected)| chosen - rejected).collect();
    Ok(Found { parts: vec![(Part::Rows, loss)], means: rewards(chosen, rejected), margins })
}

/// The numbers that a reward model gives to texts.
fn scored(model: &Model, texts: usize, seen: &mut Seen) -> Result<Tensor> {
    let answers = model.answers(&seen.hidden, &seen.input, &mut seen.pass, |head| !head.is_lm())?;
    let Some((_, logits)) = answers.into_iter().find(|(name, _)| *name == "logits") else {
        candle_core::bail!("a reward model answers with one number a text, and this model has no head for that");
    };
    match logits.data().elem_count() {
        found if found != texts => {
            candle_core::bail!("{found} rewards for {texts} texts: a reward model has one label")
        }
        _ => Ok(logits),
    }
}

/// The loss of a batch of texts under a reward model whose grades are known by their places on the scale.
pub(super) fn graded(
    model: &Model,
    grades: &[i32],
    seen: &mut Seen,
    thresholds: Option<&Thresholds>,
    scale: f64,
) -> Result<Found> {
    // Who asks for what layers read alone has none.
    let Some(thresholds) = thresholds else { return Ok(Found::default()) };
    let (loss, scores) = thresholds.loss(&scored(model, grades.len(), seen)?, grades, scale)?;
    let (between, values) = (thresholds.values()?, thresholds.scale().values());
    let pairs = || scores.iter().zip(grades).map(|(&score, &grade)| (grade_of(score, &between), grade.max(0) as usize));
    let mut means = Means::default();
    means.add("rewards/mean", &scores);
    means.add("accuracy", &pairs().map(|(found, grade)| f64::from(u8::from(found == grade))).collect::<Vec<_>>());
    means.add("mae", &pairs().map(|(found, grade)| (values[found] - values[grade]).abs()).collect::<Vec<_>>());
    Ok(Found { parts: vec![(Part::Rows, loss)], means, ..Found::default() })
}

/// What is told of rewards: their means, how often the chosen one is above the other, and by how much.
fn rewards(chosen: &[f64], rejected: &[f64]) -> Means {
    let pairs = || chosen.iter().zip(rejected);
    let mut means = Means::default();
    means.add("rewards/chosen", chosen);
    means.add("rewards/rejected", rejected);
    means.add("rewards/accuracies", &pairs().map(|(a, b)| f64::from(u8::from(a > b))).collect::<Vec<_>>());
    means.add("rewards/margins", &pairs().map(|(a, b)| a - b).collect::<Vec<_>>());
    means
}

/// Log-probabilities of the completions of a batch, `[batch]`, outside training: what a reference is asked for.
pub(crate) fn log_probs(objective: &Objective, model: &Model, batch: &Batch) -> Result<Vec<f64>> {
    phyla_ops::no_grad(|| {
        let one = Counts { tokens: 1, rows: 1 };
        let mut seen = see(model, batch, one, &Mode::default(), None)?;
        let made = Completions::new(model, batch, &seen.hidden, &mut seen.pass, objective)?;
        Ok((0..batch.batch).map(|row| made.log_prob(row)).collect())
    })
}

impl Objective {
    /// What tokens beyond the shorter completion count for.
    pub(crate) fn ld_alpha(&self) -> Option<f64> {
        if let Self::Dpo(dpo) = self { dpo.ld_alpha } else { None }
    }

    /// Whether the loss is of means over tokens, not of sums.
    fn takes_means(&self) -> bool {
        match self {
            Self::Orpo(_) | Self::Simpo(_) => true,
            Self::Cpo(cpo) => matches!(cpo.loss_type, CpoLoss::Ipo | CpoLoss::Simpo),
            _ => false,
        }
    }
}

#[cfg(test)]
mod tests;
