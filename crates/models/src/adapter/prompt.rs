//! What stands before every text and is learned: prompt tuning (Lester et al. 2021), P-tuning (Liu et al. 2021) and prefix
//! tuning (Li and Liang 2021; without its projection P-tuning v2, Liu et al. 2022). For models of one tower.

mod spec;

use std::collections::HashSet;
use std::path::Path;
use std::sync::Arc;

use candle_core::Result;
use phyla_kernels::rng::Rng;
use phyla_nn::adapter::network;
use phyla_nn::pattern::Pattern;
use phyla_nn::{Act, Lead, SublayerSpec};
use phyla_ops::{Data, Param, Tensor};
use serde_json::{Map, Value, json};

use spec::TOKENS;
pub(super) use spec::check;
pub use spec::{Network, PTuningSpec, PrefixSpec, PromptInit, PromptSpec};

use super::fresh::param;
use super::load::{put_whole, whole};
use super::peft::{PeftConfig, WEIGHTS};
use super::save::{Tensors, write, write_all};
use super::{Adapter, AdapterSpec, Kept};
use crate::checkpoint::Checkpoint;
use crate::{LoadError, Model};

/// Where what makes a prompt is kept, to be trained further; peft, which keeps the prompt alone, never reads it.
const ENCODER: &str = "prompt_encoder.safetensors";
/// What the names of the model's own parameters begin with in peft's file, where there is a prompt in it.
pub(super) const BESIDE: &str = "base_model.";
/// The tensor of peft.
const EMBEDDINGS: &str = "prompt_embeddings";

/// Sizes of the model that a prompt is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Sizes {
    /// Of a token's vector.
    dim: usize,
    layers: usize,
    kv_heads: usize,
    head_dim: usize,
}

impl Sizes {
    /// Keys, or values, of one layer.
    fn keys(&self) -> usize {
        self.kv_heads * self.head_dim
    }

    fn of(model: &Model, prefix: bool) -> std::result::Result<Self, LoadError> {
        let (main, lost) =
            (model.arch.main(), |why: &str| Err(LoadError::Adapter(format!("prompts and prefixes {why}"))));
        if model.arch.source().is_some() {
            return lost("stand before one text, and this model reads one and writes another");
        }
        let dim = model.token_table().dims()[1];
        let mut sizes = Self { dim, layers: main.layers.len(), kv_heads: 0, head_dim: 0 };
        for sublayer in main.layers.iter().flat_map(|layer| &layer.sublayers) {
            match sublayer {
                SublayerSpec::Attention(attention) => {
                    let own = (attention.kv_heads, attention.head_dim);
                    if prefix && sizes.kv_heads > 0 && own != (sizes.kv_heads, sizes.head_dim) {
                        return lost("have keys of one size, and this model's layers have several");
                    }
                    (sizes.kv_heads, sizes.head_dim) = own;
                }
                SublayerSpec::Mlp(_) | SublayerSpec::Moe(_) => {}
                _ if prefix => return lost("replace keys and values, and this model's attention has none of its own"),
                _ => {}
            }
        }
        Ok(sizes)
    }
}

/// What stands before every text.
#[derive(Debug)]
pub struct Prompt {
    count: usize,
    /// Whether its vectors are keys and values of the layers.
    prefix: bool,
    sizes: Sizes,
    /// `[count, ..]`, a row for each position.
    embedding: Arc<Param>,
    encoder: Option<Encoder>,
}

/// What makes vectors of rows, in training.
#[derive(Debug)]
struct Encoder {
    /// Eight parameters for each layer of an LSTM, or none.
    cells: Vec<Arc<Param>>,
    /// Weight and bias of linear maps.
    maps: Vec<[Arc<Param>; 2]>,
    /// Between them.
    act: Act,
}

impl Prompt {
    /// How many positions it takes.
    pub fn count(&self) -> usize {
        self.count
    }

    /// Whether it stands for keys and values, and not for tokens.
    pub(crate) fn is_prefix(&self) -> bool {
        self.prefix
    }

    /// What it learns.
    pub(super) fn params(&self) -> Vec<&Arc<Param>> {
        std::iter::once(&self.embedding)
            .chain(self.encoder.iter().flat_map(|encoder| encoder.cells.iter().chain(encoder.maps.iter().flatten())))
            .collect()
    }

