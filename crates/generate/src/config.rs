//! How to decode: the keys of `generation_config.json`, each optional, and the [`Settings`] that they come to.

mod cache;
mod keys;
mod mixing;
mod read;
mod sampling;
mod settings;
mod words;

pub use cache::{CacheConfig, CacheDtype, CacheImplementation, CacheSettings};
pub use keys::{KEYS, Key};
pub use mixing::{Contrastive, DolaLayers};
pub use sampling::{DEFAULT_TOP_K, Sampling};
pub use settings::{DEFAULT_MAX_NEW_TOKENS, Settings};
pub use words::ForcedWords;

use crate::processor::PrefixAllowed;
use crate::{Constraint, WatermarkingConfig};

/// Settings as they are written down, in a model's `generation_config.json` or by a user; `None` is "not said".
///
/// Names, meanings and defaults are those of transformers 5, with three differences: `temperature` 0 means greedy
/// decoding; a sampling parameter among a user's own settings turns `do_sample` on (see [`GenerationConfig::merge`]);
/// and without any limit [`DEFAULT_MAX_NEW_TOKENS`] holds instead of 20.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct GenerationConfig {
    /// Most new tokens. Goes before `max_length`.
    pub max_new_tokens: Option<usize>,
    /// Most tokens, the prompt's included; of an encoder-decoder the decoder's, its start included.
    pub max_length: Option<usize>,
    /// No end of sequence before so many new tokens.
    pub min_new_tokens: Option<usize>,
    /// No end of sequence before so many tokens, the prompt's included; `min_new_tokens` takes precedence.
    pub min_length: Option<usize>,
    /// Draw from the distribution instead of taking the likeliest token. Default: false.
    pub do_sample: Option<bool>,
    /// Divisor of the logits; 0 is greedy. Default: 1.
    pub temperature: Option<f32>,
    /// Draw among so many likeliest tokens; 0 is all. Default when sampling: [`DEFAULT_TOP_K`].
    pub top_k: Option<usize>,
    /// Draw among the likeliest tokens that hold this much probability together. Default: 1.
    pub top_p: Option<f32>,
    /// Drop tokens less likely than this fraction of the likeliest. Default: 0.
    pub min_p: Option<f32>,
    /// Divisor of positive (factor of negative) logits of tokens in the prompt or the answer; of an encoder-decoder
    /// the answer alone counts. Beams apply it to log-probabilities. Default: 1.
    pub repetition_penalty: Option<f32>,
    /// Factor of positive (divisor of negative) logits of tokens that the encoder read or, without one, of the prompt: above 1
    /// they are likelier. Default: 1.
    pub encoder_repetition_penalty: Option<f32>,
    /// Taken from a token's logit for each time that it occurs in the answer, as in OpenAI's interface. Default: 0.
    pub frequency_penalty: Option<f32>,
    /// Taken once from the logits of tokens that occur in the answer. Default: 0.
    pub presence_penalty: Option<f32>,
    /// Runs of ids and what is added to the logit of each one's last id behind its others.
    pub sequence_bias: Option<Vec<(Vec<u32>, f32)>>,
    /// Behind so many new tokens the end grows likelier, by a factor to the power of those since.
    pub exponential_decay_length_penalty: Option<(usize, f64)>,
    /// Whether logits that are NaN or infinite become numbers, instead of an error. Default: false.
    pub remove_invalid_values: Option<bool>,
    /// Seconds after which every sequence ends with what it has.
    pub max_time: Option<f32>,
    /// No run of so many ids of what the encoder read or, without one, of the prompt; 0 is off. Default: 0.
    pub encoder_no_repeat_ngram_size: Option<usize>,
    /// Draw among the likeliest tokens that hold this much of the entropy.
    pub top_h: Option<f32>,
    /// Draw among the tokens whose information is nearest to the entropy, that hold this much probability. Default: 1.
    pub typical_p: Option<f32>,
    /// Drop tokens less likely than this. Default: 0.
    pub epsilon_cutoff: Option<f32>,
    /// Drop tokens less likely than this and, the flatter the distribution, than less. Default: 0.
    pub eta_cutoff: Option<f32>,
    /// How often XTC rules out all but the least likely of the likely ids, from 0 to 1. Default: 0.
    pub xtc_probability: Option<f32>,
    /// How probable an id is that XTC takes for likely. Default: 0.1.
    pub xtc_threshold: Option<f32>,
    /// How far the temperature goes below and above `temperature`, as the entropy does; 0 is off. Default: 0.
    pub dynatemp_range: Option<f32>,
    /// The power of the entropy's share by which it goes. Default: 1.
    pub dynatemp_exponent: Option<f32>,
    /// 2 is mirostat 2: rule out what surprises too much; 0 is off. With it `top_k` is 0 unless set. Default: 0.
    pub mirostat: Option<usize>,
    /// Bits that an id is to surprise by. Default: 5.
    pub mirostat_tau: Option<f32>,
    /// How fast mirostat learns. Default: 0.1.
    pub mirostat_eta: Option<f32>,
    /// DRY: what it costs to continue a run of `dry_allowed_length` ids that has been before; 0 is off. Default: 0.
    pub dry_multiplier: Option<f32>,
    /// By how much more for each further id of the run. Default: 1.75.
    pub dry_base: Option<f32>,
    /// Runs below this length cost nothing. Default: 2.
    pub dry_allowed_length: Option<usize>,
    /// So many last ids are looked at; 0 is off, and -1 in files all. Default: all.
    pub dry_penalty_last_n: Option<usize>,
    /// Texts that no run goes beyond; they need a tokenizer. Default with one: a line's end, a colon, a double quote, an asterisk.
    pub dry_sequence_breakers: Option<Vec<String>>,
    /// Positions, the prompt's ids or the decoder's start counted, and the id that stands there; `None` forces nothing.
    pub forced_decoder_ids: Option<Vec<(usize, Option<u32>)>>,
    /// Classifier-free guidance: above 1 away from a negative prompt, by this factor; 1 is off. Default: 1.
    pub guidance_scale: Option<f32>,
    /// DoLa: contrast the last layer with that of these which differs most.
    pub dola_layers: Option<DolaLayers>,
    /// Contrastive decoding: ids less likely than this share of the likeliest are ruled out. Default: 0.1.
    pub contrastive_alpha: Option<f32>,
    /// Contrastive decoding: the weight of what the amateur says beside what the expert says; without it the whole difference.
    pub contrastive_beta: Option<f32>,
    /// Divisor of the amateur's logits. Default: 1.
    pub amateur_temperature: Option<f32>,
    /// Whether the last token of a prompt is replaced by the likeliest one that begins with its text; needs a tokenizer. What the
    /// text gains there is the beginning of the answer's. Default: false.
    pub token_healing: Option<bool>,
    /// Says which ids may come next; in no file.
    pub prefix_allowed: Option<PrefixAllowed>,
    /// Makes what is written recognisable to whoever knows these settings.
    pub watermarking_config: Option<WatermarkingConfig>,
    /// Ids that end a sequence; in files one id or a list.
    pub eos_token_id: Option<Vec<u32>>,
    /// What an empty prompt starts from.
    pub bos_token_id: Option<u32>,
    /// Texts that end a sequence, and are no part of its text; in files one string or a list.
    pub stop_strings: Option<Vec<String>>,
    /// Sequences for each prompt: draws, or the best of the beams, of which there must be as many. Default: 1.
    pub num_return_sequences: Option<usize>,
    /// Ids that are never generated.
    pub suppress_tokens: Option<Vec<u32>>,
    /// Ids that are not generated first.
    pub begin_suppress_tokens: Option<Vec<u32>>,
    /// Runs of ids that are never generated; those of one id that ends a sequence are passed over.
    pub bad_words_ids: Option<Vec<Vec<u32>>>,
    /// No run of so many ids appears twice; 0 is off. Default: 0.
    pub no_repeat_ngram_size: Option<usize>,
    /// What the decoder of an encoder-decoder starts from; else `bos_token_id`.
    pub decoder_start_token_id: Option<u32>,
    /// The first id after a start of one id.
    pub forced_bos_token_id: Option<u32>,
    /// Ids of which one comes last where the limit of tokens ends a sequence; in files one id or a list.
    pub forced_eos_token_id: Option<Vec<u32>>,
    /// Continuations that are followed side by side; above 1 is beam search. Default: 1.
    pub num_beams: Option<usize>,
    /// Groups that beams are cut into, each of which keeps away from the ids of those before it; above 1 is diverse beam search
    /// (Vijayakumar et al. 2018). Default: 1.
    pub num_beam_groups: Option<usize>,
    /// Taken from the log-probability of an id for each beam of an earlier group that has just got it. Default: 0.
    pub diversity_penalty: Option<f32>,
    /// Words that beams must write: runs of ids, or lists of runs of which one is enough.
    pub force_words_ids: Option<Vec<ForcedWords>>,
    /// The same, in files as objects: `{"token_ids": [..]}` is one run, `{"nested_token_ids": [[..], ..]}` several.
    pub constraints: Option<Vec<ForcedWords>>,
    /// When a beam search ends. Default: [`EarlyStopping::Likely`].
    pub early_stopping: Option<EarlyStopping>,
    /// A finished beam's score is its sum of log-probabilities over its length to this power. Default: 1.
    pub length_penalty: Option<f32>,
    /// Whether beams count the probabilities of what the other settings leave, made to sum to 1. Default: false.
    pub renormalize_logits: Option<bool>,
    /// How the memory of keys and values is managed. Default: [`CacheImplementation::Dynamic`].
    pub cache_implementation: Option<CacheImplementation>,
    /// What a quantised cache keeps keys and values as; in files `nbits` of `cache_config`.
    pub cache_dtype: Option<CacheDtype>,
    /// What else `cache_config` says.
    pub cache_config: Option<CacheConfig>,
    /// Contrastive search: of the `top_k` likeliest tokens the one whose state is least like earlier ones, so much of the choice
    /// being that; 0 is off. Default: 0.
    pub penalty_alpha: Option<f32>,
    /// Guess so many tokens at once from what followed the last ones earlier in the text, fewer where guesses are wrong, and
    /// check them in one pass: the same text, sooner where it repeats itself. At most 7 are guessed.
    pub prompt_lookup_num_tokens: Option<usize>,
    /// The longest run of last tokens that is looked for. Default: 2.
    pub max_matching_ngram_size: Option<usize>,
    /// Tokens that an assistant guesses at once. Default, and at most, 7.
    pub num_assistant_tokens: Option<usize>,
    /// `constant`, or else their number follows from how many were right. Default: `heuristic`.
    pub num_assistant_tokens_schedule: Option<String>,
    /// An assistant's guess that is less likely than this is the last of a pass; 0 is off. Default: 0.4.
    pub assistant_confidence_threshold: Option<f32>,
    /// Let the model's own first layers, so many, guess what follows.
    pub assistant_early_exit: Option<usize>,
    /// Whether an answer may not depend, to the bit, on what else is in the call. Over weights that are not quantised it never
    /// does; over quantised ones several answers together are faster without. Default: false.
    pub deterministic: Option<bool>,
    /// Whether [`crate::Outputs`] hold what the processors leave of each step's logits. Default: false.
    pub output_scores: Option<bool>,
    /// Whether they hold the logits themselves. Default: false.
    pub output_logits: Option<bool>,
    /// Whether they hold the weights of all attention. Default: false.
    pub output_attentions: Option<bool>,
    /// Whether they hold the layers' states. Default: false.
    pub output_hidden_states: Option<bool>,
    /// Whether they hold how likely each id was, as in OpenAI's interface. Default: only with `top_logprobs`.
    pub logprobs: Option<bool>,
    /// With so many of the likeliest ids of its step.
    pub top_logprobs: Option<usize>,
    /// The positions of a static cache, at least; it has as many as the call needs in any case.
    pub max_cache_len: Option<usize>,
    /// What answers have to be; in files `json_schema`, `json_object`, `regex`, `grammar` or `choice`.
    pub constraint: Option<Constraint>,
}

