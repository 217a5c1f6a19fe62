//! An architecture as data: everything that a model file decides, and nothing that computes.

use phyla_nn::{
    Draw, EmbeddingSpec, Emits, HeadSpec, LinearSpec, MoeSpec, Output, Reads, SublayerSpec, TiedBias, TokenTable,
    TowerSpec, TransformSpec,
};

use crate::task::{Task, Wanted};

/// What shapes a model.
#[derive(Clone, Debug, PartialEq)]
pub struct Arch {
    /// The table of token vectors that towers share.
    pub tokens: EmbeddingSpec,
    /// What runs.
    pub towers: Towers,
    /// What BERT's heads read: a map of the first token's state.
    pub pooler: Option<TransformSpec>,
    /// What becomes of the last hidden state.
    pub heads: Vec<HeadSpec>,
    /// What the heads answer.
    pub task: Task,
    /// Where tokens stand if nobody says so.
    pub position_ids: PositionIds,
    /// Factor on the loss that keeps the choices of experts even over all layers together, in training.
    pub router_loss: Option<f32>,
    /// What a decoder reads if nobody says so; without it, somebody has to.
    pub shift: Option<Shift>,
    /// How fresh linear maps are drawn.
    pub draw: Draw,
    /// Positions that the model was made for.
    pub context: usize,
    /// Whether more than `context` positions are an error (learned positions) or only untested (rotary ones).
    pub context_is_hard: bool,
}

/// The branches of the family tree.
#[derive(Clone, Debug, PartialEq)]
pub enum Towers {
    /// Reads a text, every token seeing all others.
    Encoder(TowerSpec),
    /// Writes a text, every token seeing those before it.
    Decoder(TowerSpec),
    /// Reads one text, writes another.
    Both {
        /// Reads.
        encoder: Box<TowerSpec>,
        /// Writes, attending to what the encoder says.
        decoder: TowerSpec,
    },
}

/// Where tokens stand if nobody says so.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PositionIds {
    /// 0, 1, 2, … in each row.
    Counted,
    /// `pad + 1`, `pad + 2`, … over the tokens that are not `pad`, which stand at `pad` itself (RoBERTa).
    AfterPadding {
        /// `pad_token_id`.
        pad: u32,
    },
}

impl PositionIds {
    /// The position of a text's first token.
    pub fn first(self) -> u32 {
        match self {
            Self::Counted => 0,
            Self::AfterPadding { pad } => pad + 1,
        }
    }
}

/// How a decoder's input is made of the text that it is to write: everything moves by one, and the first place is free
/// for another token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shift {
    /// For this one, whatever the text.
    Start(u32),
    /// For the row's last token that is not padding: the name of its language (mBART).
    Last {
        /// `pad_token_id`.
        pad: u32,
    },
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

/// How the tensors of an attention divide into heads.
#[derive(Clone, Copy, Debug)]
pub(crate) struct HeadsApart {
    /// The heads of a tensor that interleaves queries, keys and values.
    pub count: usize,
    /// The size of a head whose rows are stored in another order.
    pub dim: usize,
}

impl Arch {
    /// A causal decoder over rotary positions; learned ones are an option.
    pub fn decoder(vocab: usize, hidden: usize, context: usize, std: f32) -> Self {
        Self::over(Towers::Decoder(TowerSpec::new(hidden, true)), vocab, hidden, context, std)
    }

    /// An encoder.
    pub fn encoder(vocab: usize, hidden: usize, context: usize, std: f32) -> Self {
        Self::over(Towers::Encoder(TowerSpec::new(hidden, false)), vocab, hidden, context, std)
    }

    /// An encoder and a decoder of the same size.
    pub fn both(vocab: usize, hidden: usize, context: usize, std: f32) -> Self {
        let towers =
            Towers::Both { encoder: Box::new(TowerSpec::new(hidden, false)), decoder: TowerSpec::new(hidden, true) };
        Self::over(towers, vocab, hidden, context, std)
    }