    /// Its vectors, `[count, width]`.
    fn vectors(&self) -> Result<Tensor> {
        let rows: Vec<u32> = (0..self.count as u32).collect();
        let mut x = phyla_ops::embedding(&self.embedding, &rows, &[self.count], None)?;
        let Some(encoder) = &self.encoder else { return Ok(x) };
        if !encoder.cells.is_empty() {
            x = phyla_ops::lstm(&x, &encoder.cells)?;
        }
        network(&x, &encoder.maps, encoder.act)
    }

    /// What a pass reads before its text.
    pub(crate) fn lead(&self) -> Result<Lead> {
        let (vectors, count, sizes) = (self.vectors()?, self.count, self.sizes);
        if !self.prefix {
            return Ok(Lead { count, tokens: vectors, keys: vec![] });
        }
        let parts = vectors.reshape((count, 2 * sizes.layers, sizes.keys()))?;
        let part = |at: usize| parts.narrow(1, at, 1)?.reshape((count, sizes.kv_heads, sizes.head_dim));
        let keys = (0..sizes.layers).map(|layer| Ok([part(2 * layer)?, part(2 * layer + 1)?]));
        let tokens = Tensor::from(Data::zeros((count, sizes.dim), candle_core::DType::F32, vectors.device())?);
        Ok(Lead { count, tokens, keys: keys.collect::<Result<_>>()? })
    }
}

/// Draws parameters, or reads them.
struct Maker<'a> {
    rng: Rng,
    saved: Option<&'a Checkpoint>,
}

impl Maker<'_> {
    /// A parameter by PyTorch's name: uniform within `1 / √fan`, or normal without one.
    fn param(&self, name: &str, shape: &[usize], fan: Option<usize>) -> std::result::Result<Arc<Param>, LoadError> {
        let mut values = vec![0.; shape.iter().product()];
        match (self.saved, fan) {
            (Some(saved), _) => {
                let view = saved.get(name)?;
                if view.shape != shape {
                    return Err(LoadError::Adapter(format!(
                        "{ENCODER}: {name}: expected {shape:?}, found {:?}",
                        view.shape
                    )));
                }
                values = view.to_f32()?;
            }
            (None, Some(fan)) => {
                let bound = 1. / (fan.max(1) as f32).sqrt();
                self.rng.split(name).fill_uniform(&mut values, -bound, bound);
            }
            (None, None) => self.rng.split(name).fill_normal(&mut values, 0., 1.),
        }
        Ok(param(format!("prompt.{name}"), values, shape)?)
    }

    fn maps(&self, name: &str, sizes: &[usize]) -> std::result::Result<Vec<[Arc<Param>; 2]>, LoadError> {
        let map = |(at, pair): (usize, &[usize])| {
            let name = |what: &str| format!("{name}.{}.{what}", 2 * at);
            let weight = self.param(&name("weight"), &[pair[1], pair[0]], Some(pair[0]))?;
            Ok([weight, self.param(&name("bias"), &[pair[1]], Some(pair[0]))?])
        };
        sizes.windows(2).enumerate().map(map).collect()
    }

    fn prompt(&self, spec: &AdapterSpec, sizes: Sizes) -> std::result::Result<Prompt, LoadError> {
        let table = |count: usize, width: usize| self.param("embedding.weight", &[count, width], None);
        let made = |count, prefix, embedding, encoder| Ok(Prompt { count, prefix, sizes, embedding, encoder });
        match spec {
            AdapterSpec::PTuning(spec) => {
                let (dim, hidden) = (sizes.dim, spec.hidden.unwrap_or(sizes.dim));
                let (mut cells, act) = (vec![], Act::Relu);
                let maps = match spec.encoder {
                    Network::Mlp => self.maps("mlp_head", &[dim, hidden, hidden, dim])?,
                    Network::Lstm => {
                        for layer in 0..spec.layers {
                            let input = if layer == 0 { dim } else { 2 * hidden };
                            for end in ["", "_reverse"] {
                                let name = |what: &str| format!("lstm_head.{what}_l{layer}{end}");
                                let of = |what: &str, shape: &[usize]| self.param(&name(what), shape, Some(hidden));
                                cells.push(of("weight_ih", &[4 * hidden, input])?);
                                cells.push(of("weight_hh", &[4 * hidden, hidden])?);
                                cells.push(of("bias_ih", &[4 * hidden])?);
                                cells.push(of("bias_hh", &[4 * hidden])?);
                            }
                        }
                        self.maps("mlp_head", &[2 * hidden, 2 * hidden, dim])?
                    }
                };
                made(spec.tokens, false, table(spec.tokens, dim)?, Some(Encoder { cells, maps, act }))
            }
            AdapterSpec::Prefix(spec) => {
                let (keys, width) = (sizes.keys(), 2 * sizes.layers * sizes.keys());
                if !spec.projection {
                    return made(spec.tokens, true, table(spec.tokens, width)?, None);
                }
                let maps = self.maps("transform", &[keys, spec.hidden.unwrap_or(keys), width])?;
                let encoder = Encoder { cells: vec![], maps, act: Act::Tanh };
                made(spec.tokens, true, table(spec.tokens, keys)?, Some(encoder))
            }
            AdapterSpec::Prompt(spec) => made(spec.tokens, false, table(spec.tokens, sizes.dim)?, None),
            other => Err(LoadError::Adapter(format!("{} puts nothing before a text", other.name()))),
        }
    }
}

