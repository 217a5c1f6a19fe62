//! Multi-head attention with grouped queries: projections, rotation, cache, scores.

use std::sync::Arc;

use candle_core::Result;
use phyla_ops::{AttentionArgs, Precision, Tensor, Visibility};

use crate::{CacheSpec, Keys, Linear, LinearSpec, Norm, NormSpec, Pass, Relative, RelativeBias, RopeSpec, Scope, Seen};

/// What shapes an attention block.
#[derive(Clone, Debug, PartialEq)]
pub struct AttentionSpec {
    /// Size of the residual stream.
    pub hidden: usize,
    /// Query heads.
    pub heads: usize,
    /// Key and value heads; divides `heads`.
    pub kv_heads: usize,
    /// Size of a head.
    pub head_dim: usize,
    /// Whether q, k and v have biases.
    pub qkv_bias: bool,
    /// Whether the output map has one.
    pub o_bias: bool,
    /// A norm over each head of q and k, before the rotation (Qwen3).
    pub qk_norm: Option<NormSpec>,
    /// Rotary positions.
    pub rope: Option<Arc<RopeSpec>>,
    /// A bias on the scores by distance; self-attention alone has one.
    pub relative: Option<RelativeBias>,
    /// Factor on the scores, usually `1 / sqrt(head_dim)`.
    pub scale: f32,
    /// How many tokens a query looks back over, itself counted.
    pub window: Option<usize>,
    /// Dropout on the attention weights.
    pub dropout: f32,
    /// Standard deviation of fresh k, v.
    pub std: f32,
    /// Standard deviation of fresh q.
    pub q_std: f32,
    /// Standard deviation of the fresh output map.
    pub o_std: f32,
}

impl AttentionSpec {
    /// Grouped queries (Ainslie et al. 2023): no biases, rotation or window.
    pub fn grouped(hidden: usize, heads: usize, kv_heads: usize, head_dim: usize, std: f32) -> Self {
        Self {
            hidden,
            heads,
            kv_heads,
            head_dim,
            qkv_bias: false,
            o_bias: false,
            qk_norm: None,
            rope: None,
            relative: None,
            scale: (head_dim as f32).sqrt().recip(),
            window: None,
            dropout: 0.,
            std,
            q_std: std,
            o_std: std,
        }
    }
}

/// The block.
#[derive(Debug)]
pub struct Attention {
    spec: AttentionSpec,
    q: Linear,
    k: Linear,
    v: Linear,
    o: Linear,
    norms: Option<(Norm, Norm)>,
    relative: Option<Relative>,
}

impl Attention {
    /// Takes `q`, `k`, `v`, `o` and, if asked for, `q_norm`, `k_norm` and `relative` from the scope.
    pub fn new(spec: &AttentionSpec, scope: &mut Scope) -> Result<Self> {
        let (q, kv) = (spec.heads * spec.head_dim, spec.kv_heads * spec.head_dim);
        let mut project = |name: &str, output: usize, std: f32| {
            let linear = LinearSpec { input: spec.hidden, output, bias: spec.qkv_bias, std };
            Linear::new(linear, &mut scope.at(name))
        };
        let (q_map, k_map, v_map) =
            (project("q", q, spec.q_std)?, project("k", kv, spec.std)?, project("v", kv, spec.std)?);
        let o = LinearSpec { input: q, output: spec.hidden, bias: spec.o_bias, std: spec.o_std };
        let norms = match spec.qk_norm {
            Some(norm) => Some((
                Norm::new(norm, spec.head_dim, &mut scope.at("q_norm"))?,
                Norm::new(norm, spec.head_dim, &mut scope.at("k_norm"))?,
            )),
            None => None,
        };
        let relative = match &spec.relative {
            Some(RelativeBias::Own(own)) => Some(Relative::new(own, &mut scope.at("relative"))?),
            _ => None,
        };
        let o = Linear::new(o, &mut scope.at("o"))?;
        Ok(Self { q: q_map, k: k_map, v: v_map, o, norms, relative, spec: spec.clone() })
    }

