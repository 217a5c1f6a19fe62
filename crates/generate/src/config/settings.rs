//! The settings of one run: every default filled in, every value in its range.

use std::time::Duration;

use phyla_models::Arch;

use super::{
    CacheSettings, Contrastive, DEFAULT_TOP_K, DolaLayers, EarlyStopping, ForcedWords, GenerationConfig, Sampling,
    mixing, sampling, words,
};
use crate::constraint::Guide;
use crate::processor::{Dry, PrefixAllowed};
use crate::{Error, Generation, Result, Wanted, WatermarkingConfig};

/// Most new tokens when neither the model nor the user sets a limit; less where the model's context ends first.
pub const DEFAULT_MAX_NEW_TOKENS: usize = 512;

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
    /// 1 is off.
    pub encoder_repetition_penalty: f32,
    /// 0 is off.
    pub frequency_penalty: f32,
    /// 0 is off.
    pub presence_penalty: f32,
    /// What it costs to continue runs that have been before.
    pub dry: Option<Dry>,
    /// Runs of ids, and what is added to the logit of their last one.
    pub sequence_bias: Vec<(Vec<u32>, f32)>,
    /// Free new tokens, and how fast the end grows likelier behind them.
    pub length_decay: Option<(usize, f64)>,
    /// Whether logits that are no numbers become some.
    pub remove_invalid: bool,
    /// When to end, whatever is missing.
    pub max_time: Option<Duration>,
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
    /// Ids that are not generated first.
    pub begin_suppress: Vec<u32>,
    /// Runs of ids that are never generated.
    pub bad_words: Vec<Vec<u32>>,
    /// No run of so many ids twice; 0 is off.
    pub no_repeat_ngram: usize,
    /// No run of so many ids of what the encoder read or, without one, of the prompt; 0 is off.
    pub encoder_no_repeat_ngram: usize,
    /// What a decoder with an encoder starts from.
    pub decoder_start: Option<u32>,
    /// The first id after a start of one id.
    pub forced_bos: Option<u32>,
    /// Of which one comes last at the limit of tokens; empty is off.
    pub forced_eos: Vec<u32>,
    /// Positions and the ids that stand there.
    pub forced_ids: Vec<(usize, Option<u32>)>,
    /// Makes what is written recognisable.
    pub watermark: Option<WatermarkingConfig>,
    /// 1 is no beam search.
    pub beams: usize,
    /// Groups that the beams are cut into.
    pub groups: usize,
    /// What is taken from the log-probability of ids for each beam of an earlier group that has just got them.
    pub diversity: f32,
    /// Words that beams must write.
    pub forced_words: Vec<ForcedWords>,
    /// When a beam search ends.
    pub early_stopping: EarlyStopping,
    /// The power of the length that divides a finished beam's score.
    pub length_penalty: f32,
    /// Whether beams count probabilities that sum to 1 after all other settings.
    pub renormalize: bool,
    /// What keys and values are kept as, and in how much memory.
    pub cache: CacheSettings,
    /// Whether answers have the bits that each has alone, over quantised weights too.
    pub deterministic: bool,
    /// Ids that are guessed at once from what stands in the text already; `None` is off.
    pub lookup: Option<usize>,
    /// The longest run of last ids that is looked for.
    pub lookup_ngram: usize,
    /// Ids that an assistant guesses at once, at most, and whether their number follows from how many are right.
    pub assistant_tokens: usize,
    /// See `assistant_tokens`.
    pub assistant_adapts: bool,
    /// A guess of an assistant that is less likely than this is the last; 0 is off.
    pub assistant_confidence: f32,
    /// So many of the model's own layers guess.
    pub early_exit: Option<usize>,
    /// Contrastive search: the weight of the penalty, and how many ids are weighed; `None` is off.
    pub contrast: Option<(f32, usize)>,
    /// What is given besides ids and text.
    pub outputs: Wanted,
    /// Whether prompts' ends are healed.
    pub heal: bool,
    /// Says which ids may come next.
    pub prefix_allowed: Option<PrefixAllowed>,
    /// Guides away from negative prompts by this factor; `None` is off.
    pub guidance: Option<f32>,
    /// The layers that DoLa may contrast the last one with.
    pub dola: Option<DolaLayers>,
    /// How an amateur counts, and whether anything was said of it.
    pub contrastive: Contrastive,
    /// See `contrastive`.
    pub contrasts: bool,
    /// Whether ids are guessed.
    pub speculates: bool,
    /// What answers have to be, once a tokenizer has been seen.
    pub(crate) guide: Option<Guide>,
}

/// Most beams. Each is a row of the cache, and quality falls long before (Koehn and Knowles 2017, section 3.6).
const MOST_BEAMS: usize = 1024;

impl TryFrom<&GenerationConfig> for Settings {
    type Error = Error;

