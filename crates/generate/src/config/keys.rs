//! The names of all settings, for whoever lists them: a command's options, suggestions, the handbook's table.

/// A setting.
#[derive(Clone, Copy, Debug)]
pub struct Key {
    /// As in `generation_config.json`.
    pub name: &'static str,
    /// What stands for its value.
    pub value: &'static str,
    /// What it does, in a line.
    pub help: &'static str,
}

const fn key(name: &'static str, value: &'static str, help: &'static str) -> Key {
    Key { name, value, help }
}

/// All settings that are honoured, in the order in which one reads about them.
pub const KEYS: &[Key] = &[
    key("max_new_tokens", "N", "Most new tokens"),
    key("max_length", "N", "Most tokens, the prompt's included"),
    key("min_new_tokens", "N", "No end before so many new tokens"),
    key("min_length", "N", "No end before so many tokens, the prompt's included"),
    key("max_time", "SECONDS", "End what is being written after so long"),
    key("do_sample", "BOOL", "Draw instead of taking the likeliest; what shapes the draw turns it on"),
    key("temperature", "T", "Divisor of the logits: 0 is greedy, 1 the model's own distribution"),
    key("top_k", "K", "Draw among this many likeliest tokens; 0 is all [default: 50]"),
    key("top_p", "P", "Draw among the likeliest tokens that hold this much probability together"),
    key("min_p", "P", "Drop tokens less likely than this fraction of the likeliest"),
    key("top_h", "H", "Draw among the likeliest tokens that hold this much of the entropy"),
    key("typical_p", "P", "Draw among the most typical tokens that hold this much probability together"),
    key("epsilon_cutoff", "P", "Drop tokens less likely than this"),
    key("eta_cutoff", "P", "Drop tokens less likely than this, and the flatter the distribution than less"),
    key("xtc_probability", "P", "How often the likely tokens are dropped, all but the least likely of them"),
    key("xtc_threshold", "P", "How probable a token is that counts as likely there [default: 0.1]"),
    key("dynatemp_range", "X", "Let the temperature go so far below and above, as the entropy does"),
    key("dynatemp_exponent", "X", "The power by which it does [default: 1]"),
    key("mirostat", "N", "2 drops tokens that would surprise more than the text so far allows"),
    key("mirostat_tau", "X", "Bits that a token is to surprise by [default: 5]"),
    key("mirostat_eta", "X", "How fast mirostat learns [default: 0.1]"),
    key("repetition_penalty", "F", "Make tokens that have occurred less likely by this factor"),
    key("frequency_penalty", "X", "Take this from a token's logit for each time it occurs in the answer"),
    key("presence_penalty", "X", "Take this from the logits of tokens that occur in the answer"),
    key("encoder_repetition_penalty", "F", "Make tokens of the source (the prompt) likelier by this factor"),
    key(
        "dry_multiplier",
        "X",
        "Take this from a token's logit that continues a run which has been before, and more the longer it is",
    ),
    key("dry_base", "X", "By how much more for each token of the run [default: 1.75]"),
    key("dry_allowed_length", "N", "Runs below this length cost nothing [default: 2]"),
    key("dry_penalty_last_n", "N", "Look at so many last tokens for runs; -1 is all [default: -1]"),
    key(
        "dry_sequence_breakers",
        "TEXT|[TEXT,...]",
        "Texts that no run goes beyond [default: line end, colon, quote, asterisk]",
    ),
    key("no_repeat_ngram_size", "N", "No run of so many tokens twice"),
    key("encoder_no_repeat_ngram_size", "N", "No run of so many tokens of the source (the prompt)"),
    key("bad_words_ids", "[[ID,...],...]", "Runs of ids that are never written"),
    key("sequence_bias", "[[[ID,...],X],...]", "Runs of ids that are likelier by this logit, or less likely"),
    key("suppress_tokens", "[ID,...]", "Ids that are never written"),
    key("begin_suppress_tokens", "[ID,...]", "Ids that are not written first"),
    key("forced_bos_token_id", "ID", "The first id behind a start of one id"),
    key("forced_eos_token_id", "ID|[ID,...]", "The last id where the limit ends an answer"),
    key("forced_decoder_ids", "[[N,ID],...]", "What stands at these positions, counted from the text's first"),
    key("token_healing", "BOOL", "Replace the prompt's last token by the likeliest that begins with its text"),
    key("guidance_scale", "X", "Guide away from --negative-prompt by this factor; 1 is off"),
    key("dola_layers", "low|high|[N,...]", "DoLa: contrast the last layer with that of these which differs most"),
    key(
        "contrastive_alpha",
        "P",
        "With --amateur-model: drop tokens less likely than this share of the likeliest [default: 0.1]",
    ),
    key("contrastive_beta", "X", "With --amateur-model: how much it counts; without, in full"),
    key("amateur_temperature", "T", "Divisor of the amateur's logits"),
    key(
        "watermarking_config",
        "{\"bias\":X,...}",
        "Watermark what is written: greenlist_ratio, bias, hashing_key, seeding_scheme, context_width",
    ),
    key("exponential_decay_length_penalty", "[N,F]", "Behind N new tokens the end grows likelier by F each time"),
    key("remove_invalid_values", "BOOL", "Make numbers of logits that are none, instead of an error"),
    key("json_schema", "SCHEMA", "Write JSON that this schema allows"),
    key("json_object", "BOOL", "Write a JSON object"),
    key("regex", "EXPRESSION", "Write what this regular expression matches from end to end"),
    key("grammar", "GRAMMAR", "Write a text of this context-free grammar, in Lark's language"),
    key("choice", "[TEXT,...]", "Write one of these texts"),
    key("num_return_sequences", "N", "How many answers"),
    key("num_beams", "N", "Follow so many continuations side by side; above 1 is beam search"),
    key("num_beam_groups", "N", "Cut the beams into so many groups, each unlike those before it"),
    key("diversity_penalty", "X", "How unlike: taken from an id's log-probability for each beam that has just got it"),
    key(
        "force_words_ids",
        "[[ID,...],...]",
        "Runs of ids that beams must write, or lists of runs of which one is enough",
    ),
    key(
        "constraints",
        "[{\"token_ids\":[ID,...]},...]",
        "The same as objects: token_ids or, for one of several, nested_token_ids",
    ),
    key("early_stopping", "true|false|never", "When a beam search ends"),
    key("length_penalty", "X", "A beam's score is divided by its length to this power"),
    key("renormalize_logits", "BOOL", "Beams count what the other settings leave as if it were all"),
    key(
        "penalty_alpha",
        "A",
        "Contrastive search over the top-k likeliest: this much counts against being like what was",
    ),
    key("eos_token_id", "ID|[ID,...]", "Ids that end an answer"),
    key("bos_token_id", "ID", "What an empty prompt starts from"),
    key("decoder_start_token_id", "ID", "What the decoder of an encoder-decoder starts from"),
    key("stop_strings", "TEXT|[TEXT,...]", "Texts that end an answer; --stop gives them one by one"),
    key(
        "prompt_lookup_num_tokens",
        "N",
        "Guess so many tokens at once from what stands in the text already: the same text, sooner",
    ),
    key("max_matching_ngram_size", "N", "The longest run of last tokens that is looked for [default: 2]"),
    key("num_assistant_tokens", "N", "Tokens that an assistant guesses at once, at most 7"),
    key("num_assistant_tokens_schedule", "NAME", "constant, or heuristic: as many as it pays to guess"),
    key("assistant_confidence_threshold", "P", "An assistant's guess less likely than this is its last [default: 0.4]"),
    key("assistant_early_exit", "N", "Let the model's own first N layers guess: the same text"),
    key(
        "cache_implementation",
        "NAME",
        "dynamic (it grows), sliding_window, hybrid (the same), dynamic_full (windows forget nothing), static (taken at \
         once), quantized (4 bits), offloaded (in a temporary file), offloaded_static, sink (first and last tokens)",
    ),
    key(
        "cache_dtype",
        "KIND",
        "What keys and values are kept as: f32, bf16, f16, q8_0, q5_1, q5_0, q4_1, q4_0, iq4_nl; without it bf16 beside \
         weights in bf16 and quantised ones, else f32",
    ),
    key(
        "cache_config",
        "JSON",
        "Of a quantised cache nbits (4 or 8), q_group_size and residual_length, the newest positions that stay exact; of a \
         sink cache window_length and num_sink_tokens",
    ),
    key("max_cache_len", "N", "Positions of a static cache, at least"),
    key("logprobs", "BOOL|N", "Tell how likely each token was (with --json), and N likeliest beside it"),
    key("top_logprobs", "N", "Tell so many of the likeliest tokens of each step (with --json)"),
    key("output_scores", "BOOL", "Tell what the settings leave of each step's logits (with --json)"),
    key("output_logits", "BOOL", "Tell each step's logits (with --json)"),
    key("output_attentions", "BOOL", "Tell all attention weights (with --json): large"),
    key("output_hidden_states", "BOOL", "Tell what enters and leaves each layer (with --json): large"),
    key("deterministic", "BOOL", "Let no answer depend on what else is in the call, over quantised weights too"),
];
