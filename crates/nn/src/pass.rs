//! What belongs to one forward pass and not to the model.

use std::sync::{Arc, Mutex, PoisonError};

use candle_core::Result;
use phyla_kernels::rng::Rng;
use phyla_ops::{Dropout, RelativeIndex, RopeRows, Routed, Tensor, Visibility};

use crate::{CacheRows, Keys, Lead, Mask, Memory, RopeSpec, Seen};

/// Positions, mask, cache and randomness of one pass over `[batch, time]` tokens.
pub struct Pass<'a> {
    tokens: Arc<Tokens>,
    cache: Option<CacheRows<'a>>,
    memory: Option<Memory>,
    /// What stands before the text of every row, of a pass that reads that, too.
    lead: Option<Lead>,
    /// What the last layer says, `[batch, 1, hidden]`, of a prompt's first vector, which stands where a text would begin.
    pub first: Option<Tensor>,
    randomness: Option<Randomness>,
    /// The balance losses of mixtures of experts, in training.
    pub balance: Option<Ledger>,
    /// What the tower's layers share about relative positions: a bias on the scores, or a table of vectors.
    pub relative: Option<Tensor>,
    /// Which vector of that table belongs to which pair of tokens.
    pub index: Option<RelativeIndex>,
    /// Filled with every layer's input, when wanted.
    pub hidden_states: Option<Vec<Tensor>>,
    /// Filled with every layer's attention weights, when wanted.
    pub attentions: Option<Attentions>,
    /// Keep only the layers' inputs and compute them again in the backward pass.
    pub checkpointing: bool,
    /// NEFTune's alpha: in training, noise on the embedded tokens.
    pub neftune: Option<f32>,
    /// So many layers run, from the first; all without a word.
    pub layers: Option<usize>,
    /// Index of the layer that runs now: its slot in the cache.
    pub layer: usize,
}

/// The attention weights of a pass, which attention itself never holds: computed once more, for looking at them.
#[derive(Clone, Debug, Default)]
pub struct Attentions {
    /// Of each layer over its own tokens, `[batch, heads, time, keys]`; with a cache the keys are all it holds.
    pub own: Vec<Tensor>,
    /// Of each layer over an encoder's states, `[batch, heads, time, source]`.
    pub cross: Vec<Tensor>,
}

/// What mixtures of experts say about the evenness of their choices.
#[derive(Clone, Debug, Default)]
pub struct Ledger {
    /// The pass's share of a step whose loss is a mean over several passes.
    pub weight: f32,
    /// Sum of the losses so far, each times `weight`.
    pub loss: f64,
    /// The choices of the layers that have no loss of their own.
    pub routed: Vec<Routed>,
}

impl Ledger {
    /// A ledger of a pass that is `weight` of its step.
    pub fn new(weight: f32) -> Self {
        Self { weight, ..Self::default() }
    }

    /// Takes down a loss that has been attached to a layer's result.
    pub(crate) fn note(&mut self, loss: &Tensor) -> Result<()> {
        self.loss += loss.data().to_scalar::<f32>()? as f64;
        Ok(())
    }

    /// For a layer that is computed again: what it says is known already.
    fn replay(&self) -> Self {
        Self::new(self.weight)
    }
}

/// What all layers of a pass share; computed once.
struct Tokens {
    batch: usize,
    time: usize,
    positions: Vec<u32>,
    mask: Mask,
    valid: Option<Vec<u8>>,
    windows: Mutex<Vec<(Option<usize>, Visibility)>>,
    ropes: Mutex<Vec<(Arc<RopeSpec>, RopeRows)>>,
}

/// The random numbers of a training pass: every dropout draws from a stream of its own, numbered in order.
#[derive(Clone, Debug)]
pub struct Randomness {
    /// A stream that differs from step to step.
    pub rng: Rng,
    /// Number of the next dropout.
    pub site: u64,
}