    fn over(towers: Towers, vocab: usize, hidden: usize, context: usize, std: f32) -> Self {
        Self {
            tokens: EmbeddingSpec { rows: vocab, dim: hidden, std, padding: None },
            towers,
            pooler: None,
            heads: vec![],
            task: Task::Base,
            position_ids: PositionIds::Counted,
            router_loss: None,
            shift: None,
            draw: Draw::Normal,
            context,
            context_is_hard: false,
        }
    }

    /// The tower whose last state the heads read.
    pub fn main(&self) -> &TowerSpec {
        match &self.towers {
            Towers::Encoder(tower) | Towers::Decoder(tower) | Towers::Both { decoder: tower, .. } => tower,
        }
    }

    /// As [`Arch::main`], to be changed.
    pub fn main_mut(&mut self) -> &mut TowerSpec {
        match &mut self.towers {
            Towers::Encoder(tower) | Towers::Decoder(tower) | Towers::Both { decoder: tower, .. } => tower,
        }
    }

    /// The encoder of an encoder-decoder.
    pub fn source(&self) -> Option<&TowerSpec> {
        match &self.towers {
            Towers::Both { encoder, .. } => Some(encoder),
            _ => None,
        }
    }

    /// All towers, with the paths of their parameters.
    pub fn towers(&self) -> Vec<(&'static str, &TowerSpec)> {
        match &self.towers {
            Towers::Encoder(tower) => vec![("encoder", tower)],
            Towers::Decoder(tower) => vec![("decoder", tower)],
            Towers::Both { encoder, decoder } => vec![("encoder", encoder), ("decoder", decoder)],
        }
    }

    /// As [`Arch::towers`], to be changed.
    pub fn towers_mut(&mut self) -> Vec<&mut TowerSpec> {
        match &mut self.towers {
            Towers::Encoder(tower) | Towers::Decoder(tower) => vec![tower],
            Towers::Both { encoder, decoder } => vec![encoder, decoder],
        }
    }

    /// Puts mixtures of experts in the place of feed-forward blocks, in the layers for which there is one.
    pub fn mix(&mut self, mixture: impl Fn(usize) -> Option<MoeSpec>) {
        for (index, layer) in self.main_mut().layers.iter_mut().enumerate() {
            for sublayer in &mut layer.sublayers {
                if let (SublayerSpec::Mlp(_), Some(moe)) = (&*sublayer, mixture(index)) {
                    *sublayer = moe.into();
                }
            }
        }
    }

    /// Replaces dropout probabilities.
    pub fn set_dropouts(&mut self, dropouts: Dropouts) {
        for tower in self.towers_mut() {
            tower.embed.dropout = dropouts.embedding.unwrap_or(tower.embed.dropout);
            if let Some(conv) = &mut tower.conv {
                conv.dropout = dropouts.residual.unwrap_or(conv.dropout);
            }
            for layer in &mut tower.layers {
                layer.dropout = dropouts.residual.unwrap_or(layer.dropout);
                for sublayer in &mut layer.sublayers {
                    match sublayer {
                        SublayerSpec::Attention(attention) | SublayerSpec::Cross(attention) => {
                            attention.dropout = dropouts.attention.unwrap_or(attention.dropout);
                        }
                        SublayerSpec::Disentangled(attention) => {
                            attention.dropout = dropouts.attention.unwrap_or(attention.dropout);
                            attention.pos_dropout = dropouts.residual.unwrap_or(attention.pos_dropout);
                        }
                        _ => {}
                    }
                }
            }
        }
    }

    /// The language-model head, if there is one.
    pub fn lm_head(&self) -> Option<&HeadSpec> {
        self.heads.iter().find(|head| head.is_lm())
    }

