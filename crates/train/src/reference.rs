//! Log-probabilities of completions under the reference of an objective: computed once, before the first step, and kept
//! beside the run, so that no second model stays in memory; or in each step, by the model without its adapter.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use phyla_data::batch::{Batch, Labels};
use phyla_data::supervised::loader::Examples;
use phyla_data::supervised::preference::Preferences;
use phyla_models::Model;
use phyla_models::adapter::Adapter;
use phyla_models::checkpoint::atomic_write;
use phyla_models::lineage::hex;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::TrainError;
use crate::objective::preference::log_probs;
use crate::recipe::{Objective, Recipe, Reference};

/// What is kept.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct Kept {
    /// Which completions, and what their tokens count for.
    data: String,
    /// Which model.
    model: String,
    /// Of the rows of each part.
    log_probs: Vec<Vec<f32>>,
}

/// File of the run's folder of data.
const FILE: &str = "reference.json";

/// Gives all `parts` the log-probabilities of their completions, if the objective wants a reference.
///
/// Of a new run the reference is its own model, before the first step; `load` makes it anew where it is another one, or
/// where a resumed run has lost what it kept. What is kept counts as long as data and model are the same.
pub fn supply(
    recipe: &Recipe,
    folder: &Path,
    (model, resumed): (&Model, bool),
    parts: &[Arc<Preferences>],
    load: impl FnOnce() -> Result<Model, TrainError>,
    note: &mut dyn FnMut(&str),
) -> Result<(), TrainError> {
    let Some((Reference::Precompute, other)) = recipe.objective.reference() else { return Ok(()) };
    let path = folder.join(FILE);
    let kept: Option<Kept> = std::fs::read(&path).ok().and_then(|text| serde_json::from_slice(&text).ok());
    let data = digest_of_data(recipe, parts);
    // A resumed run's recipe is the one that it began with, so that its reference is too.
    let kept = kept.filter(|kept| kept.data == data && kept.log_probs.len() == parts.len());
    let kept = match kept {
        Some(kept) if resumed => kept,
        kept => {
            let loaded = (resumed || other.is_some()).then(load).transpose()?;
            let reference = loaded.as_ref().unwrap_or(model);
            let digest = digest_of_model(reference)?;
            match kept.filter(|kept| kept.model == digest) {
                Some(kept) => kept,
                None => {
                    let log_probs = parts.iter().map(|part| ask(recipe, reference, part, note));
                    let kept = Kept { data, model: digest, log_probs: log_probs.collect::<Result<_, _>>()? };
                    let text = serde_json::to_vec(&kept).map_err(|e| TrainError::Settings(format!("{FILE}: {e}")))?;
                    std::fs::create_dir_all(folder)
                        .map_err(|source| TrainError::Write { path: folder.to_owned(), source })?;
                    atomic_write(&path, &text)?;
                    kept
                }
            }
        }
    };
    Ok(parts.iter().zip(kept.log_probs).try_for_each(|(part, known)| part.set_reference(known))?)
}

/// What a model answers without its adapter, which comes back afterwards, whatever happens.
pub(crate) fn without<T>(model: &Model, adapter: &Arc<Adapter>, ask: impl FnOnce() -> T) -> T {
    struct Back<'a>(&'a Model, &'a Arc<Adapter>);
    impl Drop for Back<'_> {
        fn drop(&mut self) {
            self.0.use_adapters(std::slice::from_ref(self.1));
        }
    }
    let _back = Back(model, adapter);
    model.use_adapters(&[]);
    ask()
}

