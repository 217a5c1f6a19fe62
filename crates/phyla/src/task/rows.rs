//! Rows of token ids through a model: batched by length under a budget, filled up on the right, cut back to their length.

use candle_core::{DType, Device};
use phyla_data::supervised::lengths::LengthBatches;
use phyla_data::tokenizer::Tokenizer;
use phyla_kernels::threads;
use phyla_models::arch::PositionIds;
use phyla_models::{Input, Model};
use phyla_nn::{Reads, TokenTypes};
use phyla_ops::{Precision, Tensor, cpu, no_grad};

/// Tokens of a part of a batch: few enough that what a layer makes stays in a large cache, enough that bringing the
/// weights into the products' order again for each part costs little beside the products.
const NEAR: usize = 1024;
/// The same for weights in int8, which are in that order already. Measured on a MiniLM of 6 layers, 2 threads, 200 tokens
/// a text: 15 % fewer seconds of processor time than with 1024.
const NEAR_INT8: usize = 256;

/// A row of token ids.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Row {
    /// The ids.
    pub ids: Vec<u32>,
    /// Token types beside them; empty where all are 0.
    pub types: Vec<u8>,
}

impl From<Vec<u32>> for Row {
    fn from(ids: Vec<u32>) -> Self {
        Self { ids, types: vec![] }
    }
}

/// What a head says of a row.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Scores {
    /// The head's result, or the first of two: `[outputs]`, or `[time, outputs]` of a head that answers for each token.
    pub values: Vec<f32>,
    /// The second of two: `[time]`.
    pub second: Vec<f32>,
}

/// Puts rows of like length together and runs them.
#[derive(Clone, Debug)]
pub struct Runner<'a> {
    /// The model.
    pub model: &'a Model,
    /// How many rows come together, and how many inputs are looked at together.
    pub batches: LengthBatches,
    /// What fills up rows.
    pad: u32,
    /// Rows of one length only: the head reads the last token, and no filling tells it where that is.
    alike: bool,
    typed: bool,
}

impl<'a> Runner<'a> {
    /// A runner; without a tokenizer rows are filled up with id 0, which masks hide.
    pub fn new(model: &'a Model, tokenizer: Option<&Tokenizer>, batches: LengthBatches) -> Self {
        let mut pad = tokenizer.and_then(Tokenizer::pad).unwrap_or(0);
        // Two kinds of models tell filling by its id, which is then the model's to name.
        if let PositionIds::AfterPadding { pad: named } = model.arch.position_ids {
            pad = named;
        }
        let mut alike = false;
        for head in &model.arch.heads {
            match head.reads {
                Reads::Last { pad: Some(named) } => pad = named,
                Reads::Last { pad: None } => alike = true,
                _ => {}
            }
        }
        let types = model.arch.main().embed.token_types;
        let typed = types != TokenTypes::None && types != TokenTypes::TokenTable;
        Self { model, batches, pad, alike, typed }
    }

    /// Which rows come together.
    fn plan(&self, rows: &[&Row]) -> Vec<Vec<usize>> {
        let lengths: Vec<usize> = rows.iter().map(|row| row.ids.len()).collect();
        let plan = self.batches.plan(&lengths);
        if !self.alike {
            return plan;
        }
        plan.iter().flat_map(|batch| batch.chunk_by(|&a, &b| lengths[a] == lengths[b]).map(<[usize]>::to_vec)).collect()
    }

    /// These rows as one batch.
    pub fn input(&self, rows: &[&Row]) -> Input {
        let time = rows.iter().map(|row| row.ids.len()).max().unwrap_or(0).max(1);
        let (mut ids, mut mask) = (vec![self.pad; rows.len() * time], vec![0; rows.len() * time]);
        let typed = self.typed && rows.iter().any(|row| row.types.iter().any(|&kind| kind != 0));
        let mut types = vec![0; if typed { ids.len() } else { 0 }];
        for (at, row) in rows.iter().enumerate() {
            let at = at * time;
            ids[at..at + row.ids.len()].copy_from_slice(&row.ids);
            mask[at..at + row.ids.len()].fill(1);
            if typed {
                let kinds = types[at..].iter_mut().zip(&row.types);
                kinds.for_each(|(to, &kind)| *to = u32::from(kind));
            }
        }
        let filled = mask.contains(&0);
        Input {
            ids,
            batch: rows.len(),
            time,
            attention_mask: filled.then_some(mask),
            token_types: typed.then_some(types),
            ..Input::default()
        }
    }