    /// Path of the token table that the main tower reads.
    pub fn table(&self) -> &'static str {
        match self.main().embed.tokens {
            TokenTable::Shared => "tokens.weight",
            TokenTable::Own(_) => "decoder.tokens.weight",
        }
    }

    /// Whether the language-model head is the token table.
    pub fn tied(&self) -> bool {
        self.lm_head().is_some_and(|head| matches!(head.output, Output::Tied { .. }))
    }

    /// Gives the language-model head a map of its own.
    pub fn untie(&mut self) {
        // The size of the table's vectors may be another than that of the residual stream.
        let input = match self.main().embed.tokens {
            TokenTable::Shared => self.tokens.dim,
            TokenTable::Own(table) => table.dim,
        };
        let linear = LinearSpec { input, output: self.vocab(), bias: false, std: self.tokens.std };
        for head in self.heads.iter_mut().filter(|head| head.is_lm()) {
            if let Output::Tied { bias } = head.output {
                head.output = match bias {
                    TiedBias::Fixed => Output::Buffered(linear),
                    bias => Output::Own(LinearSpec { bias: bias != TiedBias::None, ..linear }),
                };
            }
        }
    }

    /// The heads of the tensors that checkpoints cut or order head by head.
    pub(crate) fn heads_apart(&self) -> HeadsApart {
        let sublayers = self.main().layers.first().map(|layer| layer.sublayers.as_slice()).unwrap_or_default();
        let heads = sublayers.iter().find_map(|sublayer| match sublayer {
            SublayerSpec::Disentangled(attention) => Some(HeadsApart { count: attention.heads, dim: 1 }),
            SublayerSpec::Attention(attention) => Some(HeadsApart { count: 1, dim: attention.head_dim }),
            _ => None,
        });
        heads.unwrap_or(HeadsApart { count: 1, dim: 1 })
    }

    /// Numbers that a cache of keys and values keeps for each token; it keeps them in f32.
    pub fn cache_numbers(&self) -> usize {
        if matches!(self.towers, Towers::Encoder(_)) {
            return 0;
        }
        self.main().layers.iter().flat_map(|layer| &layer.sublayers).map(SublayerSpec::cache_numbers).sum()
    }

    /// Whether tokens come with types.
    pub fn has_token_types(&self) -> bool {
        self.main().embed.token_types != phyla_nn::TokenTypes::None
    }

    /// Size of the vocabulary that the main tower reads and a language-model head writes.
    pub fn vocab(&self) -> usize {
        match self.main().embed.tokens {
            TokenTable::Shared => self.tokens.rows,
            TokenTable::Own(table) => table.rows,
        }
    }

    /// Size of the residual stream.
    pub fn hidden(&self) -> usize {
        self.main().hidden
    }
}

/// The heads of a decoder, as transformers' generic classes have them.
pub(crate) fn decoder_heads(arch: &Arch, wanted: &Wanted, tied: bool, pad: Option<u32>) -> Vec<HeadSpec> {
    let linear = |output, bias| LinearSpec { input: arch.hidden(), output, bias, std: arch.tokens.std };
    match wanted.task {
        Task::CausalLm => vec![lm(if tied {
            Output::Tied { bias: TiedBias::None }
        } else {
            Output::Own(linear(arch.vocab(), false))
        })],
        Task::SequenceClassification => {
            vec![HeadSpec { reads: Reads::Last { pad }, ..own("score", linear(wanted.labels, false)) }]
        }
        Task::TokenClassification => vec![own("tags", linear(wanted.labels, true))],
        Task::QuestionAnswering => vec![span(linear(2, true))],
        _ => vec![],
    }
}

/// The language-model head: every token's state to the vocabulary.
pub(crate) fn lm(output: Output) -> HeadSpec {
    HeadSpec {
        name: "head",
        reads: Reads::Tokens,
        scale: 1.,
        transform: None,
        dropout: 0.,
        output,
        emits: Emits::One("logits"),
    }
}

/// A head of one map over every token.
pub(crate) fn own(name: &'static str, linear: LinearSpec) -> HeadSpec {
    HeadSpec { name, ..lm(Output::Own(linear)) }
}

/// The head of question answering.
pub(crate) fn span(linear: LinearSpec) -> HeadSpec {
    HeadSpec { emits: Emits::Pair("start_logits", "end_logits"), ..own("span", linear) }
}
