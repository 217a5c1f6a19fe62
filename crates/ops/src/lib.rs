//! Differentiable tensor operations: fused kernels on the CPU, candle compositions elsewhere.
//!
//! Every operation is one file with a fast path (forward and backward through `phyla-kernels`) and a plain
//! reference in candle's own operations. The reference is what runs on other devices, where candle
//! differentiates it, and what the tests hold the fast path against; see [`plain`].

pub mod activation;
pub mod attention;
pub mod balance;
pub mod checkpoint;
pub mod choice;
pub mod columns;
pub mod conv;
pub mod cpu;
pub mod disentangled;
pub mod distillation;
pub mod elementwise;
pub mod embedding;
pub mod experts;
pub mod heads;
pub mod lead;
pub mod linear;
mod logits;
pub mod loss;
pub mod lstm;
pub mod norm;
mod orthogonality;
mod paged;
mod param;
pub mod plain;
pub mod regression;
pub mod relative;
pub mod rope;
pub mod route;
pub mod rows;
mod tensor;
mod weight;

/// Plain numbers: candle's tensor. Ours, [`Tensor`], adds the history.
pub type Data = candle_core::Tensor;

pub use activation::{activate, gated};
pub use attention::{AttentionArgs, Visibility, attention, attention_weights};
pub use balance::{Balance, balance, load_balance};
pub use checkpoint::checkpoint;
pub use choice::{choices, linear_choices};
pub use columns::scale_columns;
pub use conv::{Conv1d, conv1d};
pub use disentangled::{RelativeIndex, disentangled_bias};
pub use distillation::{Distillation, Told, distillation, linear_distillation};
pub use elementwise::{Dropout, add, attach, disturb, dropout, jitter, reduced, scale};
pub use embedding::embedding;
pub use experts::{Group, combine, dispatch, group_by_expert};
pub use heads::{per_head_down, per_head_up};
pub use lead::prepend;
pub use linear::{invariant_rows, linear, linear_act};
pub use loss::{CrossEntropy, cross_entropy, linear_cross_entropy};
pub use lstm::lstm;
pub use norm::{layer_norm, rms_norm};
pub use orthogonality::{Directions, orthogonality};
pub use paged::{Pages, attention_paged};
pub use param::Param;
pub use phyla_kernels::divergence::Divergence;
pub use phyla_kernels::product::{MatRef, Precision};
pub use regression::{bce_with_logits, mse};
pub use relative::{RelativeBuckets, relative_bias};
pub use rope::{RopeRows, rope};
pub use route::{Groups, Routed, Routing, route};
pub use rows::{broadcast_heads, concat_last, gather_rows, keep_rows, scale_rows, split_last, split_rows};
pub(crate) use tensor::alike;
pub use tensor::{InputGrads, Tensor, in_any_company, no_grad, recording};
pub use weight::{INT8, Mapped, Quantised, Weight, int8_room};
