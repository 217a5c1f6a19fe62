//! The Transformer of 2017, as Vaswani et al. describe it in "Attention Is All You Need": the one from which every other
//! family here departs.
//!
//! An encoder reads a text, a decoder writes another (section 3.1). This page walks through the paper's sections and answers
//! the four questions that everybody asks; each answer is a test in `tests/attention_questions.rs` that anybody can
//! run and change, and `docs/handbook/transformer-2017.md` tells the same at more length.
//!
//! **3.1 Stacks.** Six layers each; a sublayer's result is added to what it read, and the sum is normalised:
//! `LayerNorm(x + Sublayer(x))`. That is post-norm, [`Residual::PostNorm`]. With `norm` = `"pre"` it is `x +
//! Sublayer(LayerNorm(x))` and one more norm ends each stack: what most later models do, since deep stacks train without
//! warm-up then.
//!
//! **3.2.1 Scaled dot-product attention.** `softmax(q kᵀ / √d) v`.
//!
//! - *Why divide by √d?* Components of q and k with variance 1 make a dot product of variance d. Scores of that size push the
//!   softmax to one key, where its gradient is next to 0. Test: `dividing_by_the_root_of_d_keeps_the_softmax_trainable`.
//!
//! **3.2.2 Multi-head attention.** `heads` projections of size `d = d_model / heads`, side by side.
//!
//! - *Split into heads before or after the projection?* The same numbers: one matrix `[d_model, d_model]` whose result is cut
//!   into heads is all the heads' matrices, stacked. We multiply once and cut. Test:
//!   `splitting_before_or_after_the_projection_is_the_same`.
//! - *Why not fold `W_q W_kᵀ` into one matrix?* Scores depend on the product alone. But it is `d_model × d_model` for each head
//!   while its rank is at most d: more weights that say less, no keys of d numbers to keep in a cache, and no place for a
//!   rotation in between. Test: `the_product_of_wq_and_wk_has_the_rank_of_a_head`.
//!
//! **3.2.3 Three places for attention.** The encoder sees all of its text, the decoder what it has written so far, and in
//! between the decoder sees all of the source.
//!
//! - *What do their masks hide?* Padding of the source, hidden twice: from the encoder and from the decoder's look at it; and
//!   the future, from the decoder alone. Test: `the_three_masks_of_an_encoder_decoder`.
//!
//! **3.3 Feed-forward.** `max(0, x W₁ + b₁) W₂ + b₂`, at each position by itself.
//!
//! **3.4 Embeddings.** Times √d_model; the head is the same table, without that factor. `share_embeddings` = `"all"`: source,
//! target and head are one; `"decoder"`: target and head; `"none"`: each has its own.
//!
//! **3.5 Positions.** Sines and cosines of falling frequency, added ([`Sinusoids::Interleaved`]).
//!
//! **5.4 Regularisation.** Dropout on each sublayer's result and on the sum of embedding and position; the other two
//! places are those of tensor2tensor.
//!
//! The paper does not say how weights begin. Post-norm is sensitive to it; usual are Xavier's uniform bounds for linear
//! maps ([`Draw::Xavier`]), and √(1/d_model) for tables, so that an embedding times √d_model has variance 1, as the sines
//! and cosines beside it have ½.

use phyla_nn::{
    Act, AttentionSpec, Draw, EmbedSpec, EmbeddingSpec, LayerSpec, LinearSpec, MlpSpec, NormSpec, Output, Positions,
    Residual, Sinusoids, SublayerSpec, TiedBias, TokenTable, TowerSpec,
};
use serde::{Deserialize, Serialize};

use crate::arch::lm;
use crate::config::{self, ConfigError, count, invalid};
use crate::family::Family;
use crate::names::{Rule, whole};
use crate::{Arch, Task, Towers, Wanted};

