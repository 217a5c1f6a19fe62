//! How completions are written: by the project's own engine, in batches, with its caches.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use phyla_data::tokenizer::Tokenizer;
use phyla_generate::{FinishReason, GenerationConfig, Generator};
use phyla_models::Model;

use crate::TrainError;
use crate::recipe::Rollout;

/// A completion as it was written.
#[derive(Clone, Debug)]
pub struct Written {
    /// Its tokens, the one that ends it included.
    pub ids: Vec<u32>,
    /// Its text without that.
    pub text: String,
    /// Whether it came to its end.
    pub ended: bool,
}

/// Writes completions.
#[derive(Debug)]
pub struct Writer {
    tokenizer: Arc<Tokenizer>,
    config: GenerationConfig,
}

impl Writer {
    /// One that ends at any of `ends`.
    pub fn new(rollout: &Rollout, tokenizer: Arc<Tokenizer>, ends: Vec<u32>) -> Self {
        let config = GenerationConfig {
            max_new_tokens: Some(rollout.max_completion_length),
            do_sample: Some(true),
            temperature: Some(rollout.temperature as f32),
            top_k: Some(rollout.top_k),
            top_p: Some(rollout.top_p as f32),
            min_p: rollout.min_p.map(|p| p as f32),
            repetition_penalty: Some(rollout.repetition_penalty as f32),
            stop_strings: (!rollout.stop_strings.is_empty()).then(|| rollout.stop_strings.clone()),
            eos_token_id: Some(ends),
            ..GenerationConfig::default()
        };
        Self { tokenizer, config }
    }

    /// The tokenizer of the model that writes.
    pub fn tokenizer(&self) -> &Tokenizer {
        &self.tokenizer
    }

    /// `returns` completions of each prompt, with the prompt's number; nothing if `interrupt` came first.
    pub fn write(
        &self,
        model: &Model,
        prompts: &[Vec<u32>],
        returns: usize,
        seed: u64,
        interrupt: Option<&AtomicBool>,
    ) -> Result<Option<Vec<(usize, Written)>>, TrainError> {
        let config = GenerationConfig { num_return_sequences: Some(returns), ..self.config.clone() };
        let mut generator = Generator::new(model, Some(&self.tokenizer));
        if let Some(interrupt) = interrupt {
            generator = generator.cancelled_by(interrupt);
        }
        let made = generator.generate(prompts, &config, seed, &mut |_| {})?;
        if interrupt.is_some_and(|interrupt| interrupt.load(Ordering::SeqCst)) {
            return Ok(None);
        }
        let written = made.sequences.into_iter().map(|sequence| {
            let ended = sequence.finish_reason == FinishReason::Stop;
            let text = sequence.text.unwrap_or_default();
            (sequence.prompt, Written { ids: sequence.ids, text, ended })
        });
        Ok(Some(written.collect()))
    }
}
