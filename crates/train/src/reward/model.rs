//! Rewards by a model that was trained to give them: `[objective] kind = "reward"`, or any classifier of one number.

use std::path::Path;

use candle_core::Device;
use phyla_data::batch::Batch;
use phyla_data::supervised::dialogue::{Encoder, LossOn};
use phyla_data::supervised::records::{Asked, Content, Dialogue};
use phyla_data::tokenizer::Tokenizer;
use phyla_models::hub::Hub;
use phyla_models::{LoadOptions, Model, load};
use serde_json::{Value, json};

use super::Item;
use crate::TrainError;
use crate::recipe::{Objective, Recipe, Reward};

/// A reward model with its tokenizer, which need not be the policy's.
#[derive(Debug)]
pub struct Scorer {
    model: Model,
    tokenizer: Tokenizer,
    name: String,
    max_len: usize,
}

impl Scorer {
    /// Loads it.
    pub fn open(recipe: &Recipe, path: &Path, max_len: usize) -> Result<Self, TrainError> {
        let name = path.display().to_string();
        let folder = Hub::from_env().resolve(&name).map_err(|error| TrainError::Settings(error.to_string()))?;
        let dtype = Some(recipe.frozen_dtype());
        let (model, _) = load(&folder, &LoadOptions { device: Device::Cpu, dtype, ..LoadOptions::default() })?;
        let heads = model.arch.heads.iter().filter(|head| !head.is_lm()).count();
        if heads != 1 {
            return Err(TrainError::Settings(format!(
                "objective.rewards: {name} is no reward model: it is one for {}; train one by `[objective] kind = \
                 \"reward\"`",
                model.arch.task.describe()
            )));
        }
        let max_len = if model.arch.context_is_hard { max_len.min(model.arch.context) } else { max_len };
        Ok(Self { model, tokenizer: Tokenizer::load(&folder)?, name, max_len })
    }

    /// One reward for each completion, `batch` at a time, like lengths together.
    pub fn scores(&self, items: &[Item], batch: usize) -> Result<Vec<f64>, TrainError> {
        let rows = items.iter().map(|item| self.encode(item)).collect::<Result<Vec<_>, _>>()?;
        let mut order: Vec<usize> = (0..rows.len()).collect();
        order.sort_by_key(|&at| std::cmp::Reverse(rows[at].len()));
        let mut scores = vec![0.; rows.len()];
        for part in order.chunks(batch.max(1)) {
            let objective = Objective::Reward(Reward::default());
            let batch = Batch::of_rows(part.iter().map(|&at| rows[at].as_slice()), self.pad());
            let said = objective.answers(&self.model, &batch)?;
            let Some(said) = said.rows.first().filter(|said| said.width == 1) else {
                let width = said.rows.first().map_or(0, |said| said.width);
                let what = format!("a reward model answers with one number, this one with {width}");
                return Err(TrainError::Reward { name: self.name.clone(), what });
            };
            part.iter().zip(&said.values).for_each(|(&at, &score)| scores[at] = f64::from(score));
        }
        Ok(scores)
    }

    fn encode(&self, item: &Item) -> Result<Vec<u32>, TrainError> {
        let encoder = Encoder::new(&self.tokenizer, Some(LossOn::All));
        let mut ids = match &item.prompt.asked {
            Asked::Text(prompt) => {
                let text = format!("{prompt}{}", item.completion);
                match item.ended {
                    // As it was trained: texts that end say so.
                    true => encoder.encode(&Dialogue::new(Content::Text(text)))?.ids,
                    false => self.tokenizer.encode(&text, true)?,
                }
            }
            Asked::Messages(messages) => {
                let answer = json!({"role": "assistant", "content": item.completion});
                let messages = messages.iter().cloned().chain([answer]).collect();
                encoder.encode(&Dialogue::new(Content::Messages(messages)))?.ids
            }
        };
        ids.drain(..ids.len().saturating_sub(self.max_len));
        Ok(ids)
    }

    /// What fills rows up: where a text ends a head of decoders tells by this.
    fn pad(&self) -> u32 {
        let named = self.model.config.get("pad_token_id").and_then(Value::as_u64).and_then(|id| u32::try_from(id).ok());
        named.or(self.tokenizer.pad()).unwrap_or(0)
    }
}