/// `config.json`, field for field; the defaults are the paper's base model.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default)]
pub struct Config {
    vocab_size: usize,
    /// The target's, where it differs.
    target_vocab_size: Option<usize>,
    d_model: usize,
    heads: usize,
    d_ff: usize,
    encoder_layers: usize,
    decoder_layers: usize,
    /// Length of the texts it was trained on; the positions go on.
    max_position_embeddings: usize,
    /// `"post"` or `"pre"`.
    norm: String,
    layer_norm_eps: f64,
    /// `"all"`, `"decoder"` or `"none"`.
    share_embeddings: String,
    /// Whether q, k, v and the map back have biases.
    attention_bias: bool,
    dropout: f64,
    attention_dropout: f64,
    activation_dropout: f64,
    pad_token_id: Option<i64>,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            vocab_size: 37_000,
            target_vocab_size: None,
            d_model: 512,
            heads: 8,
            d_ff: 2048,
            encoder_layers: 6,
            decoder_layers: 6,
            max_position_embeddings: 512,
            norm: "post".into(),
            layer_norm_eps: 1e-6,
            share_embeddings: "all".into(),
            attention_bias: false,
            dropout: 0.1,
            attention_dropout: 0.,
            activation_dropout: 0.,
            pad_token_id: None,
        }
    }
}

impl Family for Config {
    const MODEL_TYPE: &'static str = "transformer";
    const ARCHITECTURES: &'static [(Task, &'static str)] =
        &[(Task::Seq2SeqLm, "TransformerForConditionalGeneration"), (Task::Base, "TransformerModel")];
    const NAMES: &'static [Rule] = &[
        whole("tokens", "embed_tokens"),
        whole("encoder.tokens", "encoder.embed_tokens"),
        whole("encoder.layers.{}.attn.q", "encoder.layers.{}.self_attn.q_proj"),
        whole("encoder.layers.{}.attn.k", "encoder.layers.{}.self_attn.k_proj"),
        whole("encoder.layers.{}.attn.v", "encoder.layers.{}.self_attn.v_proj"),
        whole("encoder.layers.{}.attn.o", "encoder.layers.{}.self_attn.o_proj"),
        whole("encoder.layers.{}.attn_norm", "encoder.layers.{}.self_attn_norm"),
        whole("encoder.layers.{}.mlp.up", "encoder.layers.{}.ffn.up"),
        whole("encoder.layers.{}.mlp.down", "encoder.layers.{}.ffn.down"),
        whole("encoder.layers.{}.mlp_norm", "encoder.layers.{}.ffn_norm"),
        whole("encoder.norm", "encoder.norm"),
        whole("decoder.tokens", "decoder.embed_tokens"),
        whole("decoder.layers.{}.attn.q", "decoder.layers.{}.self_attn.q_proj"),
        whole("decoder.layers.{}.attn.k", "decoder.layers.{}.self_attn.k_proj"),
        whole("decoder.layers.{}.attn.v", "decoder.layers.{}.self_attn.v_proj"),
        whole("decoder.layers.{}.attn.o", "decoder.layers.{}.self_attn.o_proj"),
        whole("decoder.layers.{}.attn_norm", "decoder.layers.{}.self_attn_norm"),
        whole("decoder.layers.{}.cross.q", "decoder.layers.{}.cross_attn.q_proj"),
        whole("decoder.layers.{}.cross.k", "decoder.layers.{}.cross_attn.k_proj"),
        whole("decoder.layers.{}.cross.v", "decoder.layers.{}.cross_attn.v_proj"),
        whole("decoder.layers.{}.cross.o", "decoder.layers.{}.cross_attn.o_proj"),
        whole("decoder.layers.{}.cross_norm", "decoder.layers.{}.cross_attn_norm"),
        whole("decoder.layers.{}.mlp.up", "decoder.layers.{}.ffn.up"),
        whole("decoder.layers.{}.mlp.down", "decoder.layers.{}.ffn.down"),
        whole("decoder.layers.{}.mlp_norm", "decoder.layers.{}.ffn_norm"),
        whole("decoder.norm", "decoder.norm"),
        whole("head", "lm_head"),
    ];
    const PREFIX: &'static str = "";

    fn arch(&self, wanted: &Wanted) -> Result<Arch, ConfigError> {
        let target = self.check()?;
        let (hidden, std) = (self.d_model, (self.d_model as f32).powf(-0.5));
        let table = |rows| TokenTable::Own(EmbeddingSpec { rows, dim: hidden, std, padding: None });
        let own = LinearSpec { input: hidden, output: target, bias: false, std };
        let tied = Output::Tied { bias: TiedBias::None };
        let (source_table, target_table, output) = match self.share_embeddings.as_str() {
            "all" if target == self.vocab_size => (TokenTable::Shared, TokenTable::Shared, tied),
            "all" => {
                let found = format!("one table cannot serve {} and {target} tokens", self.vocab_size);
                return Err(invalid("share_embeddings", found));
            }
            "decoder" => (table(self.vocab_size), table(target), tied),
            "none" => (table(self.vocab_size), table(target), Output::Own(own)),
            other => {
                return Err(invalid("share_embeddings", format!("expected all, decoder or none, found {other:?}")));
            }
        };
        let mut arch = Arch::both(self.vocab_size, hidden, self.max_position_embeddings, std);
        arch.draw = Draw::Xavier;
        arch.towers = Towers::Both {
            encoder: Box::new(self.tower(source_table, self.encoder_layers, false)?),
            decoder: self.tower(target_table, self.decoder_layers, true)?,
        };
        if wanted.task == Task::Seq2SeqLm {
            arch.heads = vec![lm(output)];
        }
        Ok(arch)
    }
}

