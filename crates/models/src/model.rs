//! A model: an architecture with its parameters.

use std::collections::HashSet;
use std::sync::{Arc, PoisonError, RwLock};

use candle_core::Result;
use phyla_nn::adapter::Slot;
use phyla_nn::{
    Embedding, Emits, Head, HeadSpec, Init, Memory, Pass, Reads, Scope, Source, TokenTable, Tower, TowerSpec, Transform,
};
use phyla_ops::{CrossEntropy, Distillation, Param, Tensor, Told};
use serde_json::{Map, Value};

use crate::adapter::Prompt;
use crate::family::Entry;
use crate::{Arch, Input, Task};

/// A model that can run.
#[derive(Debug)]
pub struct Model {
    /// What it was built from.
    pub arch: Arch,
    /// Its family.
    pub family: &'static Entry,
    /// Its `config.json`, unknown fields included.
    pub config: Map<String, Value>,
    /// The encoder of an encoder-decoder.
    source: Option<Tower>,
    main: Tower,
    pooler: Option<Transform>,
    heads: Vec<Head>,
    params: Vec<Arc<Param>>,
    slots: Vec<Arc<Slot>>,
    /// What adapters put before every text.
    pub(crate) prompt: RwLock<Option<Arc<Prompt>>>,
    /// Paths of parameters that are never trained.
    fixed: HashSet<String>,
}

/// The balance losses of a pass.
#[derive(Debug, Default)]
pub struct Balance {
    /// The value of those that hang on results: the backward pass finds them there.
    pub attached: f64,
    /// One to be added to the loss.
    pub pending: Option<Tensor>,
}

/// A result and its name in transformers.
pub type Named = (&'static str, Tensor);

/// Hands through the parameters of a source and remembers them in order.
struct Remember<'a> {
    source: &'a mut dyn Source,
    params: Vec<Arc<Param>>,
    slots: Vec<Arc<Slot>>,
    known: HashSet<*const Param>,
    fixed: HashSet<String>,
}

impl Source for Remember<'_> {
    fn param(&mut self, path: &str, shape: &[usize], init: Init) -> Result<Arc<Param>> {
        let param = self.source.param(path, shape, init)?;
        if init.is_fixed() {
            self.fixed.insert(path.to_string());
        }
        // By address: a search through the list would take minutes for ten thousand layers.
        if self.known.insert(Arc::as_ptr(&param)) {
            self.params.push(param.clone());
        }
        Ok(param)
    }

    fn slot(&mut self, slot: &Arc<Slot>) {
        self.slots.push(slot.clone());
    }
}

impl Model {
    /// Builds the blocks of `arch` over the parameters of `source`.
    pub fn build(
        arch: Arch,
        family: &'static Entry,
        config: Map<String, Value>,
        source: &mut dyn Source,
    ) -> Result<Self> {
        let (known, fixed) = (HashSet::new(), HashSet::new());
        let mut remember = Remember { source, params: vec![], slots: vec![], known, fixed };
        let mut root = Scope::root(&mut remember).drawing(arch.draw);
        let shares = |(_, tower): &(_, &TowerSpec)| tower.embed.tokens == TokenTable::Shared;
        let tokens = match arch.towers().iter().any(shares) {
            true => Some(Arc::new(Embedding::new(arch.tokens, &mut root.at("tokens"))?)),
            false => None,
        };
        let mut towers = vec![];
        for (name, spec) in arch.towers() {
            towers.push(Tower::new(spec, tokens.as_ref(), &mut root.at(name))?);
        }
        let Some(main) = towers.pop() else { candle_core::bail!("a model needs a tower") };
        let pooler = arch.pooler.map(|spec| Transform::new(spec, &mut root.at("pooler"))).transpose()?;
        let heads: Vec<Head> =
            arch.heads.iter().map(|spec| Head::new(spec, main.table(), &mut root)).collect::<Result<_>>()?;
        let Remember { params, slots, fixed, .. } = remember;
        Ok(Self {
            arch,
            family,
            config,
            source: towers.pop(),
            main,
            pooler,
            heads,
            params,
            slots,
            prompt: RwLock::default(),
            fixed,
        })
    }

    /// The parameters, each once, in the order of the blocks.
    pub fn params(&self) -> &[Arc<Param>] {
        &self.params
    }

    /// Where adapters of the linear maps hang, in the order of the blocks.
    pub fn slots(&self) -> &[Arc<Slot>] {
        &self.slots
    }