impl<'a> Pass<'a> {
    /// A pass over `batch` rows of `time` tokens, at `positions[batch · time]`.
    pub fn new(batch: usize, time: usize, positions: Vec<u32>, mask: Mask) -> Self {
        Self::hiding(batch, time, positions, mask, None)
    }

    /// A pass in which `valid` (`[batch, time]`, 0 = padding) tells blocks which tokens mean nothing; the mask is to
    /// say so, too.
    pub fn hiding(batch: usize, time: usize, positions: Vec<u32>, mask: Mask, valid: Option<Vec<u8>>) -> Self {
        let (windows, ropes) = (Mutex::default(), Mutex::default());
        Self {
            tokens: Arc::new(Tokens { batch, time, positions, mask, valid, windows, ropes }),
            cache: None,
            memory: None,
            lead: None,
            first: None,
            balance: None,
            relative: None,
            index: None,
            randomness: None,
            hidden_states: None,
            attentions: None,
            checkpointing: false,
            neftune: None,
            layers: None,
            layer: 0,
        }
    }

    /// A pass over nothing: for heads, outside training.
    pub fn idle() -> Self {
        Self::new(0, 0, vec![], Mask::new(0, 0, false, None, None))
    }

    /// A pass that extends a cache by `time` tokens in each of its rows.
    pub fn cached(cache: CacheRows<'a>, time: usize) -> Self {
        let lengths = cache.seen(time);
        let positions = lengths.iter().flat_map(|&past| past as u32..(past + time) as u32).collect();
        let mask = Mask::cached(&lengths, time);
        let batch = lengths.len();
        Self { cache: Some(cache), ..Pass::new(batch, time, positions, mask) }
    }

    /// Lets a cache's first token stand at position `first`; without a cache positions stay as they were given.
    pub fn begin(&mut self, first: u32) -> Result<()> {
        if self.cache.is_none() || first == 0 {
            return Ok(());
        }
        let Some(tokens) = Arc::get_mut(&mut self.tokens) else {
            candle_core::bail!("a cached pass is moved before anything has read its positions");
        };
        tokens.positions.iter_mut().for_each(|position| *position += first);
        Ok(())
    }

    /// Lets `lead` stand before every row's text, from position `first` on: the pass reads it, too, and positions count it. For passes without a
    /// cache; see [`Pass::lead_cache`].
    ///
    /// # Errors
    /// Several documents in a row.
    pub fn led(&mut self, lead: Lead, first: u32, causal: bool) -> Result<()> {
        let Some(tokens) = Arc::get_mut(&mut self.tokens) else {
            candle_core::bail!("a pass is led before anything has read its positions");
        };
        let (batch, time, count) = (tokens.batch, tokens.time, lead.count as u32);
        if !tokens.mask.is_one_text(time) {
            candle_core::bail!(
                "a prompt or prefix stands before a whole row, and these rows hold several documents each"
            );
        }
        let rows = tokens.positions.chunks(time.max(1)).take(batch);
        tokens.positions =
            rows.flat_map(|row| (first..first + count).chain(row.iter().map(move |p| p + count))).collect();
        tokens.mask = tokens.mask.behind(batch, time, lead.count, causal);
        if let Some(valid) = &mut tokens.valid {
            let rows = valid.chunks(time.max(1)).take(batch);
            let wider = rows.flat_map(|row| std::iter::repeat_n(1, lead.count).chain(row.iter().copied()));
            *valid = wider.collect();
        }
        tokens.time = time + lead.count;
        self.lead = Some(lead);
        Ok(())
    }

