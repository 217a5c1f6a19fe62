//! What must be the same for a run to go on: the recipe's tables that its checkpoints depend on, and the text.

use std::path::Path;

use crate::TrainError;
use crate::recipe::Recipe;
use crate::rundir::RunDir;
use crate::state::State;

/// Keys that a checkpoint's weights, optimiser state or place in the data depend on. The paths of the data
/// are not among them: files may move, and their content is compared in [`check_text`].
const FIXED: &[&str] = &[
    "model",
    "seed",
    "tokenizer",
    "data.kind",
    "data.bytes",
    "data.seed",
    "data.outcome",
    "data.field",
    "data.document_separator",
    "data.validation_fraction",
    "data.packing",
    "data.max_len",
    "data.task",
    "data.items",
    "data.language",
    "data.direction",
    "data.format",
    "data.columns",
    "method",
    "objective",
    "optim.kind",
    "train.batch",
    "train.batch_tokens",
    "train.group_by_length",
];

/// Keys among them that may change all the same: paths, since weights and tokenizer come from the checkpoint, wherever
/// the first ones came from; and what says nothing of the examples.
const MOVABLE: &[&str] = &[
    "model",
    "tokenizer.path",
    "objective.label_smoothing",
    "objective.rewards",
    "objective.reward_weights",
    "objective.answers.n_best",
    "objective.answers.max_answer_len",
    "objective.answers.null_threshold",
];

/// Holds the recipe against the one that the run began with. What may differ comes back as sentences.
///
/// # Errors
/// [`TrainError::Changed`] when the checkpoint would not fit.
pub fn check_recipe(run: &RunDir, recipe: &Recipe) -> Result<Vec<String>, TrainError> {
    let path = run.recipe();
    let before = match Recipe::read(&path, &[]) {
        Ok(before) => before,
        Err(error) => {
            return Ok(vec![format!("whether the recipe has changed since the run began is unknown: {error}")]);
        }
    };
    let (fixed, free): (Vec<String>, Vec<String>) = (before.differences(recipe)?.into_iter()).partition(|difference| {
        let key = difference.split(": ").next().unwrap_or_default();
        let within =
            |fixed: &&str| key.strip_prefix(*fixed).is_some_and(|rest| rest.is_empty() || rest.starts_with('.'));
        FIXED.iter().any(within) && !MOVABLE.contains(&key)
    });
    if fixed.is_empty() {
        Ok(free.into_iter().map(|difference| format!("the recipe has changed: {difference}")).collect())
    } else {
        Err(TrainError::Changed { path: run.root().to_owned(), differences: fixed })
    }
}

/// Holds the text against the one that the checkpoint was trained on.
///
/// # Errors
/// [`TrainError::Resume`] when it is another one: the place in it would mean something else.
pub fn check_text(state: &State, checkpoint: &Path, digest: &str) -> Result<(), TrainError> {
    if state.text.is_empty() || state.text == digest {
        return Ok(());
    }
    Err(TrainError::Resume {
        path: checkpoint.to_owned(),
        reason: "the training text is not the one that the run began with; put that back, or begin a new run with \
                 another `output` and this checkpoint as its `model`"
            .into(),
    })
}
