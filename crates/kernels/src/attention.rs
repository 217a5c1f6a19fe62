//! Attention: softmax over scores and a weighted sum of values, forward and backward, without a score matrix in memory.

mod backward;
mod decode;
pub mod disentangled;
mod dropout;
mod exact;
mod forward;
mod layout;
mod multiply;
pub mod reference;
#[cfg(target_arch = "x86_64")]
mod rounded;
#[cfg(test)]
mod tests;
mod tiles;

pub use dropout::Dropped;
use layout::Rows;
pub use layout::{Paged, Strided};

use crate::isa::{Isa, isa};
use crate::product::Precision;
use crate::threads::Shared;

/// Sizes of one attention call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AttentionShape {
    /// Sequences.
    pub batch: usize,
    /// Queries of each sequence.
    pub time_q: usize,
    /// Keys (and values) of each sequence.
    pub keys: usize,
    /// Query heads.
    pub heads: usize,
    /// Key and value heads; divides `heads`; query head `h` reads key head `h / (heads / kv_heads)`.
    pub kv_heads: usize,
    /// Elements of a query or key head.
    pub dim: usize,
    /// Elements of a value head.
    pub v_dim: usize,
}

/// Which keys each query may see: those of its range that are not hidden.
#[derive(Clone, Copy, Debug)]
pub struct Visible<'a> {
    /// `[batch, time_q]`: keys `start..end` of each query (an empty range gives zeros).
    pub ranges: &'a [(u32, u32)],
    /// `[batch, keys]`: 0 hides a key from every query of its sequence.
    pub key_valid: Option<&'a [u8]>,
}

/// Values added to the scores, after scaling and capping.
#[derive(Clone, Copy, Debug)]
pub struct Bias<'a> {
    /// `[1, heads, time_q, keys]`, shared by the batch, or `[batch, heads, time_q, keys]`.
    pub values: &'a [f32],
}

/// Everything but the tensors: `score = softcap(scale * q·k) + bias`, where `softcap(s) = c * tanh(s / c)`; weights
/// `softmax(score)`, some dropped.
#[derive(Clone, Copy, Debug)]
pub struct Attention<'a> {
    /// Sizes.
    pub shape: AttentionShape,
    /// Layout of `k`, unless it lies in pages.
    pub k: Strided,
    /// Layout of `v`, likewise.
    pub v: Strided,
    /// The mask.
    pub visible: Visible<'a>,
    /// Factor on `q·k`, often `1 / sqrt(dim)`.
    pub scale: f32,
    /// Bound on the scaled scores (Gemma 2).
    pub softcap: Option<f32>,
    /// Additive bias (T5's relative positions, ALiBi).
    pub bias: Option<Bias<'a>>,
    /// Dropout on the weights.
    pub dropped: Option<Dropped<'a>>,
    /// How exactly queries, keys, values and weights enter the products.
    pub precision: Precision,
}

impl AttentionShape {
    /// Elements of `q` (and of its gradient): `[batch, time_q, heads, dim]`.
    pub fn q_len(&self) -> usize {
        self.batch * self.time_q * self.heads * self.dim
    }

    /// Elements of the output: `[batch, time_q, heads, v_dim]`.
    pub fn out_len(&self) -> usize {
        self.batch * self.time_q * self.heads * self.v_dim
    }

    /// Elements of the log-sum-exp: `[batch, heads, time_q]`.
    pub fn lse_len(&self) -> usize {
        self.batch * self.heads * self.time_q
    }

    /// Elements of a contiguous `k` (and of its gradient): `[batch, keys, kv_heads, dim]`.
    pub fn k_len(&self) -> usize {
        self.batch * self.keys * self.kv_heads * self.dim
    }

    /// Elements of a contiguous `v` (and of its gradient): `[batch, keys, kv_heads, v_dim]`.
    pub fn v_len(&self) -> usize {
        self.batch * self.keys * self.kv_heads * self.v_dim
    }