    fn try_from(config: &GenerationConfig) -> Result<Self> {
        let penalty = |name: &str, value: Option<f32>| within(name, value.unwrap_or(1.), f32::MIN_POSITIVE, f32::MAX);
        let any = |name: &str, value: Option<f32>| within(name, value.unwrap_or(0.), f32::MIN, f32::MAX);
        let sequence_bias = config.sequence_bias.clone().unwrap_or_default();
        if sequence_bias.iter().any(|(run, _)| run.is_empty()) {
            return Err(Error::Settings("sequence_bias: an empty run of ids has no last one".into()));
        }
        let seconds = |seconds: f32| within("max_time", seconds, 0., 1e9).map(Duration::from_secs_f32);
        let counted = |name: &str, value: Option<usize>| match value {
            Some(0) => Err(Error::Settings(format!("{name} must be at least 1, found 0"))),
            value => Ok(value),
        };
        let stop_strings = config.stop_strings.clone().unwrap_or_default();
        if stop_strings.iter().any(String::is_empty) {
            return Err(Error::Settings("stop_strings: an empty string would stop everywhere".into()));
        }
        let beams = counted("num_beams", config.num_beams)?.unwrap_or(1);
        if beams > MOST_BEAMS {
            return Err(Error::Settings(format!("num_beams must be at most {MOST_BEAMS}, found {beams}")));
        }
        let returns = counted("num_return_sequences", config.num_return_sequences)?.unwrap_or(1);
        if beams > 1 && returns > beams {
            return Err(Error::Settings(format!(
                "num_return_sequences: a search of {beams} beams ends with as many sequences, and {returns} are asked \
                 for; raise num_beams"
            )));
        }
        let bad_words = config.bad_words_ids.clone().unwrap_or_default();
        if bad_words.iter().any(Vec::is_empty) {
            return Err(Error::Settings("bad_words_ids: an empty run of ids would forbid everything".into()));
        }
        let (contrastive, contrasts) = Contrastive::of(config)?;
        let lookup = config.prompt_lookup_num_tokens.filter(|&tokens| tokens > 0);
        let settings = Self {
            max_new_tokens: counted("max_new_tokens", config.max_new_tokens)?,
            max_length: counted("max_length", config.max_length)?,
            min_new_tokens: config.min_new_tokens.unwrap_or(0),
            // As in transformers, the count of new tokens takes precedence.
            min_length: config.min_length.filter(|_| config.min_new_tokens.is_none()).unwrap_or(0),
            sampling: Sampling::of(config)?,
            repetition_penalty: penalty("repetition_penalty", config.repetition_penalty)?,
            encoder_repetition_penalty: penalty("encoder_repetition_penalty", config.encoder_repetition_penalty)?,
            frequency_penalty: any("frequency_penalty", config.frequency_penalty)?,
            presence_penalty: any("presence_penalty", config.presence_penalty)?,
            dry: sampling::dry(config)?,
            sequence_bias,
            length_decay: config.exponential_decay_length_penalty,
            remove_invalid: config.remove_invalid_values.unwrap_or(false),
            max_time: config.max_time.map(seconds).transpose()?,
            eos: config.eos_token_id.clone().unwrap_or_default(),
            bos: config.bos_token_id,
            stop_strings,
            returns,
            suppress: config.suppress_tokens.clone().unwrap_or_default(),
            begin_suppress: config.begin_suppress_tokens.clone().unwrap_or_default(),
            bad_words,
            no_repeat_ngram: config.no_repeat_ngram_size.unwrap_or(0),
            encoder_no_repeat_ngram: config.encoder_no_repeat_ngram_size.unwrap_or(0),
            decoder_start: config.decoder_start_token_id,
            forced_bos: config.forced_bos_token_id,
            forced_eos: config.forced_eos_token_id.clone().unwrap_or_default(),
            forced_ids: config.forced_decoder_ids.clone().unwrap_or_default(),
            watermark: config.watermarking_config.clone().map(WatermarkingConfig::checked).transpose()?,
            beams,
            groups: counted("num_beam_groups", config.num_beam_groups)?.unwrap_or(1),
            diversity: within("diversity_penalty", config.diversity_penalty.unwrap_or(0.), 0., f32::MAX)?,
            forced_words: words::forced(config)?,
            early_stopping: config.early_stopping.unwrap_or_default(),
            length_penalty: within("length_penalty", config.length_penalty.unwrap_or(1.), f32::MIN, f32::MAX)?,
            renormalize: config.renormalize_logits.unwrap_or(false),
            cache: CacheSettings::try_from(config)?,
            deterministic: config.deterministic.unwrap_or(false),
            lookup,
            lookup_ngram: counted("max_matching_ngram_size", config.max_matching_ngram_size)?.unwrap_or(2),
            assistant_tokens: counted("num_assistant_tokens", config.num_assistant_tokens)?.unwrap_or(20),
            assistant_adapts: config.num_assistant_tokens_schedule.as_deref() != Some("constant"),
            assistant_confidence: within(
                "assistant_confidence_threshold",
                config.assistant_confidence_threshold.unwrap_or(0.4),
                0.,
                1.,
            )?,
            early_exit: counted("assistant_early_exit", config.assistant_early_exit)?,
            contrast: contrast(config)?,
            outputs: outputs(config)?,
            heal: config.token_healing.unwrap_or(false),
            prefix_allowed: config.prefix_allowed.clone(),
            guidance: mixing::guidance(config)?,
            dola: config.dola_layers.clone(),
            contrastive,
            contrasts,
            speculates: lookup.is_some() || config.assistant_early_exit.is_some(),
            guide: None,
        };
        words::searched(&settings)?;
        Ok(settings)
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
        Self::fits(prompt, arch)?;
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
        Ok(asked.min(Self::room(prompt, arch)?))
    }
}