    /// `x[batch, time, hidden]` to the same shape.
    pub fn forward(&self, x: &Tensor, pass: &mut Pass) -> Result<Tensor> {
        let spec = &self.spec;
        let mut q = self.split(self.q.forward(x)?, spec.heads)?; // [batch, time, heads, head_dim]
        let mut k = self.split(self.k.forward(x)?, spec.kv_heads)?; // [batch, time, kv_heads, head_dim]
        let v = self.split(self.v.forward(x)?, spec.kv_heads)?;
        if let Some((q_norm, k_norm)) = &self.norms {
            (q, k) = (q_norm.forward(&q)?, k_norm.forward(&k)?);
        }
        if let Some(rope) = &spec.rope {
            q = phyla_ops::rope(&q, &pass.rope(rope))?;
            k = pass.rope_of_new(rope).map_or(Ok(k.clone()), |rows| phyla_ops::rope(&k, &rows))?;
        }
        let [k, v] = pass.replace_led(k, v)?;
        let seen = Seen { exactly: CacheSpec::exactly(self.precision()), window: spec.window };
        let [mut k, v] = pass.extend(k, v, seen)?; // [batch, keys, kv_heads, head_dim]
        if let Some(rope) = &spec.rope {
            k = pass.turned(k, rope)?;
        }
        let bias = match (&spec.relative, &self.relative) {
            (None, _) => None,
            (Some(_), Some(own)) => Some(own.forward(pass)?),
            (Some(_), None) => Some(pass.relative()?.clone()),
        };
        let visible = pass.visibility(spec.window);
        self.attend(&q, [k, v], bias, &visible, pass, false)
    }

    /// As [`Attention::forward`], with keys and values from the encoder's states, the same for all queries of a row.
    pub fn forward_cross(&self, x: &Tensor, pass: &mut Pass) -> Result<Tensor> {
        let spec = &self.spec;
        let q = self.split(self.q.forward(x)?, spec.heads)?; // [batch, time, heads, head_dim]
        let [k, v] = pass.memory_keys(&|states| {
            let split = |y: Tensor| self.split(y, spec.kv_heads);
            Ok([split(self.k.forward(states)?)?, split(self.v.forward(states)?)?])
        })?; // [rows of the memory, source, kv_heads, head_dim]
        let visible = pass.memory_visibility()?;
        // Rows that share a memory row (beams) are queries of it side by side: nothing is copied for them.
        let rows = k.dims()[0];
        let queries = pass.batch() * pass.time() / rows.max(1);
        let q = q.reshape((rows, queries, spec.heads, spec.head_dim))?;
        self.attend(&q, [Keys::Whole(k), Keys::Whole(v)], None, &visible, pass, true)?.reshape(x.dims())
    }

    /// `y[batch, time, heads · head_dim]` to `[batch, time, heads, head_dim]`.
    fn split(&self, y: Tensor, heads: usize) -> Result<Tensor> {
        let (batch, time) = (y.dims()[0], y.dims()[1]);
        y.reshape((batch, time, heads, self.spec.head_dim))
    }

    /// How exactly scores and sums are multiplied: as the maps around them.
    fn precision(&self) -> Precision {
        self.o.weight().precision().beside()
    }

    fn attend(
        &self,
        q: &Tensor,
        [k, v]: [Keys; 2],
        bias: Option<Tensor>,
        visible: &Visibility,
        pass: &mut Pass,
        cross: bool,
    ) -> Result<Tensor> {
        let spec = &self.spec;
        let (dropout, precision) = (pass.dropout(spec.dropout), self.precision());
        let args = AttentionArgs { bias, dropout, precision, ..AttentionArgs::scaled(spec.scale) };
        let (rows, time) = (pass.batch(), pass.time());
        pass.look(cross, || by_row(k.weights(q, visible, &args)?, rows, time))?;
        let y = k.attend(&v, q, visible, &args)?;
        let (batch, time) = (y.dims()[0], y.dims()[1]);
        self.o.forward(&y.reshape((batch, time, spec.heads * spec.head_dim))?)
    }
}

/// Weights of queries that stand side by side because they see the same keys, as those of rows:
/// `[.., heads, .. · time, keys]` to `[rows, heads, time, keys]`.
fn by_row(weights: Tensor, rows: usize, time: usize) -> Result<Tensor> {
    let (memory, heads, queries, keys) = weights.data().dims4()?;
    let apart = weights.data().reshape((memory, heads, queries / time.max(1), time, keys))?;
    Ok(apart.transpose(1, 2)?.contiguous()?.reshape((rows, heads, time, keys))?.into())
}