/// The adapter without which the model is its own reference, where the objective wants that.
///
/// # Errors
/// An adapter beside which parameters of the model itself learn: without it, the model is not what it was.
pub(crate) fn switched_off(
    objective: &Objective,
    adapter: Option<&Arc<Adapter>>,
) -> Result<Option<Arc<Adapter>>, TrainError> {
    match (objective.reference(), adapter) {
        (Some((Reference::AdapterOff, _)), Some(adapter)) if adapter.saved().is_empty() => Ok(Some(adapter.clone())),
        (Some((Reference::AdapterOff, _)), _) => Err(TrainError::Settings(
            "`objective.reference` \"adapter_off\" needs an adapter beside which nothing of the model itself learns; leave \
             `method.save` out, or take precompute"
                .into(),
        )),
        _ => Ok(None),
    }
}

/// A batch of completions with what the model says of them without this adapter.
pub(crate) fn asked(
    objective: &Objective,
    model: &Model,
    adapter: &Arc<Adapter>,
    mut batch: Batch,
) -> Result<Batch, TrainError> {
    without(model, adapter, || {
        let found = |batch: &Batch| -> Result<Option<Vec<f32>>, TrainError> {
            Ok(Some(log_probs(objective, model, batch)?.into_iter().map(|found| found as f32).collect()))
        };
        let known = found(&batch)?;
        match &mut batch.labels {
            Labels::Pairs(pairs) => pairs.reference = known,
            Labels::Judged(judged) => {
                judged.reference = known;
                if let Some(other) = &mut judged.mismatched {
                    let known = found(other)?;
                    if let Labels::Judged(labels) = &mut other.labels {
                        labels.reference = known;
                    }
                }
            }
            _ => return Err(TrainError::Settings("a reference is for completions".into())),
        }
        Ok(batch)
    })
}

/// The log-probabilities of all rows of a part.
fn ask(recipe: &Recipe, model: &Model, part: &Preferences, note: &mut dyn FnMut(&str)) -> Result<Vec<f32>, TrainError> {
    /// Between two words on how far it is.
    const PAUSE: Duration = Duration::from_secs(10);
    let mut examples: Vec<usize> = (0..part.count()).collect();
    // Like lengths together, the longest first: what does not fit into memory shows at once.
    examples.sort_by_key(|&at| std::cmp::Reverse(part.length(at)));
    let (mut answers, mut told) = (vec![0f32; part.row_count()], Instant::now());
    for (batch, examples) in examples.chunks(recipe.train.batch).enumerate() {
        let rows: Vec<usize> =
            [0, 1].into_iter().flat_map(|second| examples.iter().map(move |at| 2 * at + second)).collect();
        let found = log_probs(&recipe.objective, model, &part.rows_alone(&rows))?;
        for (&row, found) in rows.iter().zip(found) {
            if !found.is_finite() {
                return Err(TrainError::Settings(format!(
                    "the reference gives a completion the log-probability {found}"
                )));
            }
            answers[row] = found as f32;
        }
        if told.elapsed() > PAUSE {
            note(&format!("reference: {} of {} examples", batch * recipe.train.batch + examples.len(), part.count()));
            told = Instant::now();
        }
    }
    note(&format!("reference: log-probabilities of {} completions", part.row_count()));
    Ok(answers)
}

fn digest_of_data(recipe: &Recipe, parts: &[Arc<Preferences>]) -> String {
    let parts: Vec<String> = parts.iter().map(|part| format!("{:016x}", part.digest())).collect();
    format!("{}-{:?}", parts.join("-"), recipe.objective.ld_alpha())
}

fn digest_of_model(model: &Model) -> Result<String, TrainError> {
    /// Numbers that become bytes at a time.
    const PIECE: usize = 4096;
    let (mut hash, mut bytes) = (Sha256::new(), Vec::with_capacity(4 * PIECE));
    for param in model.params() {
        hash.update(param.path());
        let data = param.weight().to_f32()?.to_device(&candle_core::Device::Cpu)?.contiguous()?;
        for piece in phyla_ops::cpu::view::<f32>(&data)?.chunks(PIECE) {
            bytes.clear();
            bytes.extend(piece.iter().flat_map(|number| number.to_le_bytes()));
            hash.update(&bytes);
        }
    }
    Ok(hex(&hash.finalize()))
}