    /// The layout of a contiguous `k`.
    pub fn k_contiguous(&self) -> Strided {
        let time = self.kv_heads * self.dim;
        Strided { batch: self.keys * time, time }
    }

    /// The layout of a contiguous `v`.
    pub fn v_contiguous(&self) -> Strided {
        let time = self.kv_heads * self.v_dim;
        Strided { batch: self.keys * time, time }
    }
}

/// The gradients that [`backward`] writes; all but `dbias` are overwritten.
#[derive(Debug)]
pub struct Gradients<'a> {
    /// `[batch, time_q, heads, dim]`.
    pub dq: &'a mut [f32],
    /// `[batch, keys, kv_heads, dim]`, contiguous.
    pub dk: &'a mut [f32],
    /// `[batch, keys, kv_heads, v_dim]`, contiguous.
    pub dv: &'a mut [f32],
    /// Shaped as the bias; added to.
    pub dbias: Option<&'a mut [f32]>,
}

/// `out[b, t, h, :] = Σ_j softmax(score)[j] v[j]`; `lse[b, h, t] = ln Σ_j exp(score[j])` (minus infinity where a
/// query sees nothing), which [`backward`] needs. `q` is contiguous `[batch, time_q, heads, dim]`.
pub fn forward(out: &mut [f32], lse: Option<&mut [f32]>, q: &[f32], k: &[f32], v: &[f32], a: &Attention) {
    a.check(q, k, v, out);
    assert!(lse.as_ref().is_none_or(|l| l.len() == a.shape.lse_len()), "attention: lse must be [batch, heads, time_q]");
    forward_on(isa(), out, lse, q, k, v, a);
}

/// As [`forward`], with keys and values in the pages of a cache. Their numbers are read as f32, whatever they are kept as: the
/// result has the same bits as for the same numbers in one piece.
pub fn forward_paged(out: &mut [f32], q: &[f32], k: Paged, v: Paged, a: &Attention) {
    let s = &a.shape;
    a.check_queries(q, out);
    k.check("k", s, s.dim, a.visible.ranges);
    v.check("v", s, s.v_dim, a.visible.ranges);
    let (out, k, v) = (Shared(out.as_mut_ptr()), Rows::Paged(k), Rows::Paged(v));
    pass_on(isa(), &forward::Pass { a, q, k, v, out, lse: None });
}

/// Gradients of [`forward`], from its output and log-sum-exp; probabilities are computed again, tile by tile.
#[expect(clippy::too_many_arguments, reason = "five inputs of the forward pass and the gradient of its output")]
pub fn backward(g: Gradients, dout: &[f32], q: &[f32], k: &[f32], v: &[f32], out: &[f32], lse: &[f32], a: &Attention) {
    a.check(q, k, v, out);
    let s = &a.shape;
    assert!(dout.len() == s.out_len() && lse.len() == s.lse_len(), "attention: dout or lse has the wrong length");
    assert!(
        g.dq.len() == s.q_len() && g.dk.len() == s.k_len() && g.dv.len() == s.v_len(),
        "attention: a gradient has the wrong length"
    );
    let bias = a.bias.map_or(0, |b| b.values.len());
    assert!(g.dbias.as_ref().is_none_or(|d| d.len() == bias), "attention: dbias must have the bias's shape");
    backward_on(isa(), g, dout, [q, k, v, out, lse], a);
}

fn forward_on(isa: Isa, out: &mut [f32], lse: Option<&mut [f32]>, q: &[f32], k: &[f32], v: &[f32], a: &Attention) {
    let (out, lse) = (Shared(out.as_mut_ptr()), lse.map(|lse| Shared(lse.as_mut_ptr())));
    let (k, v) = (Rows::Whole(k, a.k), Rows::Whole(v, a.v));
    pass_on(isa, &forward::Pass { a, q, k, v, out, lse });
}

fn pass_on(isa: Isa, f: &forward::Pass) {
    let a = f.a;
    // Training drops, decoding does not: the path for few queries need not know how.
    if a.shape.time_q <= decode::FEW && a.dropped.is_none() {
        return decode::run(isa, f);
    }
    #[cfg(target_arch = "x86_64")]
    if a.precision == Precision::Bf16 && isa.has_bf16() {
        return rounded::forward(isa, f);
    }
    forward::run(isa, f);
}

