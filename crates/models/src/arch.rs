//! An architecture as data: everything that a model file decides, and nothing that computes.

use phyla_nn::{EmbeddingSpec, LayerSpec, NormSpec, SublayerSpec};

/// What shapes a model.
#[derive(Clone, Debug, PartialEq)]
pub struct Arch {
    /// Token vectors.
    pub tokens: EmbeddingSpec,
    /// Learned position vectors, added to the token vectors.
    pub positions: Option<EmbeddingSpec>,
    /// What `token_type_ids` add.
    pub token_types: Option<TokenTypes>,
    /// Dropout on the sum of the vectors.
    pub dropout: f32,
    /// The layers, first to last.
    pub layers: Vec<LayerSpec>,
    /// The norm after the last layer.
    pub final_norm: Option<NormSpec>,
    /// From the residual stream to the vocabulary.
    pub head: Head,
    /// Whether a token sees only what came before it.
    pub causal: bool,
    /// Positions that the model was made for.
    pub context: usize,
    /// Whether more than `context` positions are an error (learned positions) or only untested (rotary ones).
    pub context_is_hard: bool,
}

/// Where vectors of token types come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TokenTypes {
    /// They are token ids themselves (GPT-2).
    TokenTable,
}

/// The language-model head.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Head {
    /// Shares the token table.
    Tied,
    /// A map of its own.
    Own {
        /// Standard deviation of a fresh weight.
        std: f32,
    },
}

impl Head {
    /// Tied or not, as `tie_word_embeddings` says.
    pub fn tied_if(tied: bool, std: f32) -> Self {
        if tied { Self::Tied } else { Self::Own { std } }
    }
}

/// Dropout in place of the configuration's; absent ones stay as they are.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Dropouts {
    /// On attention weights.
    pub attention: Option<f32>,
    /// On each sublayer's result, before it joins the residual stream.
    pub residual: Option<f32>,
    /// On the embeddings.
    pub embedding: Option<f32>,
}

impl Arch {
    /// Replaces dropout probabilities.
    pub fn set_dropouts(&mut self, dropouts: Dropouts) {
        self.dropout = dropouts.embedding.unwrap_or(self.dropout);
        for layer in &mut self.layers {
            layer.dropout = dropouts.residual.unwrap_or(layer.dropout);
            for sublayer in &mut layer.sublayers {
                if let SublayerSpec::Attention(attention) = sublayer {
                    attention.dropout = dropouts.attention.unwrap_or(attention.dropout);
                }
            }
        }
    }

    /// A causal decoder over rotary positions; learned ones are an option.
    pub fn decoder(vocab: usize, hidden: usize, context: usize, std: f32) -> Self {
        Self {
            tokens: EmbeddingSpec { rows: vocab, dim: hidden, std, padding: None },
            positions: None,
            token_types: None,
            dropout: 0.,
            layers: vec![],
            final_norm: None,
            head: Head::Tied,
            causal: true,
            context,
            context_is_hard: false,
        }
    }

    /// Numbers that a cache of keys and values keeps for each token; it keeps them in f32.
    pub fn cache_numbers(&self) -> usize {
        let of = |sublayer: &SublayerSpec| match sublayer {
            SublayerSpec::Attention(attention) => 2 * attention.kv_heads * attention.head_dim,
            SublayerSpec::Mlp(_) => 0,
        };
        self.layers.iter().flat_map(|layer| &layer.sublayers).map(of).sum()
    }

    /// Size of the vocabulary.
    pub fn vocab(&self) -> usize {
        self.tokens.rows
    }

    /// Size of the residual stream.
    pub fn hidden(&self) -> usize {
        self.tokens.dim
    }
}
