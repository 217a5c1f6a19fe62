//! Held-out data: the loss, the metrics of the objective's field, and answers of an encoder-decoder word for word.

use phyla_data::batch::{BatchState, Batches};
use phyla_data::tasks::is_exact;
use phyla_generate::{GenerationConfig, Generator};
use phyla_metrics::bleu;

use crate::TrainError;
use crate::calibration::Bin;
use crate::judge::Scores;
use crate::objective::{Counts, Part};
use crate::recipe::{Objective, Recipe};
use crate::rollout::Measured;
use crate::setup::Setup;
use crate::supply::Shown;

/// What the validation data measured.
#[derive(Debug)]
pub struct Evaluation {
    /// Mean loss per target and label; none of roll-outs.
    pub loss: Option<f64>,
    /// Of roll-outs the mean reward.
    pub reward: Option<f64>,
    /// What else there is to tell.
    pub scores: Scores,
    /// Of a reward model, how often it is right by how sure it is.
    pub reliability: Vec<Bin>,
}

/// Measures the validation batches, always the same ones, or answers to the same held-out prompts; `None` without
/// validation data.
pub fn evaluate(recipe: &Recipe, setup: &mut Setup) -> Result<Option<Evaluation>, TrainError> {
    if let Some(rollouts) = &mut setup.rollouts {
        let most = recipe.train.eval_batches.map_or(usize::MAX, |batches| batches.saturating_mul(recipe.train.batch));
        let measured = rollouts.measure(&setup.model, most)?;
        return Ok(measured.map(|Measured { reward, scores }| Evaluation {
            loss: None,
            reward: Some(reward),
            scores,
            reliability: vec![],
        }));
    }
    // Taken out, since the model is asked of its batches meanwhile.
    let Some(mut validation) = setup.validation.take() else { return Ok(None) };
    let found = examine(recipe, setup, &mut *validation);
    setup.validation = Some(validation);
    found.map(Some)
}

fn examine(recipe: &Recipe, setup: &Setup, batches: &mut dyn Batches) -> Result<Evaluation, TrainError> {
    batches.restore(BatchState::default())?;
    let all = batches.batches_per_epoch();
    let count = recipe.train.eval_batches.map_or(all, |n| (n as u64).min(all));
    let (mut sums, mut counts) = ([0f64; 2], Counts::default());
    let mut tally = setup.judge.begin();
    for _ in 0..count {
        let batch = setup.referred(recipe, batches.next_batch()?)?;
        let (parts, answers) = recipe.objective.examine(&setup.model, &batch, setup.beside())?;
        for (part, sum) in parts {
            sums[part as usize] += sum;
        }
        counts = counts.sum(Counts::of(&batch));
        tally.add(&batch, &answers)?;
    }
    if counts.is_empty() {
        return Err(TrainError::Settings("the validation data has nothing to predict".into()));
    }
    let mean = |part: Part| sums[part as usize] / counts.count(part).max(1) as f64;
    let reliability = tally.reliability();
    let mut scores = tally.scores()?;
    let asked = recipe.train.eval_generate.min(setup.shown.len());
    if asked > 0 {
        let shown = &setup.shown[..asked];
        scores.extend(written(
            &shown.iter().map(|item| item.expected.as_str()).collect::<Vec<_>>(),
            &write(recipe, setup, shown)?,
        )?);
    }
    let loss = Some(mean(Part::Tokens) + mean(Part::Rows));
    Ok(Evaluation { loss, reward: None, scores, reliability })
}

/// What an encoder-decoder writes for some items, greedily.
pub fn write(recipe: &Recipe, setup: &Setup, items: &[Shown]) -> Result<Vec<String>, TrainError> {
    let Objective::Seq2Seq(seq2seq) = &recipe.objective else { return Ok(vec![]) };
    let source = |item: &Shown| item.batch.source.as_ref().map(|source| source.ids.clone()).unwrap_or_default();
    let prompts: Vec<Vec<u32>> = items.iter().map(source).collect();
    let start = setup.generation.get("decoder_start_token_id").and_then(serde_json::Value::as_u64);
    let config = GenerationConfig {
        max_new_tokens: Some(seq2seq.max_target_len),
        eos_token_id: setup.tokenizer.eos().or(setup.tokenizer.sep()).map(|eos| vec![eos]),
        decoder_start_token_id: start.and_then(|id| u32::try_from(id).ok()),
        ..GenerationConfig::default()
    };
    let generator = Generator::new(&setup.model, Some(&setup.tokenizer));
    let generation = generator.generate(&prompts, &config, recipe.seed, &mut |_| {})?;
    Ok(generation.sequences.into_iter().map(|sequence| sequence.text.unwrap_or_default()).collect())
}

/// Exact match, a fraction, and BLEU, of 100.
fn written(expected: &[&str], found: &[String]) -> Result<Scores, TrainError> {
    let exact = expected.iter().zip(found).filter(|(expected, found)| is_exact(found, expected)).count();
    let references: Vec<[&str; 1]> = expected.iter().map(|text| [*text]).collect();
    let bleu = bleu::corpus(found, &references, bleu::Options::default())?;
    let share = exact as f64 / expected.len().max(1) as f64;
    Ok(Scores::from_iter([("exact_match".into(), share), ("bleu".into(), bleu.score)]))
}