/// A new prompt; `init_text` is put in later, by [`Adapter::begin_with`].
pub(super) fn fresh(model: &Model, spec: &AdapterSpec, rng: Rng) -> std::result::Result<Adapter, LoadError> {
    let sizes = Sizes::of(model, matches!(spec, AdapterSpec::Prefix(_)))?;
    let prompt = Maker { rng: rng.clone(), saved: None }.prompt(spec, sizes)?;
    let saved = super::fresh::saved(model, spec);
    let adapter =
        Adapter { spec: spec.clone(), parts: vec![], saved, prompt: Some(Arc::new(prompt)), kept: Kept::new() };
    if let AdapterSpec::Prompt(PromptSpec { init: PromptInit::SampleVocab, tokens, .. }) = spec {
        let mut rng = rng.split("sample_vocab");
        let ids: Vec<u32> = (0..*tokens).map(|_| rng.below(model.arch.vocab() as u64) as u32).collect();
        adapter.begin_with(model, &ids)?;
    }
    Ok(adapter)
}

/// Reads a folder of one of the three methods.
pub(super) fn load(model: &Model, folder: &Path, config: &PeftConfig) -> std::result::Result<Adapter, LoadError> {
    let mut spec = spec(config)?;
    let prefix = matches!(spec, AdapterSpec::Prefix(_));
    let sizes = Sizes::of(model, prefix)?;
    let checkpoint = Checkpoint::open(folder.join(WEIGHTS))?;
    let (mut used, mut saved) = (HashSet::from([EMBEDDINGS.to_owned()]), vec![]);
    for (tensor, param) in whole(model, |name| format!("{BESIDE}{name}")) {
        if checkpoint.contains(&tensor) {
            put_whole(&checkpoint, &tensor, &param)?;
            used.insert(tensor);
            saved.push(param);
        }
    }
    if let Some(other) = checkpoint.names().find(|name| !used.contains(*name)) {
        return Err(LoadError::Adapter(format!("{}: nothing here takes {other}", folder.display())));
    }
    spec.save_mut().extend(saved.iter().filter_map(|param| Pattern::parse(param.path()).ok()));
    let encoder = folder.join(ENCODER);
    let prompt = if encoder.is_file() {
        let saved = Checkpoint::open(encoder)?;
        Maker { rng: Rng::new(0), saved: Some(&saved) }.prompt(&spec, sizes)?
    } else {
        let view = checkpoint.get(EMBEDDINGS)?;
        let width = if prefix { 2 * sizes.layers * sizes.keys() } else { sizes.dim };
        if view.shape.len() != 2 || view.shape[1] != width {
            return Err(LoadError::Adapter(format!(
                "{EMBEDDINGS}: expected [tokens, {width}], found {:?}; is it another model's adapter?",
                view.shape
            )));
        }
        let (count, values) = (view.shape[0], view.to_f32()?);
        let embedding = param("prompt.embedding.weight".into(), values, &view.shape)?;
        Prompt { count, prefix, sizes, embedding, encoder: None }
    };
    Ok(Adapter { spec, parts: vec![], saved, prompt: Some(Arc::new(prompt)), kept: Kept::new() })
}