    /// Lets `read` read a lead into those rows of the cache that are empty, and the pass follow it; it is made where there are
    /// such rows, and so once for a text, not for each of its tokens.
    ///
    /// # Errors
    /// Those of both, and a cache that keeps the first and last tokens alone.
    pub fn lead_cache(
        &mut self,
        lead: impl FnOnce() -> Result<Lead>,
        read: impl Fn(&mut Pass) -> Result<()>,
    ) -> Result<()> {
        let time = self.time();
        let Some(cache) = &mut self.cache else { return Ok(()) };
        let empty: Vec<usize> = cache.rows.clone().filter(|&row| cache.cache.lengths()[row] == 0).collect();
        if empty.is_empty() {
            return Ok(());
        }
        if cache.cache.spec().sink.is_some() {
            candle_core::bail!(
                "a sink cache turns the keys that it keeps, and those of a prompt or prefix stay as they are"
            );
        }
        let lead = lead()?;
        for row in empty {
            let mut pass = Pass::cached(CacheRows { cache: &mut *cache.cache, rows: row..row + 1 }, lead.count);
            pass.lead = Some(lead.clone());
            read(&mut pass)?;
        }
        let lengths = cache.seen(time);
        let Some(tokens) = Arc::get_mut(&mut self.tokens) else {
            candle_core::bail!("a pass is led before anything has read its positions");
        };
        tokens.positions = lengths.iter().flat_map(|&past| past as u32..(past + time) as u32).collect();
        tokens.mask = Mask::cached(&lengths, time);
        Ok(())
    }

    /// What stands before every row's text, if this pass reads it.
    pub(crate) fn lead(&self) -> Option<&Lead> {
        self.lead.as_ref()
    }

    /// A layer's keys and values, those of a lead in their place.
    pub(crate) fn replace_led(&self, k: Tensor, v: Tensor) -> Result<[Tensor; 2]> {
        match &self.lead {
            Some(lead) => lead.replace(self.layer, [k, v]),
            None => Ok([k, v]),
        }
    }

    /// Turns dropout on.
    pub fn training(self, rng: Rng) -> Self {
        Self { randomness: Some(Randomness { rng, site: 0 }), ..self }
    }

    /// Lets the decoder attend to an encoder's states, a row of them for each row of the pass. A cache brings its own.
    pub fn attending(self, memory: Memory) -> Self {
        Self { memory: Some(memory), ..self }
    }

    /// Rows.
    pub fn batch(&self) -> usize {
        self.tokens.batch
    }

    /// Tokens of a row.
    pub fn time(&self) -> usize {
        self.tokens.time
    }

    /// `[batch, time]`.
    pub fn positions(&self) -> &[u32] {
        &self.tokens.positions
    }

    /// Tokens that lie before this pass's: of each row of its cache, or 0 for all rows at once.
    pub fn past(&self) -> Vec<u32> {
        match &self.cache {
            Some(cache) => cache.lengths().iter().map(|&length| length as u32).collect(),
            None => vec![0],
        }
    }

    /// `[batch, time]`: 0 is padding; `None` if nothing is.
    pub fn valid(&self) -> Option<&[u8]> {
        self.tokens.valid.as_deref()
    }

    /// What the tower has computed for all its layers.
    pub fn relative(&self) -> Result<&Tensor> {
        match &self.relative {
            Some(relative) => Ok(relative),
            None => candle_core::bail!("a layer asks for relative positions, and its tower has none"),
        }
    }

    /// Which vector of the tower's table belongs to which pair of tokens.
    pub fn index(&self) -> Result<&RelativeIndex> {
        match &self.index {
            Some(index) => Ok(index),
            None => candle_core::bail!("a layer asks for a table of relative positions, and its tower has none"),
        }
    }

    /// Keys and values that `project` makes of the encoder's states, `[rows, source, heads, dim]`: with a cache, made
    /// once.
    pub fn memory_keys(&mut self, project: &dyn Fn(&Tensor) -> Result<[Tensor; 2]>) -> Result<[Tensor; 2]> {
        match (&mut self.cache, &self.memory) {
            (Some(cache), _) => cache.memory_keys(self.layer, project),
            (None, Some(memory)) => project(&memory.states),
            (None, None) => candle_core::bail!("a decoder that attends to an encoder was run without its states"),
        }
    }