impl Settings {
    /// Runs the model as these settings say.
    pub(crate) fn running<R>(&self, f: impl FnOnce() -> R) -> R {
        phyla_ops::no_grad(|| if self.deterministic { phyla_ops::in_any_company(f) } else { f() })
    }

    /// New tokens that a model has positions for behind a prompt, the last one needing none.
    ///
    /// # Errors
    /// As [`Settings::fits`].
    pub(crate) fn room(prompt: usize, arch: &Arch) -> Result<usize> {
        Self::fits(prompt, arch)?;
        Ok(if arch.context_is_hard { arch.context - prompt + 1 } else { usize::MAX })
    }

    /// What came of a call, with what its constraint says about it.
    pub(crate) fn guided(&self, done: Result<Generation>) -> Result<Generation> {
        let Some(guide) = &self.guide else { return done };
        let mut generation = done.map_err(|error| guide.explain(error))?;
        for sequence in &mut generation.sequences {
            sequence.complete = Some(guide.complete(&sequence.ids, self));
        }
        (generation.timings.masks, generation.timings.masking) = guide.cost();
        Ok(generation)
    }

    /// An error, with the constraint's reason if it is one.
    pub(crate) fn explain(&self, error: Error) -> Error {
        match &self.guide {
            Some(guide) => guide.explain(error),
            None => error,
        }
    }

    /// Whether a model has positions for a prompt.
    ///
    /// # Errors
    /// When it has fewer.
    pub(crate) fn fits(prompt: usize, arch: &Arch) -> Result<()> {
        if arch.context_is_hard && prompt > arch.context {
            return Err(Error::Prompt(format!(
                "the prompt has {prompt} tokens, and this model has learned {} positions; shorten the prompt",
                arch.context
            )));
        }
        Ok(())
    }
}

/// What is asked for besides ids and text.
fn outputs(config: &GenerationConfig) -> Result<Wanted> {
    let top = config.top_logprobs.unwrap_or(0);
    if config.logprobs == Some(false) && top > 0 {
        return Err(Error::Settings(format!("top_logprobs: {top} alternatives are asked for, and logprobs is false")));
    }
    let wanted = |asked: Option<bool>| asked.unwrap_or(false);
    Ok(Wanted {
        logits: wanted(config.output_logits),
        scores: wanted(config.output_scores),
        hidden_states: wanted(config.output_hidden_states),
        attentions: wanted(config.output_attentions),
        logprobs: (wanted(config.logprobs) || config.top_logprobs.is_some()).then_some(top),
    })
}

/// Contrastive search, as in transformers: with a penalty, more ids than one to weigh, and nothing that draws or searches.
fn contrast(config: &GenerationConfig) -> Result<Option<(f32, usize)>> {
    let alpha = within("penalty_alpha", config.penalty_alpha.unwrap_or(0.), 0., 1.)?;
    let (k, draws) = (config.top_k.unwrap_or(DEFAULT_TOP_K), config.do_sample.unwrap_or(false));
    Ok((alpha > 0. && k > 1 && !draws).then_some((alpha, k)))
}

/// `value`, if it lies in `low..=high`.
pub(super) fn within(name: &str, value: f32, low: f32, high: f32) -> Result<f32> {
    if (low..=high).contains(&value) {
        return Ok(value);
    }
    let expected = match (low, high) {
        (f32::MIN, f32::MAX) => "a finite number".to_string(),
        (0., f32::MAX) => "a number of at least 0".to_string(),
        (_, f32::MAX) => "a number above 0".to_string(),
        (f32::MIN_POSITIVE, high) => format!("a number above 0 and up to {high}"),
        _ => format!("a number from {low} to {high}"),
    };
    Err(Error::Settings(format!("{name}: expected {expected}, found {value}")))
}
