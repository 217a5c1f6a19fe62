//! What a call gives besides ids and text: scores, log-probabilities, states and attention weights of every step, gathered
//! from what decoding tells of itself (`watch`).

mod layers;
mod recorder;

pub use layers::Layers;
pub(crate) use layers::Seen;
pub(crate) use recorder::Recorder;

/// What is asked for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Wanted {
    /// `output_logits`.
    pub logits: bool,
    /// `output_scores`.
    pub scores: bool,
    /// `output_hidden_states`.
    pub hidden_states: bool,
    /// `output_attentions`.
    pub attentions: bool,
    /// `logprobs`, with so many alternatives (`top_logprobs`).
    pub logprobs: Option<usize>,
}

impl Wanted {
    /// Whether anything is.
    pub fn any(self) -> bool {
        self != Self::default()
    }

    /// Whether it is something of the layers: then prompts are read in one pass.
    pub(crate) fn layers(self) -> bool {
        self.hidden_states || self.attentions
    }
}

/// What was asked for of one sequence; the rest is empty. Number `t` of a list is about id `t` of the sequence: what was known
/// when it was picked. Of a search it is what the beams say that the sequence came from, as transformers' values are when one
/// follows its `beam_indices`.
///
/// Logits and scores take four bytes for each id of the vocabulary, at every step; attention weights of a prompt take four
/// bytes for each head, layer and pair of tokens: 1,000 tokens in 24 layers of 16 heads are 1.5 GB.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Outputs {
    /// The model's logits, `[ids][vocabulary]`.
    pub logits: Vec<Vec<f32>>,
    /// What the processors left, `[ids][vocabulary]`: logits or, of a search, log-probabilities; minus infinity is ruled out.
    pub scores: Vec<Vec<f32>>,
    /// How likely each id was.
    pub logprobs: Vec<Logprob>,
    /// What enters and what leaves the layers (of the decoder, if there are two towers), the last one behind the final norm:
    /// `[ids][layers + 1]` of `[tokens, hidden]`. With the first id come those of the whole prompt, with others one token's.
    pub hidden_states: Vec<Vec<Array>>,
    /// The weights of attention, `[ids][layers]` of `[heads, tokens, keys]`; a key is a token so far.
    pub attentions: Vec<Vec<Array>>,
    /// Those of attention over the encoder's states, `[ids][layers]` of `[heads, tokens, source]`.
    pub cross_attentions: Vec<Vec<Array>>,
    /// The encoder's states, `[layers + 1]` of `[source, hidden]`.
    pub encoder_hidden_states: Vec<Array>,
    /// The encoder's weights, `[layers]` of `[heads, source, source]`.
    pub encoder_attentions: Vec<Array>,
}

/// How likely an id was, in the eyes of the model: before any processor, and whatever the temperature.
#[derive(Clone, Debug, PartialEq)]
pub struct Logprob {
    /// The id.
    pub id: u32,
    /// Natural logarithm of its probability.
    pub logprob: f32,
    /// The likeliest ids of the step with theirs, likeliest first; the id itself is among them only if it is so likely.
    pub top: Vec<(u32, f32)>,
}

/// Numbers in the order of their places, the last dimension's side by side.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Array {
    /// The sizes of the dimensions.
    pub shape: Vec<usize>,
    /// The numbers.
    pub values: Vec<f32>,
}