fn backward_on(isa: Isa, g: Gradients, dout: &[f32], [q, k, v, out, lse]: [&[f32]; 5], a: &Attention) {
    let (dq, dk, dv) = (Shared(g.dq.as_mut_ptr()), Shared(g.dk.as_mut_ptr()), Shared(g.dv.as_mut_ptr()));
    let dbias = g.dbias.map(|dbias| Shared(dbias.as_mut_ptr()));
    let g = backward::Gradient { a, dq, dk, dv, dbias, dout, q, k, v, out, lse };
    #[cfg(target_arch = "x86_64")]
    if a.precision == Precision::Bf16 && isa.has_bf16() {
        return rounded::backward(isa, &g);
    }
    backward::run(isa, &g);
}

impl Attention<'_> {
    /// Length checks: everything below indexes by them.
    fn check(&self, q: &[f32], k: &[f32], v: &[f32], out: &[f32]) {
        let s = &self.shape;
        self.check_queries(q, out);
        for (name, data, at, dim) in [("k", k, self.k, s.dim), ("v", v, self.v, s.v_dim)] {
            let row = s.kv_heads * dim;
            assert!(s.keys <= 1 || at.time >= row, "attention: rows of {name} overlap: {at:?}");
            let need = match s.batch * s.keys {
                0 => 0,
                _ => (s.batch - 1) * at.batch + (s.keys - 1) * at.time + row,
            };
            assert!(data.len() >= need, "attention: {name} needs {need} elements under {at:?}, found {}", data.len());
        }
    }

    /// Those of all but the keys and values.
    fn check_queries(&self, q: &[f32], out: &[f32]) {
        let s = &self.shape;
        assert!(
            s.kv_heads > 0 && s.heads.is_multiple_of(s.kv_heads),
            "attention: {} heads over {} key heads",
            s.heads,
            s.kv_heads
        );
        assert!(q.len() == s.q_len(), "attention: q must be {s:?}, found {} elements", q.len());
        assert!(out.len() == s.out_len(), "attention: out must be {s:?}, found {} elements", out.len());
        assert!(self.visible.ranges.len() == s.batch * s.time_q, "attention: one range per query");
        assert!(
            self.visible.ranges.iter().all(|r| r.0 >= r.1 || r.1 as usize <= s.keys),
            "attention: a range ends after the last key"
        );
        assert!(
            self.visible.key_valid.is_none_or(|m| m.len() == s.batch * s.keys),
            "attention: key_valid must be [batch, keys]"
        );
        let plane = s.heads * s.time_q * s.keys;
        assert!(
            self.bias.is_none_or(|b| b.values.len() == plane || b.values.len() == s.batch * plane),
            "attention: bias must be [1 or batch, heads, time_q, keys]"
        );
    }

    /// Whether one bias serves every sequence.
    fn bias_is_shared(&self) -> bool {
        let plane = self.shape.heads * self.shape.time_q * self.shape.keys;
        self.bias.is_some_and(|bias| bias.values.len() == plane)
    }

    /// Where the bias of a query begins.
    fn bias_row(&self, b: usize, h: usize, t: usize) -> usize {
        let s = &self.shape;
        let b = if self.bias_is_shared() { 0 } else { b };
        ((b * s.heads + h) * s.time_q + t) * s.keys
    }

    /// The first key and value of query head `h`.
    #[inline(always)]
    fn head(&self, k: &[f32], v: &[f32], b: usize, h: usize) -> (*const f32, *const f32) {
        let s = &self.shape;
        let kv = h / (s.heads / s.kv_heads);
        // Where there are no keys the pointers are not read, and may lie outside.
        (
            k.as_ptr().wrapping_add(b * self.k.batch + kv * s.dim),
            v.as_ptr().wrapping_add(b * self.v.batch + kv * s.v_dim),
        )
    }
}