    /// Which of the encoder's states each query sees.
    pub fn memory_visibility(&self) -> Result<Visibility> {
        match (&self.cache, &self.memory) {
            (Some(cache), _) => cache.memory_visibility(self.time()),
            (None, Some(memory)) => Ok(memory.visibility(0..memory.rows(), self.time())),
            (None, None) => candle_core::bail!("a decoder that attends to an encoder was run without its states"),
        }
    }

    /// The dropout of the next site; `None` outside training or at probability 0.
    pub fn dropout(&mut self, p: f32) -> Option<Dropout> {
        let randomness = self.randomness.as_mut().filter(|_| p > 0.)?;
        randomness.site += 1;
        Some(Dropout { p, rng: randomness.rng.split(randomness.site), offset: 0 })
    }

    /// `x`, in training with elements dropped.
    pub fn drop(&mut self, x: Tensor, p: f32) -> Result<Tensor> {
        match self.dropout(p) {
            Some(dropout) => phyla_ops::dropout(&x, &dropout),
            None => Ok(x),
        }
    }

    /// Embedded tokens, `[batch, time, dim]`, in training under the noise that was asked for: uniform, of at most
    /// `alpha / sqrt(time · dim)` (Jain et al. 2023, "NEFTune", algorithm 1; `time` counts filling, as in transformers).
    pub fn noisy(&mut self, x: Tensor) -> Result<Tensor> {
        let (Some(alpha), Some(randomness)) = (self.neftune, &self.randomness) else { return Ok(x) };
        let p = alpha / ((self.time() * x.last_dim()) as f32).sqrt();
        phyla_ops::disturb(&x, &Dropout { p, rng: randomness.rng.split("noise of embeddings"), offset: 0 })
    }

    /// `x`, in training with every element multiplied by a number between `1 - by` and `1 + by`.
    pub fn jitter(&mut self, x: Tensor, by: f32) -> Result<Tensor> {
        match self.dropout(by) {
            Some(noise) => phyla_ops::jitter(&x, &noise),
            None => Ok(x),
        }
    }