    /// Whether a parameter stays as it is in training: a buffer of the reference, such as BART's bias on the logits.
    pub fn is_fixed(&self, param: &Param) -> bool {
        self.fixed.contains(param.path())
    }

    /// Moves mapped weights into huge pages where that pays, for who reads them all many times: see
    /// [`phyla_kernels::map::MappedFile::settle`]. Returns whether any were moved.
    ///
    /// # Errors
    /// Those of the system; the model stays usable.
    pub fn settle(&self) -> std::io::Result<bool> {
        let mut moved = false;
        for param in &self.params {
            if let Some(file) = param.weight().file() {
                moved |= file.settle()?;
            }
        }
        Ok(moved)
    }

    /// Up to this many rows pass together as if each were alone, to the bit, under the adapters that it has now.
    pub fn invariant_rows(&self) -> usize {
        // What adapters change of latent attention is no longer folded, and then reads all that is cached of all rows.
        let unfolds = |slot: &Arc<Slot>| slot.path().ends_with(".attn.kv_up") && !slot.changes().is_empty();
        if self.slots().iter().any(unfolds) {
            return 1;
        }
        let limits = self.params.iter().map(|param| phyla_ops::invariant_rows(param.precision()));
        limits.min().unwrap_or(usize::MAX)
    }

    /// Number of weights.
    pub fn count(&self) -> usize {
        self.params.iter().map(|param| param.count()).sum()
    }

    /// `ids[batch · time]` to the last hidden state of the main tower, `[batch, time, hidden]`: of an encoder-decoder
    /// the decoder's, whose pass attends to what [`Model::encode`] gave.
    ///
    /// With a cache in the pass, `ids` are the new tokens only.
    pub fn forward(&self, ids: &[u32], token_types: Option<&[u32]>, pass: &mut Pass) -> Result<Tensor> {
        if let Some(prompt) = self.prompt() {
            return self.forward_led(&prompt, ids, token_types, pass);
        }
        pass.begin(self.arch.position_ids.first())?;
        self.check(ids, pass)?;
        self.main.forward(ids, token_types, pass)
    }

    /// [`Model::forward`] behind what an adapter puts before every text: the states of the text alone.
    fn forward_led(
        &self,
        prompt: &Prompt,
        ids: &[u32],
        token_types: Option<&[u32]>,
        pass: &mut Pass,
    ) -> Result<Tensor> {
        let first = self.arch.position_ids.first();
        if pass.has_cache() {
            let read = |pass: &mut Pass| {
                pass.begin(first)?;
                self.check_positions(pass)?;
                self.main.forward(&[], None, pass).map(drop)
            };
            pass.lead_cache(|| prompt.lead(), read)?;
            pass.begin(first)?;
            self.check(ids, pass)?;
            return self.main.forward(ids, token_types, pass);
        }
        check(ids, self.arch.vocab(), pass)?;
        let (time, lead) = (pass.time(), prompt.lead()?);
        let count = lead.count;
        pass.led(lead, first, self.arch.main().causal)?;
        self.check_positions(pass)?;
        let text = |states: &Tensor| states.narrow(1, count, time);
        let all = self.main.forward(ids, token_types, pass)?;
        if !prompt.is_prefix() {
            pass.first = Some(all.narrow(1, 0, 1)?);
        }
        let hidden = text(&all)?;
        if let Some(states) = &mut pass.hidden_states {
            *states = states.iter().map(text).collect::<Result<_>>()?;
        }
        Ok(hidden)
    }

