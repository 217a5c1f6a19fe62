//! How much memory a recipe, or a model that answers, will take, before anything is loaded: sizes of weights by how they are
//! kept, and of activations by a dry run of one step on sizes alone. The formulas are in `docs/handbook/memory.md`.

mod blocks;
mod files;
mod known;
mod operations;
mod others;
mod rows;
mod serve;
mod step;
mod tape;
mod walk;

use std::collections::HashSet;
use std::path::Path;
use std::rc::Rc;

use phyla_kernels::memory::total;
use phyla_models::checkpoint::Checkpoint;
use phyla_models::{Dropouts, Model, NewHead, Quantize, hollow};
use phyla_ops::Param;
use serde::Serialize;
use serde_json::{Map, Value, json};

use crate::TrainError;
use crate::adapt::adapt_sizes;
use crate::optimizer;
use crate::recipe::{self, Dtype, Method, Objective, Recipe};
use crate::setup::{Start, start};

use self::files::Files;
use self::known::{Known, Stored};
use self::tape::Tape;
use self::walk::Walk;

pub use self::rows::{Known as KnownRows, Rows};
pub use self::serve::{Serving, serve};

/// What the program takes before it has a model: its code, tables of the tokenizer, threads. Measured.
const PROGRAM: usize = 24 << 20;

/// One summand.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Item {
    /// What it is.
    pub name: &'static str,
    /// Bytes of it.
    pub bytes: usize,
    /// More about it, for people.
    pub note: String,
}

/// What all comes to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Plan {
    /// What is there at once at the worst moment.
    pub items: Vec<Item>,
    /// Bytes at that moment: the items added up, or another moment's if that is worse.
    pub peak: usize,
    /// That other moment.
    pub worse: Option<Item>,
    /// The largest batch.
    pub rows: Option<Rows>,
    /// Parameters of the model, and of what learns.
    pub parameters: [usize; 2],
    /// Bytes of memory of this machine.
    pub machine: Option<usize>,
    /// Sentences that a user should see.
    pub notes: Vec<String>,
}

impl Plan {
    fn new(items: Vec<Item>, others: Vec<Item>, parameters: [usize; 2], rows: Option<Rows>) -> Self {
        let items: Vec<Item> = items.into_iter().filter(|item| item.bytes > 0).collect();
        let sum = items.iter().map(|item| item.bytes).sum();
        let worse = others.into_iter().filter(|item| item.bytes > sum).max_by_key(|item| item.bytes);
        let peak = worse.as_ref().map_or(sum, |item| item.bytes);
        Self { items, peak, worse, rows, parameters, machine: total(), notes: vec![] }
    }
}

fn item(name: &'static str, bytes: usize, note: impl Into<String>) -> Item {
    Item { name, bytes, note: note.into() }
}

/// What a run of this recipe takes; `known` is what its user knows of the data and the recipe does not say.
///
/// # Errors
/// A model that cannot be found, a configuration that describes none, and an adapter that does not fit it.
pub fn plan(recipe: &Recipe, known: KnownRows) -> Result<Plan, TrainError> {
    let (model, files) = model(recipe)?;
    // The adapter is made as in a run; copies for products would be copies of nothing.
    let plain = Recipe { dtype: Dtype::F32, ..recipe.clone() };
    let adapter = adapt_sizes(&plain, &model)?;
    let quantize = recipe.quantize.as_deref().map(str::parse::<Quantize>).transpose().map_err(TrainError::Settings)?;
    let stored = |param: &Param| stored(recipe, quantize, &model, param);
    let beside = adapter.iter().flat_map(|adapter| adapter.params());
    let all: Vec<_> = model.params().iter().chain(beside.clone()).collect();
    let learned: Vec<_> = all.iter().filter(|param| param.trainable()).collect();
    let count = |params: &[&&std::sync::Arc<Param>]| params.iter().map(|param| param.count()).sum::<usize>();
    let weights: usize = model.params().iter().map(|param| stored(param).bytes(param.count())).sum();
    let copies = |param: &Param| if stored(param) == (Stored::F32 { copy: true }) { 2 * param.count() } else { 0 };
    let low = recipe.dtype == Dtype::Bf16;
    let copied = |param: &Param| if low && param.dims().len() >= 2 { 2 * param.count() } else { 0 };
    let followed = match recipe.method {
        // Sensitivity and uncertainty of each number.
        Method::AdaLora(_) => 8 * beside.clone().map(|param| param.count()).sum::<usize>(),
        _ => 0,
    };
    let mut seen = HashSet::new();
    let adapters = beside.map(|param| files::numbers(param, &mut seen) + copied(param)).sum::<usize>() + followed;
    let low_copies: usize = model.params().iter().map(|param| copies(param)).sum();
    let gradients = 4 * count(&learned);
    let states: usize = learned.iter().map(|param| optimizer::state_bytes(&recipe.optim.rule, param)).sum();

    let rows = Rows::of(recipe, &model.arch, known);
    let walk = |tape: Tape| Walk { known: Rc::new(Known::new(&model, stored, low, tape.clone())), tape };
    let (training, looking) = (walk(Tape::default()), walk(Tape::default()));
    training.train(&model.arch, &recipe.objective, &rows, recipe.train.activation_checkpointing);
    let (peak, scratch) = training.tape.peak();
    let mut more = vec![];
    if let Some(distill) = &recipe.distill {
        more.push(others::teacher(recipe, distill, &rows, peak.logits)?);
    }
    let play = recipe.objective.play();
    if let Some(play) = &play {
        let alone = adapter.as_ref().is_some_and(|adapter| adapter.saved().is_empty());
        more.extend(others::beside_policy(recipe, play, (!alone).then_some(weights + low_copies), &rows)?);
    }
    let beside: usize = more.iter().map(|item| item.bytes).sum();
    let held = files.as_ref().map_or(0, |files| files.held(&model, stored));
    let fixed = PROGRAM + weights + held + low_copies + adapters + gradients + states + scratch + beside;
    let mut others = vec![];
    if let Some(play) = &play {
        let tape = Tape::default();
        let known = Known::new(&model, stored, low, tape.clone());
        let written = others::writing(recipe, play, &model, known, tape, &rows);
        others.push(Item { bytes: fixed + written.bytes, ..written });
    }
    if recipe.data.has_validation() && play.is_none() {
        looking.examine(&model.arch, &recipe.objective, &rows);
        others.push(item("validation", fixed + looking.tape.peak().0.total(), "held-out data are looked at"));
    }
    if let Some(files) = &files {
        let own: usize = model.params().iter().map(|param| files.made(param, stored(param))).sum();
        others.push(item("loading", PROGRAM + files.bytes + own, "the files and what is made of them, side by side"));
    }
    let ways = if recipe.train.activation_checkpointing { ", layers computed again" } else { "" };
    let mut items = vec![
        item("program", PROGRAM, "code, threads, tokenizer"),
        item("weights", weights, kept_as(recipe)),
        item("files", held, "read on the way, let go of when memory is short"),
        item("copies in bf16", low_copies, "for products"),
        item("adapter", adapters, recipe.method.name()),
        item("gradients", gradients, "f32, of what learns"),
        item("optimiser", states, optimizer::describe(&recipe.optim.rule)),
        item("activations", peak.activations, format!("{} rows of {} tokens{ways}", rows.batch, rows.length)),
        item("logits", peak.logits, format!("{} classes, a piece at a time", model.arch.vocab())),
        item("scratch", scratch, "factors packed for products"),
    ];
    items.extend(more);
    let mut made = Plan::new(items, others, [model.count(), count(&learned)], Some(rows));
    if matches!(recipe.method.name(), "prompt" | "p_tuning" | "prefix") {
        made.notes.push("the tokens that the method puts before each row are not counted: add them to --length".into());
    }
    if !matches!(recipe.objective, Objective::Lm(_)) && known.length.is_none() {
        made.notes.push(format!(
            "rows are counted as long as the recipe lets them be, {} tokens; if the data are shorter, say so with --length",
            rows.length
        ));
    }
    Ok(made)
}

