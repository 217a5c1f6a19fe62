//! How well a language model predicts a text: windows that slide over it, each token predicted once.

use phyla_data::tokenizer::Tokenizer;
use phyla_generate::CacheSettings;
use phyla_metrics::likelihood::Likelihood;
use phyla_models::{Model, Task};
use phyla_nn::{Cache, Pass};
use phyla_ops::CrossEntropy;
use phyla_ops::loss::IGNORE;

use super::rows::states;
use super::{Row, Runner, expect};
use crate::{Error, Session};

/// Tokens of a window, unless the model has less or more is asked for.
const WINDOW: usize = 1024;

/// One of so many tokens is hidden at a time, as in BERT's training (15 %).
pub const MASK_EVERY: usize = 7;

/// A window: what is read, and for each place of it the token that it has to predict, or [`IGNORE`].
#[derive(Clone, Debug, PartialEq)]
pub struct Window {
    /// What is read.
    pub row: Row,
    /// What is predicted.
    pub targets: Vec<i32>,
}

/// The likelihood of texts.
#[derive(Debug)]
pub struct Measure<'a> {
    model: &'a Model,
    tokenizer: &'a Tokenizer,
    window: usize,
    stride: usize,
    /// Of a masked language model: its mask, and how many tokens there are for each hidden one.
    mask: Option<(u32, usize)>,
    /// How keys and values are kept, if windows are to be read through a cache.
    cache: Option<CacheSettings>,
}

/// Tokens that are read together through a cache: what they see of the others is as the cache keeps it.
const TOGETHER: usize = 64;

impl<'a> Measure<'a> {
    /// Windows of `window` tokens, by default as many as the model can take up to 1,024, each `stride` tokens after the
    /// one before, by default half a window: what both read, the later one takes as context only.
    ///
    /// A masked language model predicts one of `mask_every` tokens at a time from all others, and reads a text as many
    /// times; with as many as a window has this is the pseudo-likelihood of Salazar et al. 2020.
    ///
    /// # Errors
    /// A model that predicts no tokens; windows that the model cannot take, and strides beyond them.
    pub fn new(
        session: &'a Session,
        window: Option<usize>,
        stride: Option<usize>,
        mask_every: usize,
    ) -> Result<Self, Error> {
        let (model, tokenizer) = super::parts(session)?;
        expect(model, &[Task::CausalLm, Task::MaskedLm, Task::PreTraining], "measuring perplexity")?;
        let asked = window.is_some();
        let window = super::max_len(model, tokenizer, window)?;
        let window = if asked { window } else { window.min(WINDOW) };
        let stride = stride.unwrap_or((window / 2).max(1));
        if window < 2 || stride == 0 || stride > window || mask_every == 0 {
            return Err(Error::Task(format!(
                "expected a window of at least 2 tokens and a stride from 1 to the window, found {window} and {stride}"
            )));
        }
        let mask = match model.arch.task {
            Task::CausalLm => None,
            _ => {
                let mask = tokenizer.mask().ok_or_else(|| Error::Task("the tokenizer has no mask token".into()))?;
                Some((mask, mask_every))
            }
        };
        Ok(Self { model, tokenizer, window, stride, mask, cache: None })
    }

    /// Reads windows as decoding would, through a cache of this kind: for what it costs in quality to keep less.
    ///
    /// # Errors
    /// A masked language model, which has no cache.
    pub fn through(self, cache: CacheSettings) -> Result<Self, Error> {
        if self.mask.is_some() {
            return Err(Error::Task("a masked language model reads texts whole, without a cache".into()));
        }
        Ok(Self { cache: Some(cache), ..self })
    }

    /// The tokens of a window, and the distance between two.
    pub fn sizes(&self) -> (usize, usize) {
        (self.window, self.stride)
    }

    /// The windows of a text, and what they predict: tokens, and the bytes that these spell.
    ///
    /// # Errors
    /// When the tokenizer cannot encode the text.
    pub fn windows(&self, text: &str) -> Result<(Vec<Window>, Likelihood), Error> {
        match self.mask {
            Some((mask, every)) => self.masked(text, mask, every),
            None => self.causal(text),
        }
    }

