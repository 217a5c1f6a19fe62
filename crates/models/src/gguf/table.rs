//! What a family is called in GGUF files, as data: how the metadata's keys become fields of `config.json`, and which
//! tensors are its parameters. Each family declares its own table; the parts that several share stand here.

use crate::names::Rule;

/// A family in GGUF files.
#[derive(Clone, Copy, Debug)]
pub struct Table {
    /// `general.architecture`.
    pub arch: &'static str,
    /// Where families share an architecture: the key that is above 0 in files of this one.
    pub marked_by: Option<&'static str>,
    /// The configuration, in parts.
    pub fields: &'static [&'static [Field]],
    /// Ours, theirs: read as [`crate::family::Family::NAMES`] is.
    pub names: &'static [Rule],
}

/// A line of the table. Keys lack the architecture before them, but for those that begin with `tokenizer.`.
#[derive(Clone, Copy, Debug)]
pub enum Field {
    /// The field is the first of these keys that is there; one of them has to be.
    Need(&'static str, &'static [&'static str]),
    /// The field is the first of these keys that is there; left out if none is.
    May(&'static str, &'static [&'static str]),
    /// As [`Field::May`], but null if none is: what the field is left out for means something else.
    OrNull(&'static str, &'static [&'static str]),
    /// The field, which files do not state because llama.cpp knows it by the architecture.
    Always(&'static str, Fixed),
    /// A key that may have this value only: nothing else is done here.
    Only(&'static str, Fixed),
    /// A key that changes nothing.
    Unread(&'static str),
    /// The field is the number of rows of a tensor; where it is not there, the length of a list, or 0.
    Rows(&'static str, &'static str, &'static str),
    /// The field is the first of these keys that is there, less the last one.
    Less(&'static str, &'static [&'static str], &'static str),
    /// The field is whether this tensor is not there.
    Absent(&'static str, &'static str),
    /// The field is whether this tensor is there.
    Present(&'static str, &'static str),
    /// `head_dim`, stated or not; values and rotated parts of heads have to be as large.
    HeadDim,
    /// `rope_parameters`, from the keys and the tensor that say how positions turn.
    Rope,
    /// YaRN's `mscale` and `mscale_all_dim`, equal to each other, from a tenth of them.
    YarnLog,
    /// `topk_method` by the number of groups of experts.
    Groups,
    /// `eos_token_id`: the end of a text, and the end of a turn where that is another token.
    Ends,
}

/// A value that stands in a table.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Fixed {
    /// A string.
    Text(&'static str),
    /// A number.
    Number(f64),
    /// True or false.
    Flag(bool),
}

use Field::{Absent, Always, Ends, HeadDim, May, Need, Only, Rope, Rows, Unread};

/// The tensor that divides the frequencies of rotary positions.
pub(crate) const ROPE_FREQS: &str = "rope_freqs.weight";
/// Tensors that say something about the configuration and are no parameters.
pub(crate) const READ_BY_CONFIG: &[&str] = &[ROPE_FREQS];

/// Of every model: its vocabulary, and keys that change nothing.
pub(crate) const COMMON: &[Field] = &[
    Rows("vocab_size", "token_embd.weight", "tokenizer.ggml.tokens"),
    May("bos_token_id", &["tokenizer.ggml.bos_token_id"]),
    May("pad_token_id", &["tokenizer.ggml.padding_token_id"]),
    Ends,
    Unread("vocab_size"),
    Unread("pooling_type"),
    Unread("tensor_data_layout"),
];

/// Of decoders with RMS norm, rotary positions and gated feed-forward blocks.
pub(crate) const DECODER: &[Field] = &[
    Need("num_hidden_layers", &["block_count"]),
    Need("hidden_size", &["embedding_length"]),
    Need("intermediate_size", &["feed_forward_length"]),
    Need("max_position_embeddings", &["context_length"]),
    Need("num_attention_heads", &["attention.head_count"]),
    Need("rms_norm_eps", &["attention.layer_norm_rms_epsilon"]),
    Always("hidden_act", Fixed::Text("silu")),
    Absent("tie_word_embeddings", "output.weight"),
    Rope,
];

/// Of those whose attention groups queries.
pub(crate) const GROUPED: &[Field] = &[
    Need("num_key_value_heads", &["attention.head_count_kv", "attention.head_count"]),
    HeadDim,
    May("is_causal", &["attention.causal"]),
];

/// Of those without experts.
pub(crate) const DENSE: &[Field] =
    &[Only("expert_count", Fixed::Number(0.)), Only("expert_used_count", Fixed::Number(0.))];
