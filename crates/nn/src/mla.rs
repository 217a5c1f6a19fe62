//! Multi-head latent attention (DeepSeek-V2, section 2.1): keys and values are a map of one small vector a token, and
//! that vector is all a cache keeps.

use std::sync::Arc;

use candle_core::Result;
use phyla_ops::{AttentionArgs, Tensor, Visibility};

use crate::{CacheSpec, Keys, Linear, LinearSpec, Norm, NormSpec, Pass, RopeSpec, Scope, Seen};

/// So many queries have the same bits together as alone.
const FEW: usize = 8;

/// What shapes latent attention.
#[derive(Clone, Debug, PartialEq)]
pub struct MlaSpec {
    /// Size of the residual stream.
    pub hidden: usize,
    /// Heads.
    pub heads: usize,
    /// Size of the vector that queries are a map of; `None` maps them from the residual stream.
    pub q_rank: Option<usize>,
    /// Size of the vector that keys and values are a map of.
    pub kv_rank: usize,
    /// Elements of a query or key head that know no position.
    pub nope: usize,
    /// Elements of a query head that turn, and of the one key that all heads share.
    pub rotary: usize,
    /// Elements of a value head.
    pub v_dim: usize,
    /// The rotation.
    pub rope: Arc<RopeSpec>,
    /// Factor on the scores.
    pub scale: f32,
    /// Whether the maps from and to the residual stream have biases.
    pub bias: bool,
    /// The norm of the small vectors.
    pub norm: NormSpec,
    /// Dropout on the attention weights.
    pub dropout: f32,
    /// Standard deviation of fresh weights.
    pub std: f32,
}

/// How queries are made.
#[derive(Debug)]
enum Queries {
    /// From the residual stream.
    Full(Linear),
    /// Through a small vector.
    Compressed { down: Linear, norm: Norm, up: Linear },
}

/// The block.
#[derive(Debug)]
pub struct Mla {
    spec: MlaSpec,
    q: Queries,
    kv_down: Linear,
    kv_norm: Norm,
    kv_up: Linear,
    o: Linear,
}

impl Mla {
    /// Takes `q` (or `q_down`, `q_norm`, `q_up`), `kv_down`, `kv_norm`, `kv_up` and `o` from the scope.
    pub fn new(spec: &MlaSpec, scope: &mut Scope) -> Result<Self> {
        let linear = |input, output, bias| LinearSpec { input, output, bias, std: spec.std };
        let (queries, hidden) = (spec.heads * (spec.nope + spec.rotary), spec.hidden);
        let q = match spec.q_rank {
            None => Queries::Full(Linear::new(linear(hidden, queries, false), &mut scope.at("q"))?),
            Some(rank) => Queries::Compressed {
                down: Linear::new(linear(hidden, rank, spec.bias), &mut scope.at("q_down"))?,
                norm: Norm::new(spec.norm, rank, &mut scope.at("q_norm"))?,
                up: Linear::new(linear(rank, queries, false), &mut scope.at("q_up"))?,
            },
        };
        let down = linear(hidden, spec.kv_rank + spec.rotary, spec.bias);
        let up = linear(spec.kv_rank, spec.heads * (spec.nope + spec.v_dim), false);
        Ok(Self {
            q,
            kv_down: Linear::new(down, &mut scope.at("kv_down"))?,
            kv_norm: Norm::new(spec.norm, spec.kv_rank, &mut scope.at("kv_norm"))?,
            kv_up: Linear::new(up, &mut scope.at("kv_up"))?,
            o: Linear::new(linear(spec.heads * spec.v_dim, hidden, spec.bias), &mut scope.at("o"))?,
            spec: spec.clone(),
        })
    }

    /// `x[batch, time, hidden]` to the same shape.
    pub fn forward(&self, x: &Tensor, pass: &mut Pass) -> Result<Tensor> {
        let spec = &self.spec;
        let (batch, time) = (pass.batch(), pass.time());
        let rope = pass.rope(&spec.rope);
        let q = match &self.q {
            Queries::Full(map) => map.forward(x)?,
            Queries::Compressed { down, norm, up } => up.forward(&norm.forward(&down.forward(x)?)?)?,
        };
        let q = q.reshape((batch, time, spec.heads, spec.nope + spec.rotary))?;
        let [q, q_turned] = halves(&q, spec.nope, spec.rotary)?;
        let q_turned = phyla_ops::rope(&q_turned, &rope)?; // [batch, time, heads, rotary]
        let [latent, key] = halves(&self.kv_down.forward(x)?, spec.kv_rank, spec.rotary)?;
        let key = key.reshape((batch, time, 1, spec.rotary))?;
        let key = pass.rope_of_new(&spec.rope).map_or(Ok(key.clone()), |rows| phyla_ops::rope(&key, &rows))?;
        let latent = self.kv_norm.forward(&latent)?.reshape((batch, time, 1, spec.kv_rank))?;
        let latent = phyla_ops::concat_last(&[&latent, &key])?; // [batch, time, 1, kv_rank + rotary]
        let precision = self.o.weight().precision().beside();
        let seen = Seen { exactly: CacheSpec::exactly(precision), window: None };
        let (latent, cached) = pass.extend_latent(latent, seen)?; // [batch, keys, 1, kv_rank + rotary]
        let latent = self.turned(latent, pass)?;
        let (visible, dropout) = (pass.visibility(None), pass.dropout(spec.dropout));
        let args = AttentionArgs { dropout, precision, ..AttentionArgs::scaled(spec.scale) };
        // What adapters change has no weight to be folded in.
        let foldable = cached && !self.kv_up.is_changed();
        let y = match foldable && self.absorbing_is_cheaper(time, latent.sizes()[1]) {
            true => self.absorbed([&q, &q_turned], &latent, &visible, &args, pass)?,
            false => self.expanded([&q, &q_turned], &latent.whole()?, &visible, &args, pass)?,
        };
        self.o.forward(&y.reshape((batch, time, spec.heads * spec.v_dim))?)
    }

