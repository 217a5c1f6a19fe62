//! What a model takes that answers: weights as they are loaded, keys and values of all that is read and written at once, and
//! the pass that reads a prompt.

use std::path::Path;
use std::rc::Rc;

use candle_core::DType;
use phyla_kernels::page::{Kept, POSITIONS};
use phyla_models::checkpoint::{Checkpoint, Dtype};
use phyla_models::{Arch, Found, Quantize, Slot, Towers, hollow, quantised_bytes, read_config};
use phyla_nn::SublayerSpec;

use super::known::{Known, Stored};
use super::rows::Rows;
use super::tape::{Kind, Tape};
use super::walk::Walk;
use super::{PROGRAM, Plan, item};
use crate::TrainError;

/// How a model is to answer.
#[derive(Clone, Debug)]
pub struct Serving {
    /// The type of matrices; as stored without it.
    pub dtype: Option<DType>,
    /// What they are quantised to on loading.
    pub quantize: Option<Quantize>,
    /// Positions of a sequence, prompt and answer together; what the model was made for unless given.
    pub context: Option<usize>,
    /// Sequences at once.
    pub sequences: usize,
    /// As what keys and values are kept; as exactly as the weights are multiplied unless given.
    pub cache: Option<Kept>,
}

/// Tokens of a prompt that are read at once.
pub(super) const CHUNK: usize = 512;
/// Positions beyond a window whose pages are kept: what one pass reads, and what may be taken back.
const BEYOND: usize = CHUNK + 3 * POSITIONS;

/// What answering takes with the model of a folder, a configuration or a GGUF file.
///
/// # Errors
/// A configuration or a checkpoint that cannot be read.
pub fn serve(path: &Path, serving: &Serving) -> Result<Plan, TrainError> {
    let (config, _) = read_config(path).map_err(phyla_models::LoadError::from)?;
    let bare = path.extension().is_some_and(|extension| extension == "json");
    let checkpoint = (!bare).then(|| Checkpoint::open(path)).transpose()?;
    let (model, survey) = hollow(&config, checkpoint.as_ref(), None)?;
    let found = |path: &str| survey.slots.iter().find(|slot| slot.path == path);
    let stored = |param: &phyla_ops::Param| {
        let blocks = serving
            .quantize
            .and_then(|how| quantised_bytes(how, &model.arch, model.family, param.path(), param.dims()));
        match blocks {
            Some(bytes) => Stored::Blocks(bytes),
            None => loaded(found(param.path()), serving.dtype, param),
        }
    };
    let weights: usize = model.params().iter().map(|param| stored(param).bytes(param.count())).sum();
    let low = model.params().iter().any(|param| stored(param) != Stored::F32 { copy: false });
    let context = serving.context.unwrap_or(model.arch.context);
    let kept = serving.cache.unwrap_or(if low { Kept::Bf16 } else { Kept::F32 });
    let (sequences, read) = (serving.sequences.max(1), context.min(CHUNK));
    let tape = Tape::default();
    let walk = Walk { known: Rc::new(Known::new(&model, stored, low, tape.clone())), tape: tape.clone() };
    let source = model.arch.source().map(|_| context);
    walk.look(&model.arch, &Rows { batch: 1, length: read, source, targets: 0 });
    if model.arch.lm_head().is_some() {
        // A row of logits for each sequence, and one to choose from.
        drop(tape.hold_as(Kind::Logits, 2 * sequences * model.arch.vocab()));
    }
    let (peak, scratch) = tape.peak();
    let items = vec![
        item("program", PROGRAM, "code, threads, tokenizer"),
        item("weights", weights, how(serving)),
        item(
            "cache",
            sequences * cache(&model.arch, context, kept),
            format!("{sequences} sequences of {context} positions in {}", kept.name()),
        ),
        item("activations", peak.activations, format!("{read} tokens of a prompt at once")),
        item("logits", peak.logits, format!("{} classes", model.arch.vocab())),
        item("scratch", scratch, "factors packed for products"),
    ];
    let others = match (&checkpoint, serving.quantize, serving.dtype) {
        (Some(checkpoint), Some(_), _) | (Some(checkpoint), _, Some(_)) => {
            let bytes = PROGRAM + checkpoint.total_bytes() as usize + weights;
            vec![item("loading", bytes, "the files and what is made of them, side by side")]
        }
        _ => vec![],
    };
    Ok(Plan::new(items, others, [model.count(), 0], None))
}

/// A parameter as loading leaves it.
fn loaded(slot: Option<&Slot>, dtype: Option<DType>, param: &phyla_ops::Param) -> Stored {
    let full = Stored::F32 { copy: false };
    if param.dims().len() < 2 {
        return full;
    }
    match (dtype, slot.map(|slot| &slot.found)) {
        (Some(DType::F32), _) => full,
        (Some(_), _) => Stored::Half,
        (None, Some(Found::Stored(Dtype::BF16 | Dtype::F16))) => Stored::Half,
        (None, Some(Found::Stored(Dtype::Quant(kind)))) => Stored::Blocks(param.count() / kind.block() * kind.bytes()),
        _ => full,
    }
}

fn how(serving: &Serving) -> String {
    match (serving.quantize, serving.dtype) {
        (Some(kind), _) => format!("in {kind}"),
        (None, Some(dtype)) => format!("in {}", dtype.as_str()),
        (None, None) => "as they are stored".into(),
    }
}

/// Bytes of a sequence's keys and values; of an encoder-decoder those of its source, too, in f32.
pub(super) fn cache(arch: &Arch, context: usize, kept: Kept) -> usize {
    if let Towers::Encoder(_) = arch.towers {
        return 0;
    }
    let of = |sublayer: &SublayerSpec| {
        let held = match sublayer {
            SublayerSpec::Attention(attention) => attention.window.map_or(context, |w| context.min(w + BEYOND)),
            _ => context,
        };
        let crossed = match sublayer {
            SublayerSpec::Cross(cross) => 8 * cross.kv_heads * cross.head_dim * context,
            _ => 0,
        };
        kept.bytes(held.next_multiple_of(POSITIONS) * sublayer.cache_numbers()) + crossed
    };
    arch.main().layers.iter().flat_map(|layer| &layer.sublayers).map(of).sum()
}