fn spec(config: &PeftConfig) -> std::result::Result<AdapterSpec, LoadError> {
    let number = |key: &str| config.number(key).map(|x| x as usize);
    let tokens = number("num_virtual_tokens").unwrap_or(TOKENS);
    if number("num_transformer_submodules").is_some_and(|parts| parts != 1) {
        return Err(LoadError::Adapter(
            "num_transformer_submodules: expected 1, as of models with one stack of layers".into(),
        ));
    }
    let hidden = number("encoder_hidden_size");
    Ok(match config.method.as_str() {
        "PREFIX_TUNING" => {
            let projection = config.on("prefix_projection");
            AdapterSpec::Prefix(PrefixSpec { tokens, projection, hidden, save: vec![] })
        }
        "P_TUNING" => {
            let lstm = config.text("encoder_reparameterization_type") == Some("LSTM");
            let encoder = if lstm { Network::Lstm } else { Network::Mlp };
            AdapterSpec::PTuning(PTuningSpec {
                tokens,
                encoder,
                hidden,
                layers: number("encoder_num_layers").unwrap_or(2),
                save: vec![],
            })
        }
        _ => AdapterSpec::Prompt(PromptSpec { tokens, ..PromptSpec::default() }),
    })
}

/// Writes the prompt with what is saved beside it, and what makes it if that is trained.
pub(super) fn save(prompt: &Prompt, mut tensors: Tensors, folder: &Path) -> std::result::Result<(), LoadError> {
    let vectors = phyla_ops::no_grad(|| prompt.vectors())?;
    let values: Vec<f32> = vectors.data().flatten_all()?.to_vec1()?;
    tensors.insert(EMBEDDINGS.into(), (vectors.dims().to_vec(), values));
    write_all(&folder.join(WEIGHTS), &tensors)?;
    if prompt.encoder.is_some() {
        let mut tensors = vec![];
        for param in prompt.params() {
            let name = param.path().trim_start_matches("prompt.").to_string();
            tensors.push((name, param.dims(), param.numbers()?));
        }
        write(&folder.join(ENCODER), tensors.iter().map(|(name, shape, values)| (name.as_str(), *shape, &values[..])))?;
    }
    Ok(())
}

/// What `adapter_config.json` says of a prompt.
pub(super) fn config(adapter: &Adapter, prompt: &Prompt) -> Map<String, Value> {
    let sizes = prompt.sizes;
    let mut fields = Map::from_iter([
        ("num_virtual_tokens".to_string(), json!(prompt.count)),
        ("num_transformer_submodules".into(), json!(1)),
        ("num_layers".into(), json!(sizes.layers)),
        ("num_attention_heads".into(), json!(sizes.kv_heads)),
        ("token_dim".into(), json!(if prompt.prefix { sizes.keys() } else { sizes.dim })),
    ]);
    let mut set = |key: &str, value: Value| fields.insert(key.into(), value);
    match &adapter.spec {
        AdapterSpec::Prefix(spec) => {
            set("peft_type", json!("PREFIX_TUNING"));
            set("prefix_projection", json!(spec.projection));
            set("encoder_hidden_size", json!(spec.hidden.unwrap_or(sizes.keys())));
        }
        AdapterSpec::PTuning(spec) => {
            set("peft_type", json!("P_TUNING"));
            set("encoder_reparameterization_type", json!(if spec.encoder == Network::Lstm { "LSTM" } else { "MLP" }));
            set("encoder_hidden_size", json!(spec.hidden.unwrap_or(sizes.dim)));
            set("encoder_num_layers", json!(spec.layers));
            set("encoder_dropout", json!(0.));
        }
        _ => {
            set("peft_type", json!("PROMPT_TUNING"));
            set("prompt_tuning_init", json!("RANDOM"));
        }
    }
    fields
}

impl Adapter {
    /// Lets a prompt begin with the vectors of these tokens, over and over where they are fewer.
    ///
    /// # Errors
    /// An adapter that is no prompt, and no tokens.
    pub fn begin_with(&self, model: &Model, ids: &[u32]) -> std::result::Result<(), LoadError> {
        let (Some(prompt), AdapterSpec::Prompt(_)) = (&self.prompt, &self.spec) else {
            return Err(LoadError::Adapter(format!("{} does not begin with a text", self.spec.name())));
        };
        if ids.is_empty() {
            return Err(LoadError::Adapter("a prompt is to begin with a text, and that has no tokens".into()));
        }
        let ids: Vec<u32> = ids.iter().copied().cycle().take(prompt.count).collect();
        let rows = phyla_ops::no_grad(|| phyla_ops::embedding(model.token_table(), &ids, &[ids.len()], None))?;
        prompt.embedding.set_weight(phyla_ops::Weight::Dense(rows.data().clone()))?;
        Ok(())
    }

    /// Whether it stands before every text, where nothing else can at the same time.
    pub fn is_prompt(&self) -> bool {
        self.prompt.is_some()
    }
}
