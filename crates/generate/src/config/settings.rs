//! The settings of one run: every default filled in, every value in its range.

use phyla_models::Arch;

use super::GenerationConfig;
use crate::{Error, Result};

/// Most new tokens when neither the model nor the user sets a limit; less where the model's context ends first.
pub const DEFAULT_MAX_NEW_TOKENS: usize = 512;

/// Draw among so many likeliest tokens, unless `top_k` says otherwise; as in transformers.
pub const DEFAULT_TOP_K: usize = 50;

/// What a [`GenerationConfig`] comes to.
#[derive(Clone, Debug, PartialEq)]
pub struct Settings {
    /// As set; see [`Settings::limit`].
    pub max_new_tokens: Option<usize>,
    /// As set; see [`Settings::limit`].
    pub max_length: Option<usize>,
    /// No end of sequence before so many new tokens.
    pub min_new_tokens: usize,
    /// No end of sequence before so many tokens in all.
    pub min_length: usize,
    /// How to draw; `None` is greedy.
    pub sampling: Option<Sampling>,
    /// 1 is off.
    pub repetition_penalty: f32,
    /// Ids that end a sequence.
    pub eos: Vec<u32>,
    /// What an empty prompt starts from.
    pub bos: Option<u32>,
    /// Texts that end a sequence.
    pub stop_strings: Vec<String>,
    /// Sequences for each prompt.
    pub returns: usize,
    /// Ids that are never generated.
    pub suppress: Vec<u32>,
}

/// The distribution that is drawn from.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Sampling {
    /// Divisor of the logits, above 0.
    pub temperature: f32,
    /// 0 is off.
    pub top_k: usize,
    /// 1 is off.
    pub top_p: f32,
    /// 0 is off.
    pub min_p: f32,
}

impl TryFrom<&GenerationConfig> for Settings {
    type Error = Error;

    fn try_from(config: &GenerationConfig) -> Result<Self> {
        let temperature = within("temperature", config.temperature.unwrap_or(1.), 0., f32::MAX)?;
        let sampling = Sampling {
            temperature,
            top_k: config.top_k.unwrap_or(DEFAULT_TOP_K),
            top_p: within("top_p", config.top_p.unwrap_or(1.), 0., 1.)?,
            min_p: within("min_p", config.min_p.unwrap_or(0.), 0., 1.)?,
        };
        let penalty = config.repetition_penalty.unwrap_or(1.);
        let repetition_penalty = within("repetition_penalty", penalty, f32::MIN_POSITIVE, f32::MAX)?;
        let counted = |name: &str, value: Option<usize>| match value {
            Some(0) => Err(Error::Settings(format!("{name} must be at least 1, found 0"))),
            value => Ok(value),
        };
        let stop_strings = config.stop_strings.clone().unwrap_or_default();
        if stop_strings.iter().any(String::is_empty) {
            return Err(Error::Settings("stop_strings: an empty string would stop everywhere".into()));
        }
        Ok(Self {
            max_new_tokens: counted("max_new_tokens", config.max_new_tokens)?,
            max_length: counted("max_length", config.max_length)?,
            min_new_tokens: config.min_new_tokens.unwrap_or(0),
            min_length: config.min_length.unwrap_or(0),
            sampling: (config.do_sample.unwrap_or(false) && temperature > 0.).then_some(sampling),
            repetition_penalty,
            eos: config.eos_token_id.clone().unwrap_or_default(),
            bos: config.bos_token_id,
            stop_strings,
            returns: counted("num_return_sequences", config.num_return_sequences)?.unwrap_or(1),
            suppress: config.suppress_tokens.clone().unwrap_or_default(),
        })
    }
}

impl Settings {
    /// Most new tokens after a prompt of `prompt` tokens.
    ///
    /// A model with a hard limit of positions has room for one token more than positions are left: the last token
    /// is never read.
    ///
    /// # Errors
    /// When the prompt alone reaches `max_length`, or is longer than the model's hard limit.
    pub fn limit(&self, prompt: usize, arch: &Arch) -> Result<usize> {
        if arch.context_is_hard && prompt > arch.context {
            return Err(Error::Prompt(format!(
                "the prompt has {prompt} tokens, and this model has learned {} positions; shorten the prompt",
                arch.context
            )));
        }
        let asked = match (self.max_new_tokens, self.max_length) {
            (Some(new), _) => new,
            (None, Some(all)) if all > prompt => all - prompt,
            (None, Some(all)) => {
                return Err(Error::Prompt(format!(
                    "the prompt has {prompt} tokens, which leaves none of max_length {all}; \
                     raise it, or set max_new_tokens instead"
                )));
            }
            (None, None) => DEFAULT_MAX_NEW_TOKENS.min(arch.context.saturating_sub(prompt).max(1)),
        };
        Ok(if arch.context_is_hard { asked.min(arch.context - prompt + 1) } else { asked })
    }
}

/// `value`, if it lies in `low..=high`.
fn within(name: &str, value: f32, low: f32, high: f32) -> Result<f32> {
    if (low..=high).contains(&value) {
        return Ok(value);
    }
    let expected = match (low, high) {
        (0., f32::MAX) => "a number of at least 0".to_string(),
        (_, f32::MAX) => "a number above 0".to_string(),
        _ => format!("a number from {low} to {high}"),
    };
    Err(Error::Settings(format!("{name}: expected {expected}, found {value}")))
}
