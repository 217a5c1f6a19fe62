//! The blocks of every transformer: each a specification (plain data) and what is built from it.
//!
//! A specification says everything that shapes a block; [`Scope`] hands a block its parameters by path, from a
//! checkpoint or freshly drawn; `forward` takes the activations and a [`Pass`], which holds what belongs to one
//! forward pass: positions, mask, cache, randomness.

mod attention;
mod cache;
mod embedding;
mod layer;
mod linear;
mod mask;
mod mlp;
mod norm;
mod pass;
pub mod pattern;
mod rope;
mod source;
mod stack;

pub use attention::{Attention, AttentionSpec};
pub use cache::{Cache, CacheRows};
pub use embedding::{Embedding, EmbeddingSpec};
pub use layer::{Layer, LayerSpec, Residual, Sublayer, SublayerSpec};
pub use linear::{Linear, LinearSpec};
pub use mask::Mask;
pub use mlp::{Mlp, MlpSpec};
pub use norm::{Norm, NormSpec};
pub use pass::{Pass, Randomness};
pub use phyla_ops::activation::Act;
pub use phyla_ops::rope::Style;
pub use rope::{RopeScaling, RopeSpec};
pub use source::{Init, Scope, Source};
pub use stack::Stack;
