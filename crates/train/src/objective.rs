//! What training minimises: from a batch to one number, with the gradients on the way.
//!
//! A batch says itself what is to be learned of it: its targets are for tokens, its labels for rows. The objective of a
//! recipe decides how batches are made, and how the targets are smoothed.

pub mod policy;
pub mod preference;
mod taught;

use candle_core::Result;
use phyla_data::batch::{Batch, IGNORE, Labels, Source};
use phyla_kernels::rng::Rng;
use phyla_models::arch::PositionIds;
use phyla_models::{Balance, Input, Model};
use phyla_nn::{Emits, Ledger, Pass, Reads};
use phyla_ops::{CrossEntropy, Tensor};

use self::preference::Found;
use crate::beside::Beside;
use crate::metrics::Means;
use crate::recipe::{Objective, Reads as Learns};

/// How a batch is run.
#[derive(Clone, Debug, Default)]
pub struct Mode<'a> {
    /// Random numbers of dropout; none outside training.
    pub rng: Option<Rng>,
    /// Compute activations again in the backward pass.
    pub checkpointing: bool,
    /// What stands beside the model.
    pub beside: Beside<'a>,
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
            Labels::Prompts(_) | Labels::Played(_) => batch.batch,
            Labels::Class(classes) => classes.iter().filter(|&&class| class != IGNORE).count(),
            Labels::Many(_) | Labels::Value(_) | Labels::Judged(_) => batch.batch,
            Labels::Pairs(_) => batch.batch / 2,
            // As in transformers: what was cut off cannot be pointed at, and does not count.
            Labels::Span { start, .. } => start.iter().filter(|&&place| (place as usize) < batch.time).count(),
        };
        let counted = |targets: &[i32]| targets.iter().filter(|&&target| target != IGNORE).count();
        let tokens = match &batch.labels {
            // Of pairs the likelihood of the chosen rows alone counts, and of single completions none.
            Labels::Pairs(pairs) if pairs.whole => batch.lengths[..rows].iter().map(|length| length - 1).sum(),
            Labels::Pairs(_) => counted(&batch.targets[..rows * batch.time]),
            Labels::Judged(_) => 0,
            Labels::Played(played) => {
                let rows = batch.targets.chunks(batch.time.max(1)).zip(&played.left_out);
                rows.filter(|(_, left_out)| !**left_out).map(|(row, _)| counted(row)).sum()
            }
            _ => counted(&batch.targets),
        };
        Self { tokens, rows }
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
    /// What else was measured.
    pub means: Means,
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

/// What a model says of a batch, to be held against its targets and labels.
#[derive(Clone, Debug, Default)]
pub struct Answers {
    /// For each position with a target, in order: what is likeliest there.
    pub tokens: Vec<u32>,
    /// What heads say of rows.
    pub rows: Vec<Said>,
    /// What the objective itself measures of the batch.
    pub means: Means,
    /// Of a reward model, by how much it puts the chosen texts above the others.
    pub margins: Vec<f64>,
}

/// What one head says of rows.
#[derive(Clone, Debug)]
pub struct Said {
    /// As in transformers: `logits`, `start_logits`, …
    pub name: &'static str,
    /// Numbers of each row.
    pub width: usize,
    /// `[rows, width]`.
    pub values: Vec<f32>,
}

/// A batch behind the last layer.
struct Seen {
    hidden: Tensor,
    input: Input,
    pass: Pass<'static>,
}

impl Objective {
    /// The loss of a batch, each part the sum over what counts, divided by `counts`.
    pub fn losses(&self, model: &Model, batch: &Batch, counts: Counts, mode: &Mode) -> Result<Losses> {
        let mut seen = see(model, batch, counts, mode, self.neftune())?;
        let balance = model.balance(&mut seen.pass, mode.checkpointing)?;
        let Found { parts, means, .. } = match mode.beside.teacher {
            Some(teacher) => taught::taught(model, batch, &mut seen, (teacher, counts), self.label_smoothing() as f32)?,
            None => self.parts(model, batch, &mut seen, counts, mode)?,
        };
        Ok(Losses { parts, balance, means })
    }

    /// Outside training: the summed loss of each part, and what the model answers, of one pass. Next-token prediction
    /// is not asked for its guesses: its loss says all.
    pub fn examine(&self, model: &Model, batch: &Batch, beside: Beside) -> Result<(Vec<(Part, f64)>, Answers)> {
        let (one, mode) = (Counts { tokens: 1, rows: 1 }, Mode { beside, ..Mode::default() });
        phyla_ops::no_grad(|| {
            let mut seen = see(model, batch, one, &mode, None)?;
            let Found { parts, means, margins } = self.parts(model, batch, &mut seen, one, &mode)?;
            let parts = parts.into_iter().map(|(part, sum)| Ok((part, sum.data().to_scalar::<f32>()? as f64)));
            let parts = parts.collect::<Result<_>>()?;
            let silent = matches!(self, Self::Lm(_)) || self.compares();
            let answers = if silent { Answers::default() } else { answers(model, batch, seen)? };
            Ok((parts, Answers { means, margins, ..answers }))
        })
    }

    /// What the model answers, outside training.
    pub fn answers(&self, model: &Model, batch: &Batch) -> Result<Answers> {
        phyla_ops::no_grad(|| {
            answers(model, batch, see(model, batch, Counts { tokens: 1, rows: 1 }, &Mode::default(), None)?)
        })
    }

