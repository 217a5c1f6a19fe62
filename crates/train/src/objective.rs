//! What training minimises: from a batch to one number, with the gradients on the way.
//!
//! A batch says itself what is to be learned of it: its targets are for tokens, its labels for rows. The objective of a
//! recipe decides how batches are made, and how the targets are smoothed.

use candle_core::Result;
use phyla_data::batch::{Batch, IGNORE, Labels, Source};
use phyla_kernels::rng::Rng;
use phyla_models::{Balance, Input, Model};
use phyla_nn::Ledger;
use phyla_ops::{CrossEntropy, Tensor};

use crate::recipe::Objective;

/// How a batch is run.
#[derive(Clone, Debug, Default)]
pub struct Mode {
    /// Random numbers of dropout; none outside training.
    pub rng: Option<Rng>,
    /// Compute activations again in the backward pass.
    pub checkpointing: bool,
}

/// The two kinds of summands of a loss, each with a mean of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// Over tokens with a target.
    Tokens,
    /// Over rows with a label.
    Rows,
}

/// What the means are over: a step adds up those of all its batches, so that they weigh as if they were one.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Counts {
    /// Tokens with a target.
    pub tokens: usize,
    /// Rows with a label.
    pub rows: usize,
}

impl Counts {
    /// The counts of a batch.
    pub fn of(batch: &Batch) -> Self {
        let rows = match &batch.labels {
            Labels::None => 0,
            Labels::Class(classes) => classes.iter().filter(|&&class| class != IGNORE).count(),
            Labels::Many(_) | Labels::Value(_) | Labels::Span { .. } => batch.batch,
        };
        Self { tokens: batch.targets.iter().filter(|&&target| target != IGNORE).count(), rows }
    }

    /// How much of a step's work is this batch's.
    fn share_of(self, step: Self) -> f32 {
        let all = |counts: Self| (counts.tokens + counts.rows).max(1) as f64;
        (all(self) / all(step)).min(1.) as f32
    }

    /// Both added up.
    pub fn sum(self, other: Self) -> Self {
        Self { tokens: self.tokens + other.tokens, rows: self.rows + other.rows }
    }

    /// How many there are of a part.
    pub fn count(&self, part: Part) -> usize {
        match part {
            Part::Tokens => self.tokens,
            Part::Rows => self.rows,
        }
    }

    /// Whether there is anything to learn.
    pub fn is_empty(&self) -> bool {
        self.tokens + self.rows == 0
    }
}

/// The loss of a batch.
pub struct Losses {
    /// What the batch's targets and labels give.
    pub parts: Vec<(Part, Tensor)>,
    /// What keeps the choices of experts even.
    pub balance: Balance,
}

impl Losses {
    /// Its value, and the one number whose gradient is all of it.
    pub fn total(self) -> Result<(f64, Tensor)> {
        let mut tensors = self.parts.into_iter().map(|(_, part)| part).chain(self.balance.pending);
        let Some(first) = tensors.next() else { candle_core::bail!("a loss without parts") };
        let total = tensors.try_fold(first, |sum, part| phyla_ops::add(&sum, &part))?;
        Ok((total.data().to_scalar::<f32>()? as f64 + self.balance.attached, total))
    }
}

impl Objective {
    /// The loss of a batch, each part the sum over what counts, divided by `counts`.
    pub fn losses(&self, model: &Model, batch: &Batch, counts: Counts, mode: &Mode) -> Result<Losses> {
        // Validation reports the plain loss, whatever training smooths.
        let label_smoothing = if mode.rng.is_some() { self.label_smoothing() as f32 } else { 0. };
        let scale = |part: Part| (1. / counts.count(part).max(1) as f64) as f32;
        let input = input(batch);
        let mut pass = mode.pass(input.pass(&model.arch)?, "dropout");
        if let Some(source) = &batch.source {
            let source = source_input(source, batch.batch);
            let mut pass_of_source = mode.pass(source.source_pass(&model.arch)?, "encoder");
            pass = pass.attending(model.encode(&source, &mut pass_of_source)?);
        }
        let own = Counts::of(batch);
        let share = own.share_of(counts);
        // Outside training nothing is to be kept even.
        pass.balance = mode.rng.is_some().then(|| Ledger::new(share));
        let hidden = model.forward(&input.ids, input.token_types.as_deref(), &mut pass)?;
        let balance = model.balance(&mut pass, mode.checkpointing)?;
        let mut losses = vec![];
        if own.tokens > 0 {
            let args = CrossEntropy { label_smoothing, scale: scale(Part::Tokens) };
            losses.push((Part::Tokens, model.token_loss(&hidden, &batch.targets, args, &mut pass)?));
        }
        if own.rows > 0 {
            let answers = model.answers(&hidden, &input, &mut pass, |head| !head.is_lm())?;
            let args = CrossEntropy { label_smoothing, scale: scale(Part::Rows) };
            losses.push((Part::Rows, row_loss(&answers, &batch.labels, args)?));
        }
        Ok(Losses { parts: losses, balance })
    }
}

