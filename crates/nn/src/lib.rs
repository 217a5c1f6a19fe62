//! The blocks of every transformer: each a specification (plain data) and what is built from it.
//!
//! A specification says everything that shapes a block; [`Scope`] hands a block its parameters by path, from a
//! checkpoint or freshly drawn; `forward` takes the activations and a [`Pass`], which holds what belongs to one
//! forward pass: positions, mask, cache, randomness.

pub mod adapter;
mod attention;
mod cache;
mod conv;
mod disentangled;
mod embed;
mod embedding;
mod head;
mod layer;
mod lead;
mod linear;
mod mask;
mod memory;
mod mla;
mod mlp;
mod moe;
mod norm;
mod pass;
pub mod pattern;
mod relative;
mod rope;
mod source;
mod stack;
mod talking;
mod tower;

pub use attention::{Attention, AttentionSpec};
pub use cache::{Block, Cache, CacheRows, CacheSpec, Kept, Keys, Prefix, PrefixLayout, Seen, SinkSpec, Takeover};
pub use conv::{Conv, ConvSpec};
pub use disentangled::{Disentangled, DisentangledSpec, Positional};
pub use embed::{Embed, EmbedSpec, Positions, Sinusoids, TokenTable, TokenTypes};
pub use embedding::{Embedding, EmbeddingSpec};
pub use head::{Emits, Head, HeadSpec, Output, Reads, TiedBias, Transform, TransformSpec};
pub use layer::{Layer, LayerSpec, Residual, Sublayer, SublayerSpec};
pub use lead::Lead;
pub use linear::{Linear, LinearSpec};
pub use mask::Mask;
pub use memory::Memory;
pub use mla::{Mla, MlaSpec};
pub use mlp::{Mlp, MlpSpec};
pub use moe::{BalanceSpec, Moe, MoeSpec, SharedSpec};
pub use norm::{Norm, NormSpec};
pub use pass::{Attentions, Ledger, Pass, Randomness};
pub use phyla_ops::RelativeBuckets;
pub use phyla_ops::activation::Act;
pub use phyla_ops::rope::Style;
pub use phyla_ops::{Groups, Routing};
pub use relative::{Distances, Relative, RelativeBias, RelativeSpec};
pub use rope::{RopeScaling, RopeSpec};
pub use source::{Draw, Init, Scope, Source};
pub use stack::Stack;
pub use tower::{Tower, TowerSpec};