    /// What adapters put before every text.
    pub(crate) fn prompt(&self) -> Option<Arc<Prompt>> {
        self.prompt.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The main tower's table of token vectors, `[vocab, dim]`.
    pub fn token_table(&self) -> &Arc<Param> {
        self.main.table()
    }

    /// How many positions of a cache an adapter takes before every text.
    pub fn lead(&self) -> usize {
        self.prompt().map_or(0, |prompt| prompt.count())
    }

    /// What the encoder of an encoder-decoder says of `source`, for [`Pass::attending`] or a cache.
    pub fn encode(&self, source: &Input, pass: &mut Pass) -> Result<Memory> {
        let Some(encoder) = &self.source else {
            candle_core::bail!("{} has no encoder besides the model itself", self.family.model_type);
        };
        check(&source.ids, self.arch.tokens.rows, pass)?;
        self.check_positions(pass)?;
        let states = encoder.forward(&source.ids, source.token_types.as_deref(), pass)?;
        Ok(Memory::new(states, source.attention_mask.clone()))
    }

    /// What the heads make of the main tower's last hidden state, and the pooler's result, by their names in
    /// transformers; `input` is what the main tower read, of an encoder-decoder what the encoder did.
    pub fn outputs(&self, hidden: &Tensor, input: &Input, pass: &mut Pass) -> Result<Vec<Named>> {
        self.answers(hidden, input, pass, |_| true)
    }

    /// As [`Model::outputs`], of some heads only.
    pub fn answers(
        &self,
        hidden: &Tensor,
        input: &Input,
        pass: &mut Pass,
        wanted: impl Fn(&HeadSpec) -> bool,
    ) -> Result<Vec<Named>> {
        let mut results = vec![];
        let first = |pass: &Pass| match &pass.first {
            Some(first) => first.reshape((input.batch, hidden.last_dim())),
            None => rows(hidden, &input.first()),
        };
        let pooled = match &self.pooler {
            Some(pooler) => Some(pooler.forward(&first(pass)?, pass)?),
            None => None,
        };
        for head in self.heads.iter().filter(|head| wanted(&head.spec)) {
            let x = match (head.spec.reads, &pooled) {
                (Reads::Tokens, _) => hidden.clone(),
                (Reads::First, _) => first(pass)?,
                (Reads::Last { pad }, _) => rows(hidden, &input.last(pad))?,
                (Reads::End { .. }, _) if hidden.dims()[..2] != [input.batch, input.time] => candle_core::bail!(
                    "{} reads the state where the text ends: expected the decoder to read {} x {} tokens as the encoder, \
                     found {:?}",
                    head.spec.name,
                    input.batch,
                    input.time,
                    &hidden.dims()[..2]
                ),
                (Reads::End { eos }, _) => rows(hidden, &input.end(eos)?)?,
                (Reads::Pooled, Some(pooled)) => pooled.clone(),
                (Reads::Pooled, None) => candle_core::bail!("{} reads a pooler that is not there", head.spec.name),
            };
            let y = head.forward(&x, pass)?;
            match head.spec.emits {
                Emits::One(name) if self.arch.task == Task::MultipleChoice => {
                    results.push((name, y.reshape((input.batch / input.choices.max(1), input.choices.max(1)))?));
                }
                Emits::One(name) => results.push((name, y)),
                Emits::Pair(first, second) => {
                    let (shape, last) = (&y.dims()[..y.dims().len() - 1], y.dims().len() - 1);
                    results.push((first, y.narrow(last, 0, 1)?.reshape(shape)?));
                    results.push((second, y.narrow(last, 1, 1)?.reshape(shape)?));
                }
            }
        }
        results.extend(pooled.map(|pooled| ("pooler_output", pooled)).filter(|_| self.arch.task == Task::Base));
        Ok(results)
    }

    /// The head that answers with tokens.
    ///
    /// # Errors
    /// When the model has none.
    pub fn lm_head(&self) -> Result<&Head> {
        match self.heads.iter().find(|head| head.spec.is_lm()) {
            Some(head) => Ok(head),
            None => candle_core::bail!(
                "this model is for {} and has no language-model head: `architectures` in config.json says so",
                self.arch.task.describe()
            ),
        }
    }

    /// Hidden states `[.., hidden]` to logits `[.., vocab]`.
    pub fn logits(&self, hidden: &Tensor) -> Result<Tensor> {
        self.lm_head()?.forward(hidden, &mut Pass::idle())
    }

    /// The language-model loss of `hidden[.., hidden]` against `targets`, one for each row; see
    /// [`phyla_ops::linear_cross_entropy`].
    pub fn loss(&self, hidden: &Tensor, targets: &[i32], args: CrossEntropy) -> Result<Tensor> {
        self.lm_head()?.cross_entropy(hidden, targets, args, &mut Pass::idle())
    }

    /// Log-probabilities, `[counted]`, of those `targets` that are not ignored, for `hidden[.., hidden]` with a target a row.
    ///
    /// # Errors
    /// A model without a language-model head, and targets outside its vocabulary.
    pub fn log_probs(&self, hidden: &Tensor, targets: &[i32], pass: &mut Pass) -> Result<Tensor> {
        let choices = self.choices(hidden, targets, 1., pass)?;
        let counted = choices.dims()[0];
        choices.narrow(1, 0, 1)?.reshape(counted)
    }

    /// Log-probabilities of those `targets` that are not ignored, and the entropies of the distributions that they come
    /// from, `[counted, 2]`, at a temperature.
    ///
    /// # Errors
    /// As [`Model::log_probs`].
    pub fn choices(&self, hidden: &Tensor, targets: &[i32], temperature: f32, pass: &mut Pass) -> Result<Tensor> {
        self.lm_head()?.choices(hidden, targets, temperature, pass)
    }

    /// The head that answers for each token: with tokens, or with labels.
    fn token_head(&self) -> Result<&Head> {
        let answers = |head: &&Head| head.spec.reads == Reads::Tokens && matches!(head.spec.emits, Emits::One(_));
        match self.heads.iter().find(answers) {
            Some(head) => Ok(head),
            None => candle_core::bail!(
                "the batch has a target for each token, and this model, for {}, no head that answers for each",
                self.arch.task.describe()
            ),
        }
    }

    /// The loss of targets for tokens, by the head that answers for each token.
    pub fn token_loss(&self, hidden: &Tensor, targets: &[i32], args: CrossEntropy, pass: &mut Pass) -> Result<Tensor> {
        self.token_head()?.cross_entropy(hidden, targets, args, pass)
    }

    /// The same beside the divergence from what a teacher says of the same tokens, given its hidden states.
    pub fn taught_loss(
        &self,
        hidden: &Tensor,
        (teacher, theirs): (&Self, &Tensor),
        targets: &[i32],
        args: Distillation,
        pass: &mut Pass,
    ) -> Result<(Tensor, Told)> {
        self.token_head()?.distillation(hidden, (teacher.token_head()?, theirs), targets, args, pass)
    }

    /// What a training pass says about the evenness of its mixtures of experts: some losses hang on the layers'
    /// results already, the one over all layers together is still to be added.
    ///
    /// # Errors
    /// With `checkpointing`, a model whose loss is over all layers: their choices are not kept.
    pub fn balance(&self, pass: &mut Pass, checkpointing: bool) -> Result<Balance> {
        let Some(ledger) = pass.balance.take() else { return Ok(Balance::default()) };
        let mut balance = Balance { attached: ledger.loss, pending: None };
        if let Some(factor) = self.arch.router_loss.filter(|&factor| factor > 0.) {
            if checkpointing {
                candle_core::bail!(
                    "output_router_logits asks for a balance loss over all layers, whose choices \
                     activation_checkpointing does not keep: switch one of them off"
                );
            }
            let layers: Vec<_> = ledger.routed.iter().collect();
            if !layers.is_empty() {
                balance.pending = Some(phyla_ops::load_balance(&layers, pass.valid(), factor * ledger.weight)?);
            }
        }
        Ok(balance)
    }

    /// What [`Model::forward`] checks first: the number of ids, the vocabulary, the learned positions.
    ///
    /// # Errors
    /// Names the id or position that does not fit.
    pub fn check(&self, ids: &[u32], pass: &Pass) -> Result<()> {
        check(ids, self.arch.vocab(), pass)?;
        self.check_positions(pass)
    }

    fn check_positions(&self, pass: &Pass) -> Result<()> {
        let limit = self.arch.context + self.arch.position_ids.first() as usize;
        match pass.positions().iter().find(|&&p| self.arch.context_is_hard && p as usize >= limit) {
            Some(p) => candle_core::bail!("position {p} is beyond the {limit} that this model has learned"),
            None => Ok(()),
        }
    }
}

fn check(ids: &[u32], vocab: usize, pass: &Pass) -> Result<()> {
    let expected = pass.batch() * pass.time();
    if ids.len() != expected {
        candle_core::bail!("expected {expected} token ids ({} x {}), found {}", pass.batch(), pass.time(), ids.len());
    }
    match ids.iter().find(|&&id| id as usize >= vocab) {
        Some(id) => {
            candle_core::bail!("token id {id} is outside the vocabulary of {vocab}; is this the model's own tokenizer?")
        }
        None => Ok(()),
    }
}

/// The states of some tokens, `[rows, hidden]`.
fn rows(hidden: &Tensor, tokens: &[u32]) -> Result<Tensor> {
    phyla_ops::gather_rows(hidden, tokens)
}