    fn parts(&self, model: &Model, batch: &Batch, seen: &mut Seen, counts: Counts, mode: &Mode) -> Result<Found> {
        let over = |part: Part| 1. / counts.count(part).max(1) as f64;
        match &batch.labels {
            Labels::Pairs(pairs) => return preference::compared(self, model, (batch, pairs), seen, over),
            Labels::Judged(judged) => return preference::judged(self, model, (batch, judged), seen, over(Part::Rows)),
            Labels::Played(played) => {
                return policy::played(self, model, (batch, played), seen, mode.beside.critic, over);
            }
            Labels::Class(grades) if self.reads() == Learns::Grades => {
                return preference::graded(model, grades, seen, mode.beside.thresholds, over(Part::Rows));
            }
            _ => {}
        }
        // Validation reports the plain loss, whatever training smooths.
        let label_smoothing = if mode.rng.is_some() { self.label_smoothing() as f32 } else { 0. };
        let scale = |part: Part| over(part) as f32;
        let own = Counts::of(batch);
        let Seen { hidden, input, pass } = seen;
        let mut losses = vec![];
        if own.tokens > 0 {
            let args = CrossEntropy { label_smoothing, scale: scale(Part::Tokens) };
            losses.push((Part::Tokens, model.token_loss(hidden, &batch.targets, args, pass)?));
        }
        if own.rows > 0 {
            let answers = model.answers(hidden, input, pass, |head| !head.is_lm())?;
            let args = CrossEntropy { label_smoothing, scale: scale(Part::Rows) };
            losses.push((Part::Rows, row_loss(&answers, &batch.labels, args)?));
        }
        Ok(Found { parts: losses, ..Found::default() })
    }
}

/// Runs the towers over a batch; its share of `counts` weighs what keeps the choices of experts even, and `neftune` is the
/// noise on what the main tower reads.
fn see(model: &Model, batch: &Batch, counts: Counts, mode: &Mode, neftune: Option<f64>) -> Result<Seen> {
    let input = input(model, batch);
    let mut pass = mode.pass(input.pass(&model.arch)?, "dropout");
    if let Some(source) = &batch.source {
        let source = source_input(source, batch.batch);
        let mut pass_of_source = mode.pass(source.source_pass(&model.arch)?, "encoder");
        pass = pass.attending(model.encode(&source, &mut pass_of_source)?);
    }
    pass.neftune = neftune.map(|alpha| alpha as f32);
    // Outside training nothing is to be kept even.
    pass.balance = mode.rng.is_some().then(|| Ledger::new(Counts::of(batch).share_of(counts)));
    let hidden = model.forward(&input.ids, input.token_types.as_deref(), &mut pass)?;
    Ok(Seen { hidden, input, pass })
}

/// Rows of logits over a vocabulary that are held at once.
const PIECE: usize = 512;

fn answers(model: &Model, batch: &Batch, seen: Seen) -> Result<Answers> {
    let Seen { hidden, input, mut pass } = seen;
    let wanted = batch.targets.iter().enumerate().filter(|&(_, &target)| target != IGNORE);
    let wanted: Vec<u32> = wanted.map(|(place, _)| place as u32).collect();
    let mut answers = Answers::default();
    if !wanted.is_empty() && model.arch.lm_head().is_some() {
        // Of a whole row under masks only a few positions are asked for, and a vocabulary is wide.
        for places in wanted.chunks(PIECE) {
            let logits = model.logits(&phyla_ops::gather_rows(&hidden, places)?)?;
            answers.tokens.extend(likeliest(&values(&logits)?, logits.last_dim()));
        }
    }
    let row_heads = |head: &phyla_nn::HeadSpec| !head.is_lm();
    for (name, said) in model.answers(&hidden, &input, &mut pass, row_heads)? {
        let of_tokens =
            model.arch.heads.iter().any(|head| head.reads == Reads::Tokens && head.emits == Emits::One(name));
        let (values, width) = (values(&said)?, said.last_dim());
        if of_tokens && answers.tokens.is_empty() {
            let all = likeliest(&values, width);
            answers.tokens = wanted.iter().filter_map(|&place| all.get(place as usize).copied()).collect();
        } else {
            answers.rows.push(Said { name, width, values });
        }
    }
    Ok(answers)
}

fn values(tensor: &Tensor) -> Result<Vec<f32>> {
    tensor.data().to_dtype(candle_core::DType::F32)?.flatten_all()?.to_vec1()
}

/// The place of the largest number of each row; of equal ones the first.
fn likeliest(values: &[f32], width: usize) -> Vec<u32> {
    let largest = |row: &[f32]| {
        let first = (0u32, f32::NEG_INFINITY);
        row.iter().zip(0u32..).fold(first, |best, (&x, at)| if x > best.1 { (at, x) } else { best }).0
    };
    values.chunks(width.max(1)).map(largest).collect()
}

impl Mode<'_> {
    fn pass(&self, pass: Pass<'static>, stream: &str) -> Pass<'static> {
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
        Labels::Pairs(_) | Labels::Judged(_) | Labels::Prompts(_) | Labels::Played(_) => {
            candle_core::bail!("completions have losses of their own")
        }
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
fn input(model: &Model, batch: &Batch) -> Input {
    // The makers of batches count from 0; RoBERTa's positions begin behind that of the padding.
    let first = match model.arch.position_ids {
        PositionIds::Counted => 0,
        counted @ PositionIds::AfterPadding { .. } => counted.first(),
    };
    let positions = || batch.positions.iter().map(|position| position + first).collect();
    Input {
        ids: batch.ids.clone(),
        batch: batch.batch,
        time: batch.time,
        attention_mask: valid(&batch.lengths, batch.time),
        positions: (!batch.positions.is_empty()).then(positions),
        segments: batch.segments.clone(),
        // A tokenizer with BERT's template gives types, whether its model has a table for them or not (DistilBERT).
        token_types: batch.token_types.clone().filter(|_| model.arch.has_token_types()),
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