    /// Runs `work` over all rows, batch by batch; `work` is given a batch and the numbers of its rows, and gives one
    /// result for each of them. The results come in the order of the rows.
    ///
    /// On the CPU a batch is cut into parts that stay near the cache, and where there are enough of them each thread
    /// takes whole parts: nothing waits for the slowest thread of every single product.
    ///
    /// # Errors
    /// The first error of `work`.
    pub fn each<T: Send>(
        &self,
        rows: &[&Row],
        work: impl Fn(&Input, &[usize]) -> candle_core::Result<Vec<T>> + Sync,
    ) -> candle_core::Result<Vec<T>> {
        let work = |batch: &[usize]| {
            let together: Vec<&Row> = batch.iter().map(|&index| rows[index]).collect();
            no_grad(|| work(&self.input(&together), batch))
        };
        let mut plan = self.plan(rows);
        let cpu = self.model.params().iter().all(|param| param.weight().device().is_cpu());
        if cpu {
            let int8 = self.model.params().iter().any(|param| param.precision() == Precision::Int8);
            let near = if int8 { NEAR_INT8 } else { NEAR };
            plan = plan.iter().flat_map(|batch| parts(batch, rows, near)).collect();
        }
        let mut made: Vec<Option<candle_core::Result<Vec<T>>>> = plan.iter().map(|_| None).collect();
        if cpu && plan.len() >= 2 * threads::threads() {
            threads::for_each_chunk(&mut made, 1, usize::MAX, |at, made| made[0] = Some(work(&plan[at])));
        } else {
            made.iter_mut().zip(&plan).for_each(|(made, batch)| *made = Some(work(batch)));
        }
        let mut results: Vec<Option<T>> = rows.iter().map(|_| None).collect();
        for (batch, made) in plan.iter().zip(made.into_iter().flatten()) {
            let made = made?;
            if made.len() != batch.len() {
                candle_core::bail!("a batch of {} rows gave {} results", batch.len(), made.len());
            }
            for (&index, result) in batch.iter().zip(made) {
                results[index] = Some(result);
            }
        }
        Ok(results.into_iter().flatten().collect())
    }

    /// What the model's head says of each row.
    ///
    /// # Errors
    /// A failure of the model; a model whose head gives nothing of this kind.
    pub fn scores(&self, rows: &[&Row]) -> candle_core::Result<Vec<Scores>> {
        self.each(rows, |input, batch| {
            let results = self.model.run(input, false)?;
            let find = |names: &[&str]| results.iter().find(|(name, _)| names.contains(&name.as_str()));
            let Some((_, first)) = find(&["seq_relationship_logits", "logits", "start_logits"]) else {
                candle_core::bail!("this model is for {}: it has no scores", self.model.arch.task.describe());
            };
            let second = find(&["end_logits"]).map(|(_, second)| numbers(second)).transpose()?;
            let lengths = batch.iter().map(|&index| rows[index].ids.len());
            let by_token = first.dims().len() == 3 || second.is_some();
            let (values, count) = (numbers(first)?, batch.len());
            let cut = |values: &[f32], at: usize, length: usize| {
                let each = values.len() / count;
                let kept = if by_token { each / input.time * length } else { each };
                values[at * each..][..kept].to_vec()
            };
            let cut = |(at, length)| Scores {
                values: cut(&values, at, length),
                second: second.as_ref().map(|second| cut(second, at, length)).unwrap_or_default(),
            };
            Ok(lengths.enumerate().map(cut).collect())
        })
    }
}

/// Parts of a batch of about `near` tokens, filling included.
fn parts(batch: &[usize], rows: &[&Row], near: usize) -> Vec<Vec<usize>> {
    let longest = batch.iter().map(|&index| rows[index].ids.len()).max().unwrap_or(0).max(1);
    let count = (batch.len() * longest).div_ceil(near).clamp(1, batch.len().max(1));
    batch.chunks(batch.len().div_ceil(count).max(1)).map(<[usize]>::to_vec).collect()
}

/// A tensor's numbers.
pub(crate) fn numbers(tensor: &Tensor) -> candle_core::Result<Vec<f32>> {
    let data = tensor.data().to_device(&Device::Cpu)?.to_dtype(DType::F32)?.contiguous()?;
    Ok(cpu::view::<f32>(&data)?.to_vec())
}

/// The last hidden state of the main tower; an encoder-decoder's decoder reads what its encoder does, one step late.
pub(crate) fn states(model: &Model, input: &Input) -> candle_core::Result<Tensor> {
    let (main, mut pass) = match (model.arch.source(), model.arch.shift) {
        (None, _) => (input.clone(), input.pass(&model.arch)?),
        (Some(_), Some(shift)) => {
            let memory = model.encode(input, &mut input.source_pass(&model.arch)?)?;
            let decoder = input.shifted(shift)?;
            let pass = decoder.pass(&model.arch)?.attending(memory);
            (decoder, pass)
        }
        (Some(_), None) => candle_core::bail!("{} does not say what its decoder begins with", model.family.model_type),
    };
    model.forward(&main.ids, main.token_types.as_deref(), &mut pass)
}