    /// The mask of a layer with this window.
    pub fn visibility(&self, window: Option<usize>) -> Visibility {
        let mut known = self.tokens.windows.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, visible)) = known.iter().find(|(w, _)| *w == window) {
            return visible.clone();
        }
        let visible = self.tokens.mask.window(window);
        known.push((window, visible.clone()));
        visible
    }

    /// The rotations of these positions.
    pub fn rope(&self, spec: &Arc<RopeSpec>) -> RopeRows {
        let mut known = self.tokens.ropes.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, rows)) = known.iter().find(|(s, _)| Arc::ptr_eq(s, spec)) {
            return rows.clone();
        }
        let late = self.cache.as_ref().and_then(|cache| cache.late_rope(spec, self.tokens.positions.clone()));
        let rows = late.unwrap_or_else(|| spec.rows(&self.tokens.positions));
        known.push((spec.clone(), rows.clone()));
        rows
    }

    /// The rotations of new keys; `None` where a cache keeps them as they are and turns them when they are read: see
    /// [`Pass::turned`].
    pub fn rope_of_new(&self, spec: &Arc<RopeSpec>) -> Option<RopeRows> {
        let late = self.cache.as_ref().is_some_and(|cache| cache.cache.spec().sink.is_some());
        (!late).then(|| self.rope(spec))
    }

    /// All keys that attention sees, turned if they have not been yet.
    pub fn turned(&self, keys: Keys, spec: &Arc<RopeSpec>) -> Result<Keys> {
        let [batch, count] = keys.sizes();
        // Of each row the first ones: those that are not there are not seen.
        let positions = || (0..batch).flat_map(|_| 0..count as u32).collect();
        match self.cache.as_ref().and_then(|cache| cache.late_rope(spec, positions())) {
            Some(rows) => Ok(Keys::Whole(phyla_ops::rope(&keys.whole()?, &rows)?)),
            None => Ok(keys),
        }
    }

    /// With a cache: appends keys and values to it, which attention looks at so, and returns all that it sees; without:
    /// those given.
    pub fn extend(&mut self, k: Tensor, v: Tensor, seen: Seen) -> Result<[Keys; 2]> {
        let layer = self.layer;
        let Some(cache) = &mut self.cache else { return Ok([Keys::Whole(k), Keys::Whole(v)]) };
        match <[Keys; 2]>::try_from(cache.append(layer, &[k.data(), v.data()], seen)?) {
            Ok(both) => Ok(both),
            Err(all) => candle_core::bail!("a cache layer of {} parts was given two", all.len()),
        }
    }

    /// As [`Pass::extend`] for the one latent vector that a layer keeps of each token; says whether there is a cache.
    pub fn extend_latent(&mut self, latent: Tensor, seen: Seen) -> Result<(Keys, bool)> {
        let layer = self.layer;
        let Some(cache) = &mut self.cache else { return Ok((Keys::Whole(latent), false)) };
        match <[Keys; 1]>::try_from(cache.append(layer, &[latent.data()], seen)?) {
            Ok([latent]) => Ok((latent, true)),
            Err(all) => candle_core::bail!("a cache layer of {} parts was given one", all.len()),
        }
    }

    /// Keeps the attention weights of a layer, over an encoder's states if `cross`, where they are wanted.
    pub(crate) fn look(&mut self, cross: bool, weights: impl FnOnce() -> Result<Tensor>) -> Result<()> {
        if let Some(kept) = &mut self.attentions {
            let place = if cross { &mut kept.cross } else { &mut kept.own };
            place.push(weights()?);
        }
        Ok(())
    }

    /// Ends the pass: the cache counts its new tokens.
    pub fn finish(&mut self) {
        let time = self.time();
        if let Some(cache) = &mut self.cache {
            cache.advance(time);
        }
    }

    /// A pass over the same tokens from this point on, for computing a layer again. Not for cached passes.
    pub(crate) fn replay(&self) -> Pass<'static> {
        Pass {
            tokens: self.tokens.clone(),
            cache: None,
            memory: self.memory.clone(),
            lead: self.lead.clone(),
            first: None,
            balance: self.balance.as_ref().map(Ledger::replay),
            relative: self.relative.clone(),
            index: self.index.clone(),
            randomness: self.randomness.clone(),
            hidden_states: None,
            attentions: None,
            checkpointing: false,
            neftune: None,
            layers: None,
            layer: self.layer,
        }
    }

    /// The tensors from outside a layer that it reads: what it is given again when computed again.
    pub(crate) fn shared(&self) -> Vec<&Tensor> {
        let keys = self.lead.iter().flat_map(|lead| lead.keys.get(self.layer)).flatten();
        self.relative.iter().chain(self.memory.as_ref().map(|memory| &memory.states)).chain(keys).collect()
    }

    /// Puts other tensors in the place of [`Pass::shared`]'s.
    pub(crate) fn share(&mut self, tensors: &[Tensor]) {
        let memory = self.memory.as_mut().map(|memory| &mut memory.states);
        let keys = self.lead.iter_mut().flat_map(|lead| lead.keys.get_mut(self.layer)).flatten();
        for (place, tensor) in self.relative.iter_mut().chain(memory).chain(keys).zip(tensors) {
            *place = tensor.clone();
        }
    }

    /// Takes over the count of random sites from a replayed pass.
    pub(crate) fn caught_up(&mut self, sites: u64) {
        if let Some(randomness) = &mut self.randomness {
            randomness.site = sites;
        }
    }

    pub(crate) fn sites(&self) -> u64 {
        self.randomness.as_ref().map_or(0, |r| r.site)
    }

    /// Whether it extends a cache.
    pub fn has_cache(&self) -> bool {
        self.cache.is_some()
    }
}