/// When the search of a prompt's beams ends before the limit of tokens.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum EarlyStopping {
    /// `false`: when the likeliest running beam, were it to end now, would not be among the finished ones.
    #[default]
    Likely,
    /// `true`: as soon as `num_beams` have finished, or as [`EarlyStopping::Likely`].
    Enough,
    /// `"never"`: when no running beam can get among the finished ones, however long it grows.
    Never,
}

impl GenerationConfig {
    /// These settings (a model's), overridden by `user`'s.
    ///
    /// A user who names a temperature above 0, `top_k`, `top_p` or another of what shapes the distribution, and says nothing of
    /// `do_sample`, wants to sample: otherwise those would be without effect. A user's limit of either kind replaces both of the model's.
    pub fn merge(self, user: Self) -> Self {
        let shares = [user.top_p, user.min_p, user.top_h, user.typical_p, user.epsilon_cutoff, user.eta_cutoff];
        // Beside this penalty it is how many tokens are weighed.
        let weighs = user.penalty_alpha.is_some_and(|alpha| alpha > 0.);
        let others =
            [user.xtc_probability, user.dynatemp_range].iter().any(Option::is_some) || user.mirostat == Some(2);
        let shapes = user.top_k.is_some() && !weighs || shares.iter().any(Option::is_some) || others;
        let asks = user.temperature.map_or(shapes, |temperature| temperature > 0.);
        let limited = user.max_new_tokens.is_some() || user.max_length.is_some();
        let model = if limited { Self { max_new_tokens: None, max_length: None, ..self } } else { self };
        Self {
            max_new_tokens: user.max_new_tokens.or(model.max_new_tokens),
            max_length: user.max_length.or(model.max_length),
            min_new_tokens: user.min_new_tokens.or(model.min_new_tokens),
            min_length: user.min_length.or(model.min_length),
            do_sample: user.do_sample.or(asks.then_some(true)).or(model.do_sample),
            temperature: user.temperature.or(model.temperature),
            top_k: user.top_k.or(model.top_k),
            top_p: user.top_p.or(model.top_p),
            min_p: user.min_p.or(model.min_p),
            repetition_penalty: user.repetition_penalty.or(model.repetition_penalty),
            encoder_repetition_penalty: user.encoder_repetition_penalty.or(model.encoder_repetition_penalty),
            frequency_penalty: user.frequency_penalty.or(model.frequency_penalty),
            presence_penalty: user.presence_penalty.or(model.presence_penalty),
            sequence_bias: user.sequence_bias.or(model.sequence_bias),
            exponential_decay_length_penalty: user
                .exponential_decay_length_penalty
                .or(model.exponential_decay_length_penalty),
            remove_invalid_values: user.remove_invalid_values.or(model.remove_invalid_values),
            max_time: user.max_time.or(model.max_time),
            encoder_no_repeat_ngram_size: user.encoder_no_repeat_ngram_size.or(model.encoder_no_repeat_ngram_size),
            top_h: user.top_h.or(model.top_h),
            typical_p: user.typical_p.or(model.typical_p),
            epsilon_cutoff: user.epsilon_cutoff.or(model.epsilon_cutoff),
            eta_cutoff: user.eta_cutoff.or(model.eta_cutoff),
            xtc_probability: user.xtc_probability.or(model.xtc_probability),
            xtc_threshold: user.xtc_threshold.or(model.xtc_threshold),
            dynatemp_range: user.dynatemp_range.or(model.dynatemp_range),
            dynatemp_exponent: user.dynatemp_exponent.or(model.dynatemp_exponent),
            mirostat: user.mirostat.or(model.mirostat),
            mirostat_tau: user.mirostat_tau.or(model.mirostat_tau),
            mirostat_eta: user.mirostat_eta.or(model.mirostat_eta),
            dry_multiplier: user.dry_multiplier.or(model.dry_multiplier),
            dry_base: user.dry_base.or(model.dry_base),
            dry_allowed_length: user.dry_allowed_length.or(model.dry_allowed_length),
            dry_penalty_last_n: user.dry_penalty_last_n.or(model.dry_penalty_last_n),
            dry_sequence_breakers: user.dry_sequence_breakers.or(model.dry_sequence_breakers),
            forced_decoder_ids: user.forced_decoder_ids.or(model.forced_decoder_ids),
            guidance_scale: user.guidance_scale.or(model.guidance_scale),
            dola_layers: user.dola_layers.or(model.dola_layers),
            contrastive_alpha: user.contrastive_alpha.or(model.contrastive_alpha),
            contrastive_beta: user.contrastive_beta.or(model.contrastive_beta),
            amateur_temperature: user.amateur_temperature.or(model.amateur_temperature),
            token_healing: user.token_healing.or(model.token_healing),
            prefix_allowed: user.prefix_allowed.or(model.prefix_allowed),
            watermarking_config: user.watermarking_config.or(model.watermarking_config),
            eos_token_id: user.eos_token_id.or(model.eos_token_id),
            bos_token_id: user.bos_token_id.or(model.bos_token_id),
            stop_strings: user.stop_strings.or(model.stop_strings),
            num_return_sequences: user.num_return_sequences.or(model.num_return_sequences),
            suppress_tokens: user.suppress_tokens.or(model.suppress_tokens),
            begin_suppress_tokens: user.begin_suppress_tokens.or(model.begin_suppress_tokens),
            bad_words_ids: user.bad_words_ids.or(model.bad_words_ids),
            no_repeat_ngram_size: user.no_repeat_ngram_size.or(model.no_repeat_ngram_size),
            decoder_start_token_id: user.decoder_start_token_id.or(model.decoder_start_token_id),
            forced_bos_token_id: user.forced_bos_token_id.or(model.forced_bos_token_id),
            forced_eos_token_id: user.forced_eos_token_id.or(model.forced_eos_token_id),
            num_beams: user.num_beams.or(model.num_beams),
            num_beam_groups: user.num_beam_groups.or(model.num_beam_groups),
            diversity_penalty: user.diversity_penalty.or(model.diversity_penalty),
            force_words_ids: user.force_words_ids.or(model.force_words_ids),
            constraints: user.constraints.or(model.constraints),
            early_stopping: user.early_stopping.or(model.early_stopping),
            length_penalty: user.length_penalty.or(model.length_penalty),
            renormalize_logits: user.renormalize_logits.or(model.renormalize_logits),
            cache_implementation: user.cache_implementation.or(model.cache_implementation),
            cache_dtype: user.cache_dtype.or(model.cache_dtype),
            cache_config: user.cache_config.or(model.cache_config),
            penalty_alpha: user.penalty_alpha.or(model.penalty_alpha),
            prompt_lookup_num_tokens: user.prompt_lookup_num_tokens.or(model.prompt_lookup_num_tokens),
            max_matching_ngram_size: user.max_matching_ngram_size.or(model.max_matching_ngram_size),
            num_assistant_tokens: user.num_assistant_tokens.or(model.num_assistant_tokens),
            num_assistant_tokens_schedule: user.num_assistant_tokens_schedule.or(model.num_assistant_tokens_schedule),
            assistant_confidence_threshold: user
                .assistant_confidence_threshold
                .or(model.assistant_confidence_threshold),
            assistant_early_exit: user.assistant_early_exit.or(model.assistant_early_exit),
            deterministic: user.deterministic.or(model.deterministic),
            output_scores: user.output_scores.or(model.output_scores),
            output_logits: user.output_logits.or(model.output_logits),
            output_attentions: user.output_attentions.or(model.output_attentions),
            output_hidden_states: user.output_hidden_states.or(model.output_hidden_states),
            logprobs: user.logprobs.or(model.logprobs),
            top_logprobs: user.top_logprobs.or(model.top_logprobs),
            max_cache_len: user.max_cache_len.or(model.max_cache_len),
            constraint: user.constraint.or(model.constraint),
        }
    }
}

#[cfg(test)]
mod tests;