impl Config {
    fn tower(&self, tokens: TokenTable, layers: usize, decoder: bool) -> Result<TowerSpec, ConfigError> {
        let hidden = self.d_model;
        let norm = NormSpec::Layer { eps: self.layer_norm_eps };
        let dropout = config::probability("dropout", self.dropout)?;
        let residual = match self.norm.as_str() {
            "post" => Residual::PostNorm,
            "pre" => Residual::PreNorm,
            other => return Err(invalid("norm", format!("expected post or pre, found {other:?}"))),
        };
        // Xavier's bounds need no standard deviation.
        let attention = AttentionSpec {
            qkv_bias: self.attention_bias,
            o_bias: self.attention_bias,
            dropout: config::probability("attention_dropout", self.attention_dropout)?,
            ..AttentionSpec::grouped(hidden, self.heads, self.heads, hidden / self.heads, 0.)
        };
        let mlp = MlpSpec {
            dropout: config::probability("activation_dropout", self.activation_dropout)?,
            ..MlpSpec::plain(hidden, self.d_ff, Act::Relu, 0.)
        };
        let mut sublayers = vec![attention.clone().into(), mlp.into()];
        if decoder {
            sublayers.insert(1, SublayerSpec::Cross(attention));
        }
        let embed = EmbedSpec {
            tokens,
            scale: (hidden as f32).sqrt(),
            positions: Positions::Sinusoids { dim: hidden, order: Sinusoids::Interleaved },
            dropout,
            ..EmbedSpec::default()
        };
        Ok(TowerSpec {
            embed,
            layers: vec![LayerSpec { dropout, residual, ..LayerSpec::pre_norm(hidden, norm, sublayers) }; layers],
            final_norm: (residual == Residual::PreNorm).then_some(norm),
            ..TowerSpec::new(hidden, decoder)
        })
    }

    /// The target's vocabulary, if all sizes are in order.
    fn check(&self) -> Result<usize, ConfigError> {
        count("vocab_size", self.vocab_size, "vocabulary")?;
        count("d_model", self.d_model, "size")?;
        count("d_ff", self.d_ff, "size")?;
        count("encoder_layers", self.encoder_layers, "layers")?;
        count("decoder_layers", self.decoder_layers, "layers")?;
        count("max_position_embeddings", self.max_position_embeddings, "positions")?;
        config::divides("heads", self.heads, "d_model", self.d_model)?;
        config::padding(self.pad_token_id, self.vocab_size)?;
        count("target_vocab_size", self.target_vocab_size.unwrap_or(self.vocab_size), "vocabulary")
    }
}