impl Mode {
    fn pass(&self, pass: phyla_nn::Pass<'static>, stream: &str) -> phyla_nn::Pass<'static> {
        let mut pass = match &self.rng {
            Some(rng) => pass.training(rng.split(stream)),
            None => pass,
        };
        pass.checkpointing = self.checkpointing;
        pass
    }
}

/// The loss of rows against their labels.
fn row_loss(answers: &[phyla_models::Named], labels: &Labels, args: CrossEntropy) -> Result<Tensor> {
    let answer = |name: &str| match answers.iter().find(|(known, _)| known.starts_with(name)) {
        Some((_, answer)) => Ok(answer),
        None => candle_core::bail!("the batch has labels, and the model no head that answers with {name}"),
    };
    match labels {
        Labels::None => candle_core::bail!("a batch without labels"),
        Labels::Class(classes) => phyla_ops::cross_entropy(class_logits(answers)?, classes, args),
        Labels::Many(wanted) => {
            let logits = answer("logits")?;
            phyla_ops::bce_with_logits(logits, wanted, args.scale / logits.last_dim().max(1) as f32)
        }
        Labels::Value(values) => {
            let logits = answer("logits")?;
            phyla_ops::mse(logits, values, args.scale / logits.last_dim().max(1) as f32)
        }
        Labels::Span { start, end } => {
            let half = CrossEntropy { scale: args.scale / 2., ..args };
            let loss = |name, places: &[i32]| {
                let logits = answer(name)?;
                // As in transformers: what was cut off cannot be pointed at, and does not count.
                let inside = |&place: &i32| if (place as usize) < logits.last_dim() { place } else { IGNORE };
                phyla_ops::cross_entropy(logits, &places.iter().map(inside).collect::<Vec<_>>(), half)
            };
            phyla_ops::add(&loss("start_logits", start)?, &loss("end_logits", end)?)
        }
    }
}

/// The logits over classes: of a classifier, of choices, or of next sentences.
fn class_logits(answers: &[phyla_models::Named]) -> Result<&Tensor> {
    match answers.iter().find(|(name, _)| matches!(*name, "logits" | "seq_relationship_logits")) {
        Some((_, logits)) => Ok(logits),
        None => candle_core::bail!("the batch has classes for labels, and the model no head that answers with them"),
    }
}

/// What the main tower reads. Filling lies right of the text: a causal tower never looks there, others are told.
fn input(batch: &Batch) -> Input {
    Input {
        ids: batch.ids.clone(),
        batch: batch.batch,
        time: batch.time,
        attention_mask: valid(&batch.lengths, batch.time),
        positions: (!batch.positions.is_empty()).then(|| batch.positions.clone()),
        segments: batch.segments.clone(),
        token_types: batch.token_types.clone(),
        choices: batch.choices,
        decoder: None,
    }
}

fn source_input(source: &Source, rows: usize) -> Input {
    Input {
        ids: source.ids.clone(),
        batch: rows,
        time: source.time,
        attention_mask: valid(&source.lengths, source.time),
        ..Input::default()
    }
}

/// 1 for each token, 0 for filling; `None` if there is none.
fn valid(lengths: &[usize], time: usize) -> Option<Vec<u8>> {
    let filled = lengths.iter().any(|&length| length < time);
    filled.then(|| lengths.iter().flat_map(|&length| (0..time).map(move |t| u8::from(t < length))).collect())
}
