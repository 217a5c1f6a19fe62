//! The teacher of a run: another model, which does not learn, and what is learned of it.

use std::path::Path;

use candle_core::Device;
use phyla_data::tokenizer::Tokenizer;
use phyla_models::{LoadOptions, Model, NewHead, load, read_config};
use serde_json::{Map, Value};

use crate::TrainError;
use crate::recipe::{Distill, Recipe};

/// A teacher, ready to be asked.
#[derive(Debug)]
pub struct Teacher {
    /// The model.
    pub model: Model,
    /// What is learned of it.
    pub settings: Distill,
}

impl Teacher {
    /// Loads the teacher in `folder` for a student, its tokenizer and what its new head says of itself.
    ///
    /// # Errors
    /// Another vocabulary, other labels, no such head, hidden states of another size where those are compared.
    pub fn load(
        recipe: &Recipe,
        settings: &Distill,
        folder: &Path,
        (student, tokenizer, head): (&Model, &Tokenizer, Option<&Map<String, Value>>),
        device: &Device,
    ) -> Result<Self, TrainError> {
        same_vocabulary(&settings.teacher, &Tokenizer::load(folder)?, tokenizer)?;
        let config = read_config(folder)?.0;
        if let Some(head) = head {
            same_labels(&settings.teacher, &config, head)?;
        }
        let head =
            head.zip(recipe.objective.task()).map(|(head, task)| NewHead { task, config: head.clone(), seed: None });
        let quantize = settings.quantize.as_deref().map(str::parse).transpose().map_err(TrainError::Settings)?;
        let dtype = Some(recipe.frozen_dtype());
        let options = LoadOptions { device: device.clone(), dtype, head, quantize, ..LoadOptions::default() };
        let (model, _) = load(folder, &options)?;
        for param in model.params() {
            param.set_trainable(false)?;
        }
        let sizes = [model.arch.hidden(), student.arch.hidden()];
        if settings.hidden_weight > 0. && sizes[0] != sizes[1] {
            return Err(TrainError::Settings(format!(
                "`distill.hidden_weight` compares hidden states, and those of the teacher {} have {} numbers, the student's \
                 {}: leave it out, or take a student of that size",
                settings.teacher, sizes[0], sizes[1]
            )));
        }
        Ok(Self { model, settings: settings.clone() })
    }
}

/// A distribution over other tokens teaches nothing. Which tokens are special does not matter here.
fn same_vocabulary(name: &str, theirs: &Tokenizer, ours: &Tokenizer) -> Result<(), TrainError> {
    let sorted = |tokenizer: &Tokenizer| {
        let mut all = tokenizer.vocabulary();
        all.sort_by_key(|(_, id)| *id);
        all
    };
    let (ours, theirs) = (sorted(ours), sorted(theirs));
    let Some(at) = (0..ours.len().max(theirs.len())).find(|&at| ours.get(at) != theirs.get(at)) else { return Ok(()) };
    let show = |side: &[(String, u32)]| match side.get(at) {
        Some((token, id)) => format!("{token:?} as {id}"),
        None => "nothing more".to_owned(),
    };
    Err(TrainError::Settings(format!(
        "`distill.teacher`: {name} has another vocabulary ({} tokens) than the student ({}): the first difference is {} \
         against {}; a student needs its teacher's tokenizer (`tokenizer = \"{name}\"` for one from scratch)",
        theirs.len(),
        ours.len(),
        show(&theirs),
        show(&ours)
    )))
}

/// Classes of the same names have the same numbers. Names that only count say nothing.
fn same_labels(name: &str, config: &Map<String, Value>, head: &Map<String, Value>) -> Result<(), TrainError> {
    let (Some(Value::Object(ours)), Some(Value::Object(theirs))) = (head.get("id2label"), config.get("id2label"))
    else {
        return Ok(());
    };
    let counts = |labels: &Map<String, Value>| labels.iter().all(|(id, label)| label == &format!("LABEL_{id}"));
    if counts(theirs) || counts(ours) || ours == theirs {
        return Ok(());
    }
    let list = |labels: &Map<String, Value>| {
        labels.iter().map(|(id, label)| format!("{id}: {label}")).collect::<Vec<_>>().join(", ")
    };
    Err(TrainError::Settings(format!(
        "`distill.teacher`: {name} has the classes {}; the data has {}: give `objective.labels` in the teacher's order, or \
         take a teacher of these classes",
        list(theirs),
        list(ours)
    )))
}
