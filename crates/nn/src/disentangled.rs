//! Disentangled attention (He et al. 2021, section 3): contents and relative positions score each other, each under maps
//! of its own, where plain attention scores contents alone.

use candle_core::Result;
use phyla_ops::{AttentionArgs, Tensor};

use crate::talking::TalkingHeads;
use crate::{Linear, LinearSpec, Pass, Scope};

/// What shapes a disentangled attention block.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct DisentangledSpec {
    /// Size of the residual stream, and of all heads together.
    pub hidden: usize,
    /// Heads; divides `hidden`.
    pub heads: usize,
    /// Whether the keys' map has a bias; those of queries and values have.
    pub k_bias: bool,
    /// The positions' keys, which queries look at: "content to position".
    pub pos_k: Option<Positional>,
    /// The positions' queries, which look at keys: "position to content".
    pub pos_q: Option<Positional>,
    /// Factor on all scores.
    pub scale: f32,
    /// Whether heads are mixed before and after the softmax (Shazeer et al. 2020, "Talking-heads attention").
    pub talking: bool,
    /// Dropout on the attention weights.
    pub dropout: f32,
    /// Dropout on the vectors of positions.
    pub pos_dropout: f32,
    /// Standard deviation of fresh weights.
    pub std: f32,
}

impl DisentangledSpec {
    /// Contents alone, whose scores are divided as if there were `terms` more of them, so that all together vary as
    /// much as plain scores do.
    pub fn new(hidden: usize, heads: usize, terms: usize, std: f32) -> Self {
        let dim = hidden / heads.max(1);
        Self {
            hidden,
            heads,
            k_bias: true,
            pos_k: None,
            pos_q: None,
            scale: ((dim * (1 + terms)) as f32).sqrt().recip(),
            talking: false,
            dropout: 0.,
            pos_dropout: 0.,
            std,
        }
    }

    /// Multiplications and additions of scoring a key, by contents and positions, and adding its value.
    pub(crate) fn score_operations(&self) -> usize {
        let sides = usize::from(self.pos_k.is_some()) + usize::from(self.pos_q.is_some());
        let wider = if self.talking { self.heads } else { 1 };
        (4 + 2 * sides) * self.hidden * wider
    }
}

/// The map over the vectors of positions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Positional {
    /// That of the contents.
    Shared,
    /// One of its own.
    Own {
        /// Whether it has a bias.
        bias: bool,
    },
}

/// The block.
#[derive(Debug)]
pub struct Disentangled {
    spec: DisentangledSpec,
    q: Linear,
    k: Linear,
    v: Linear,
    o: Linear,
    pos_k: Option<Linear>,
    pos_q: Option<Linear>,
    talking: Option<TalkingHeads>,
}

impl Disentangled {
    /// Takes `q`, `k`, `v`, `o`, and as asked for `pos_k`, `pos_q`, `logits_mix`, `weights_mix` from the scope.
    pub fn new(spec: &DisentangledSpec, scope: &mut Scope) -> Result<Self> {
        let mut linear = |name: &str, bias: bool| {
            let linear = LinearSpec { input: spec.hidden, output: spec.hidden, bias, std: spec.std };
            Linear::new(linear, &mut scope.at(name))
        };
        let (q, k, v, o) = (linear("q", true)?, linear("k", spec.k_bias)?, linear("v", true)?, linear("o", true)?);
        let mut own = |name: &str, map: Option<Positional>| match map {
            Some(Positional::Own { bias }) => linear(name, bias).map(Some),
            Some(Positional::Shared) | None => Ok(None),
        };
        let (pos_k, pos_q) = (own("pos_k", spec.pos_k)?, own("pos_q", spec.pos_q)?);
        let talking = spec.talking.then(|| TalkingHeads::new(spec.heads, spec.std, scope)).transpose()?;
        Ok(Self { q, k, v, o, pos_k, pos_q, talking, spec: *spec })
    }

    /// `x[batch, time, hidden]` to the same shape.
    pub fn forward(&self, x: &Tensor, pass: &mut Pass) -> Result<Tensor> {
        let spec = &self.spec;
        let mut q = self.split(self.q.forward(x)?)?; // [batch, time, heads, dim]
        let mut k = self.split(self.k.forward(x)?)?;
        let mut v = self.split(self.v.forward(x)?)?;
        let (mut pos_k, mut pos_q) = self.positions(pass)?; // [distances, heads, dim]
        let mut looked = k.clone(); // The keys that positions look at.
        if let Some(talking) = &self.talking {
            // A mixed score is a product over all heads' elements, one side of it weighed: heads of `hidden` elements.
            (q, looked) = (talking.spread(&q)?, talking.spread(&k)?);
            (k, v) = (talking.side_by_side(&k)?, talking.side_by_side(&v)?);
            pos_k = pos_k.map(|table| talking.repeat(&table)).transpose()?;
            pos_q = pos_q.map(|table| talking.repeat(&table)).transpose()?;
        }
        let bias = match (&pos_k, &pos_q) {
            (None, None) => None,
            (pos_k, pos_q) => {
                let index = pass.index()?;
                Some(phyla_ops::disentangled_bias(&q, &looked, pos_k.as_ref(), pos_q.as_ref(), index, spec.scale)?)
            }
        };
        let (dropout, precision) = (pass.dropout(spec.dropout), self.o.weight().precision().beside());
        let args = AttentionArgs { bias, dropout, precision, ..AttentionArgs::scaled(spec.scale) };
        let visible = pass.visibility(None);
        pass.look(false, || match &self.talking {
            None => phyla_ops::attention_weights(&q, &k, &visible, &args),
            Some(_) => candle_core::bail!("heads that talk mix their weights again, and these are not to be had"),
        })?;
        let mut y = phyla_ops::attention(&q, &k, &v, &visible, &args)?;
        if let Some(talking) = &self.talking {
            y = talking.gather(&y)?;
        }
        self.o.forward(&y.reshape(x.dims())?)
    }

    /// Keys and queries of the relative positions that occur, `[distances, heads, dim]`.
    fn positions(&self, pass: &mut Pass) -> Result<(Option<Tensor>, Option<Tensor>)> {
        let spec = &self.spec;
        if spec.pos_k.is_none() && spec.pos_q.is_none() {
            return Ok((None, None));
        }
        let table = pass.relative()?.clone();
        let table = pass.drop(table, spec.pos_dropout)?; // [distances, hidden]
        let map = |wanted: Option<Positional>, own: &Option<Linear>, shared: &Linear| {
            let map = wanted.map(|_| own.as_ref().unwrap_or(shared));
            map.map(|map| self.split(map.forward(&table)?)).transpose()
        };
        Ok((map(spec.pos_k, &self.pos_k, &self.k)?, map(spec.pos_q, &self.pos_q, &self.q)?))
    }

    /// `[.., hidden]` to `[.., heads, dim]`.
    fn split(&self, y: Tensor) -> Result<Tensor> {
        let mut dims = y.dims().to_vec();
        dims.pop();
        dims.extend([self.spec.heads, self.spec.hidden / self.spec.heads]);
        y.reshape(dims)
    }
}
