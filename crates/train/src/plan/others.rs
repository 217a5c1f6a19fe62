//! The other models that a run keeps beside the one that learns (its teacher, a reference, judges of roll-outs), and what it
//! takes to write a roll-out.

use std::rc::Rc;

use phyla_kernels::page::Kept;
use phyla_models::checkpoint::Checkpoint;
use phyla_models::{Model, NewHead, Quantize, hollow, read_config};
use phyla_ops::Param;
use serde_json::Map;

use super::known::{Known, Stored};
use super::rows::Rows;
use super::serve::{CHUNK, cache};
use super::tape::{Kind, Tape};
use super::walk::Walk;
use super::{Item, item};
use crate::TrainError;
use crate::recipe::{Distill, Dtype, Play, Recipe, RewardFunction};
use crate::setup::resolve;

/// Bytes of another model's weights, and of a pass of it that keeps nothing.
struct Other {
    weights: usize,
    pass: usize,
}

impl Other {
    /// The model of a name, under a head if one is given, and kept as `quantize` says, or else in bf16 if the run is.
    fn of(
        name: &str,
        head: Option<&NewHead>,
        quantize: Option<&str>,
        low: bool,
        rows: &Rows,
    ) -> Result<Self, TrainError> {
        let folder = resolve(name)?;
        let (config, checkpoint) = (read_config(&folder)?.0, Checkpoint::open(&folder)?);
        let (model, _) = hollow(&config, Some(&checkpoint), head)?;
        let quantize = quantize.map(str::parse::<Quantize>).transpose().map_err(TrainError::Settings)?;
        let stored = |param: &Param| Stored::frozen(&model, quantize, low, param);
        let weights = model.params().iter().map(|param| stored(param).bytes(param.count())).sum();
        let tape = Tape::default();
        let walk = Walk { known: Rc::new(Known::new(&model, stored, low, tape.clone())), tape };
        walk.look(&model.arch, rows);
        Ok(Self { weights, pass: walk.tape.peak().0.total() })
    }
}

/// The teacher of a recipe; `logits` are the bytes of those that the student holds at once, of which there are then two more.
pub fn teacher(recipe: &Recipe, distill: &Distill, rows: &Rows, logits: usize) -> Result<Item, TrainError> {
    let head = recipe.objective.task().map(|task| NewHead { task, config: Map::new(), seed: None });
    let low = recipe.dtype == Dtype::Bf16;
    let other = Other::of(&distill.teacher, head.as_ref(), distill.quantize.as_deref(), low, rows)?;
    let bytes = other.weights + other.pass.max(2 * logits);
    Ok(item("teacher", bytes, format!("{}, and what it says of a batch", distill.teacher)))
}

/// What stands beside a policy: the weights of its reference, of which `own` is what the policy's own take, unless an adapter
/// that learns alone can be taken away; and those of its judges.
pub fn beside_policy(recipe: &Recipe, play: &Play, own: Option<usize>, rows: &Rows) -> Result<Vec<Item>, TrainError> {
    let mut items = vec![];
    let low = recipe.dtype == Dtype::Bf16;
    match (play.reference, own) {
        (Some(Some(path)), _) => {
            let name = path.display().to_string();
            let weights = Other::of(&name, None, None, low, rows)?.weights;
            items.push(item("reference", weights, name));
        }
        (Some(None), Some(bytes)) => items.push(item("reference", bytes, "the model that the run begins with")),
        _ => {}
    }
    let judges = play.rewards.iter().filter_map(|reward| match reward {
        RewardFunction::Model { path, .. } => Some(path.display().to_string()),
        _ => None,
    });
    for name in judges {
        let weights = Other::of(&name, None, None, low, rows)?.weights;
        items.push(item("reward model", weights, name));
    }
    Ok(items)
}

/// What is there while completions are written: keys and values of all of a roll-out, a prompt's pass, and logits.
pub fn writing(recipe: &Recipe, play: &Play, model: &Model, known: Known, tape: Tape, rows: &Rows) -> Item {
    let examples = recipe.train.batch * recipe.train.accumulate;
    let sequences = play.completions(examples);
    let kept = if recipe.dtype == Dtype::Bf16 { Kept::Bf16 } else { Kept::F32 };
    let walk = Walk { known: Rc::new(known), tape };
    walk.look(&model.arch, &Rows { batch: 1, length: rows.length.min(CHUNK), source: None, targets: 0 });
    drop(walk.tape.hold_as(Kind::Logits, 2 * sequences * model.arch.vocab()));
    let bytes = sequences * cache(&model.arch, rows.length, kept) + walk.tape.peak().0.total();
    item("roll-out", bytes, format!("{sequences} completions are written"))
}