    fn causal(&self, text: &str) -> Result<(Vec<Window>, Likelihood), Error> {
        let ids = self.tokenizer.encode(text, true)?;
        // Nothing predicts the first token; one that the tokenizer put there spells nothing.
        let first = self.tokenizer.decode(ids.get(..1).unwrap_or_default(), true)?.len();
        let (mut windows, mut done, mut start) = (vec![], 1, 0);
        while done < ids.len() {
            let end = ids.len().min(start + self.window);
            let read = &ids[start..end];
            let target = |at: usize| if at >= done && at < end { ids[at] as i32 } else { IGNORE };
            windows.push(Window { row: read.to_vec().into(), targets: (start + 1..=end).map(target).collect() });
            (done, start) = (end, start + self.stride);
        }
        let counted = Likelihood {
            nats: 0.,
            tokens: ids.len().saturating_sub(1) as u64,
            bytes: if ids.len() < 2 { 0 } else { text.len().saturating_sub(first) as u64 },
        };
        Ok((windows, counted))
    }

    fn masked(&self, text: &str, mask: u32, every: usize) -> Result<(Vec<Window>, Likelihood), Error> {
        let around = self.tokenizer.encode_detailed("a", true)?;
        let front: Vec<u32> =
            around.ids.iter().zip(&around.texts).take_while(|(_, text)| text.is_none()).map(|(&id, _)| id).collect();
        let back = around.texts.iter().rev().take_while(|text| text.is_none()).count();
        let back = &around.ids[around.len() - back..];
        let ids = self.tokenizer.encode(text, false)?;
        let Some(room) = self.window.checked_sub(front.len() + back.len()).filter(|&room| room > 0) else {
            return Err(Error::Task(format!("a window of {} tokens has no room for text", self.window)));
        };
        let (stride, mut windows, mut done, mut start) = (self.stride.min(room), vec![], 0, 0);
        while done < ids.len() {
            let end = ids.len().min(start + room);
            for phase in 0..every.min(end - done) {
                let hidden = |at: usize| at >= done && (at - done) % every == phase;
                let read = (start..end).map(|at| if hidden(at) { mask } else { ids[at] });
                let said = (start..end).map(|at| if hidden(at) { ids[at] as i32 } else { IGNORE });
                let nothing = |count| std::iter::repeat_n(IGNORE, count);
                windows.push(Window {
                    row: front.iter().copied().chain(read).chain(back.iter().copied()).collect::<Vec<u32>>().into(),
                    targets: nothing(front.len()).chain(said).chain(nothing(back.len())).collect(),
                });
            }
            (done, start) = (end, start + stride);
        }
        let bytes = if ids.is_empty() { 0 } else { text.len() as u64 };
        Ok((windows, Likelihood { nats: 0., tokens: ids.len() as u64, bytes }))
    }

    /// Summed negative log-likelihood of what these windows predict, in nats.
    ///
    /// # Errors
    /// A failure of the model.
    pub fn nats(&self, runner: &Runner, windows: &[Window]) -> Result<f64, Error> {
        if let Some(cache) = &self.cache {
            let each = |window| phyla_ops::no_grad(|| self.cached(window, cache));
            return windows.iter().map(each).sum();
        }
        let rows: Vec<&Row> = windows.iter().map(|window| &window.row).collect();
        let sums = runner.each(&rows, |input, batch| {
            let hidden = states(self.model, input)?;
            let mut targets = vec![IGNORE; input.batch * input.time];
            for (at, &index) in batch.iter().enumerate() {
                let said = &windows[index].targets;
                targets[at * input.time..][..said.len()].copy_from_slice(said);
            }
            let loss = self.model.loss(&hidden, &targets, CrossEntropy { label_smoothing: 0., scale: 1. })?;
            let sum = f64::from(loss.data().to_scalar::<f32>()?);
            // The sum is the batch's: its first row stands for all.
            Ok((0..batch.len()).map(|at| if at == 0 { sum } else { 0. }).collect())
        })?;
        Ok(sums.iter().sum())
    }

    /// The same of one window, read through a cache.
    fn cached(&self, window: &Window, settings: &CacheSettings) -> Result<f64, Error> {
        let ids = &window.row.ids;
        let spec = settings.spec(ids.len());
        let together = spec.sink.map_or(TOGETHER, |sink| sink.together().min(TOGETHER));
        let (mut cache, mut sum) = (Cache::with(1, spec), 0.);
        for (ids, targets) in ids.chunks(together).zip(window.targets.chunks(together)) {
            let hidden = self.model.forward(ids, None, &mut Pass::cached(cache.all(), ids.len()))?;
            if targets.iter().any(|&target| target != IGNORE) {
                let loss = self.model.loss(&hidden, targets, CrossEntropy { label_smoothing: 0., scale: 1. })?;
                sum += f64::from(loss.data().to_scalar::<f32>()?);
            }
        }
        Ok(sum)
    }
}