    /// Latent vectors whose keys have been turned, if they had not been yet.
    fn turned(&self, latent: Keys, pass: &Pass) -> Result<Keys> {
        if pass.rope_of_new(&self.spec.rope).is_some() {
            return Ok(latent);
        }
        let [latent, key] = halves(&latent.whole()?, self.spec.kv_rank, self.spec.rotary)?;
        let key = pass.turned(Keys::Whole(key), &self.spec.rope)?.whole()?;
        Ok(Keys::Whole(phyla_ops::concat_last(&[&latent, &key])?))
    }

    /// Keys and values for every head: what the latent vectors stand for.
    fn expanded(
        &self,
        [q, q_turned]: [&Tensor; 2],
        latent: &Tensor,
        visible: &Visibility,
        args: &AttentionArgs,
        pass: &mut Pass,
    ) -> Result<Tensor> {
        let spec = &self.spec;
        let (batch, keys) = (latent.dims()[0], latent.dims()[1]);
        let [latent, key] = halves(latent, spec.kv_rank, spec.rotary)?;
        let kv = self.kv_up.forward(&latent)?.reshape((batch, keys, spec.heads, spec.nope + spec.v_dim))?;
        let [k, v] = halves(&kv, spec.nope, spec.v_dim)?; // [batch, keys, heads, nope], [.., v_dim]
        let k = phyla_ops::concat_last(&[&k, &phyla_ops::broadcast_heads(&key, spec.heads)?])?;
        let q = phyla_ops::concat_last(&[q, q_turned])?;
        pass.look(false, || phyla_ops::attention_weights(&q, &k, visible, args))?;
        phyla_ops::attention(&q, &k, &v, visible, args)
    }

    /// The same numbers without ever making keys and values: their map is folded into the queries and the result
    /// (section 2.1.2), so that all heads attend to the one latent vector of each token.
    fn absorbed(
        &self,
        [q, q_turned]: [&Tensor; 2],
        latent: &Keys,
        visible: &Visibility,
        args: &AttentionArgs,
        pass: &mut Pass,
    ) -> Result<Tensor> {
        let spec = &self.spec;
        let (batch, time) = (q.dims()[0], q.dims()[1]);
        let rows = q.reshape((batch * time, spec.heads, spec.nope))?;
        let q = self.kv_up.per_head_up(&rows, 0)?.reshape((batch, time, spec.heads, spec.kv_rank))?;
        let q = phyla_ops::concat_last(&[&q, q_turned])?; // [batch, time, heads, kv_rank + rotary]
        pass.look(false, || latent.weights(&q, visible, args))?;
        // The values are the first part of the keys, in place.
        let y = latent.attend(&latent.narrowed(spec.kv_rank)?, &q, visible, args)?;
        let y = y.reshape((batch * time, spec.heads, spec.kv_rank))?;
        self.kv_up.per_head_down(&y, spec.nope, spec.v_dim)?.reshape((batch, time, spec.heads, spec.v_dim))
    }

    /// Which way takes fewer multiplications for `time` queries over `keys` keys, for each head. A few queries go the way that
    /// one goes: their bits do not depend on how many there are.
    fn absorbing_is_cheaper(&self, time: usize, keys: usize) -> bool {
        let (spec, time) = (&self.spec, if time <= FEW { 1 } else { time });
        let absorbed = time * spec.kv_rank * (spec.nope + spec.v_dim) + time * keys * (2 * spec.kv_rank + spec.rotary);
        let expanded =
            keys * spec.kv_rank * (spec.nope + spec.v_dim) + time * keys * (spec.nope + spec.rotary + spec.v_dim);
        absorbed < expanded
    }
}

/// The first `a` and the last `b` elements of the last dimension.
fn halves(x: &Tensor, a: usize, b: usize) -> Result<[Tensor; 2]> {
    match <[Tensor; 2]>::try_from(phyla_ops::split_last(x, &[a, b])?) {
        Ok(parts) => Ok(parts),
        Err(parts) => candle_core::bail!("expected two parts, found {}", parts.len()),
    }
}