/// The model of a recipe without its numbers, and its files.
fn model(recipe: &Recipe) -> Result<(Model, Option<Files>), TrainError> {
    let start = start(recipe)?;
    let mut config = start.config()?;
    let head = recipe.objective.task().map(|task| NewHead { task, config: Map::new(), seed: None });
    let checkpoint = match &start {
        Start::Folder(path) => Some(Checkpoint::open(path)?),
        Start::Scratch(_) => None,
    };
    if !config.contains_key("vocab_size") {
        config.insert("vocab_size".into(), json!(vocabulary(recipe)?));
    }
    let (mut model, survey) = hollow(&config, checkpoint.as_ref(), head.as_ref())?;
    let files = checkpoint.map(|checkpoint| Files::new(checkpoint.total_bytes() as usize, &survey));
    let given = &recipe.train.dropout;
    let as_f32 = |p: Option<f64>| p.map(|p| p as f32);
    let [attention, residual, embedding] = [given.attention, given.residual, given.embedding].map(as_f32);
    model.arch.set_dropouts(Dropouts { attention, residual, embedding });
    Ok((model, files))
}

/// Tokens of a vocabulary that is still to be made.
fn vocabulary(recipe: &Recipe) -> Result<usize, TrainError> {
    let size = recipe.tokenizer.as_ref().and_then(|table| serde_json::to_value(table).ok()).and_then(|table| {
        let settings = table.as_object()?.values().next()?.clone();
        settings.get("vocab_size").and_then(Value::as_u64)
    });
    match (size, &recipe.tokenizer) {
        (Some(size), _) => Ok(size as usize),
        (None, Some(recipe::TokenizerTable::Path(path))) => {
            Ok(phyla_data::tokenizer::Tokenizer::load(Path::new(&path.path))?.vocab_size())
        }
        // The characters of a text: some dozens, or hundreds.
        (None, _) => Ok(CHARACTERS),
    }
}

const CHARACTERS: usize = 256;

/// How a parameter is kept in a run of the recipe.
fn stored(recipe: &Recipe, quantize: Option<Quantize>, model: &Model, param: &Param) -> Stored {
    let (low, adapts) = (recipe.dtype == Dtype::Bf16, recipe.method.adapter().is_some());
    if !adapts || param.trainable() {
        return Stored::F32 { copy: low && !adapts && param.dims().len() >= 2 };
    }
    Stored::frozen(model, quantize, low, param)
}

fn kept_as(recipe: &Recipe) -> String {
    match (&recipe.quantize, recipe.method.adapter().is_some(), recipe.dtype) {
        (Some(kind), ..) => format!("in {kind}"),
        (None, true, Dtype::Bf16) => "in bf16, frozen".into(),
        (None, true, Dtype::F32) => "in f32, frozen".into(),
        (None, false, _) => "masters in f32".into(),
    }
}
