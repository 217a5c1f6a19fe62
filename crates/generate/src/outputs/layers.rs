//! What the layers of a pass held: kept whole, and cut into what belongs to one row.

use candle_core::{DType, Device, Result};
use phyla_nn::{Attentions, Pass};
use phyla_ops::{Data, Tensor, cpu};

use super::{Array, Wanted};

/// What was asked for of a pass.
#[derive(Debug)]
pub(crate) struct Seen {
    hidden_states: Vec<Tensor>,
    attentions: Attentions,
    /// Tokens that the cache held of each row behind the pass.
    lengths: Vec<usize>,
}

impl Seen {
    /// Lets a pass keep it.
    pub fn ask(pass: &mut Pass, wanted: Wanted) {
        pass.hidden_states = wanted.hidden_states.then(Vec::new);
        pass.attentions = wanted.attentions.then(Attentions::default);
    }

    /// Takes it from the pass; `None` if nothing was asked for.
    pub fn take(pass: &mut Pass) -> Option<Self> {
        let (hidden_states, attentions) = (pass.hidden_states.take(), pass.attentions.take());
        let asked = hidden_states.is_some() || attentions.is_some();
        let (hidden_states, attentions) = (hidden_states.unwrap_or_default(), attentions.unwrap_or_default());
        asked.then_some(Self { hidden_states, attentions, lengths: vec![] })
    }

    /// Says how many tokens its rows hold now.
    pub fn holding(self, lengths: &[usize]) -> Self {
        Self { lengths: lengths.to_vec(), ..self }
    }

    /// What is one row's, of all tokens of the pass or of one.
    pub fn of(&self, row: usize, token: Option<usize>) -> Layers<'_> {
        Layers { seen: self, row, token }
    }
}

/// What the layers of a pass held of a row.
#[derive(Clone, Copy, Debug)]
pub struct Layers<'a> {
    seen: &'a Seen,
    row: usize,
    token: Option<usize>,
}

impl Layers<'_> {
    /// What entered each layer and left the last, `[tokens, hidden]`.
    ///
    /// # Errors
    /// Out of memory.
    pub fn hidden_states(&self) -> Result<Vec<Array>> {
        let cut = |states: &Tensor| array(&self.tokens(states.data().narrow(0, self.row, 1)?, 1)?.squeeze(0)?);
        self.seen.hidden_states.iter().map(cut).collect()
    }

    /// The weights over the tokens so far, `[heads, tokens, keys]`.
    ///
    /// # Errors
    /// Out of memory.
    pub fn attentions(&self) -> Result<Vec<Array>> {
        let behind = |time: usize| self.token.map_or(0, |token| time - 1 - token);
        let cut = |weights: &Tensor| {
            let keys = self.seen.lengths.get(self.row).copied().unwrap_or(0).saturating_sub(behind(weights.dims()[2]));
            self.weights(weights, keys)
        };
        self.seen.attentions.own.iter().map(cut).collect()
    }

    /// The weights over an encoder's states, of which the row has `source`: `[heads, tokens, source]`.
    ///
    /// # Errors
    /// Out of memory.
    pub fn cross_attentions(&self, source: usize) -> Result<Vec<Array>> {
        self.seen.attentions.cross.iter().map(|weights| self.weights(weights, source)).collect()
    }

    /// `weights[rows, heads, time, keys]` of the row; what rows have behind their own keys is filling.
    fn weights(&self, weights: &Tensor, keys: usize) -> Result<Array> {
        let row = weights.data().narrow(0, self.row, 1)?;
        array(&self.tokens(row, 2)?.narrow(3, 0, keys.min(weights.dims()[3]))?.squeeze(0)?)
    }

    fn tokens(&self, data: Data, dim: usize) -> Result<Data> {
        match self.token {
            Some(token) => data.narrow(dim, token, 1),
            None => Ok(data),
        }
    }

    /// What an encoder held, without filling: its states `[source, hidden]`, and its weights `[heads, source, source]`.
    pub(super) fn encoder(&self, source: usize) -> Result<(Vec<Array>, Vec<Array>)> {
        let state = |x: &Tensor| array(&x.data().narrow(0, self.row, 1)?.narrow(1, 0, source)?.squeeze(0)?);
        let weight = |x: &Tensor| {
            let row = x.data().narrow(0, self.row, 1)?;
            array(&row.narrow(2, 0, source)?.narrow(3, 0, source)?.squeeze(0)?)
        };
        let seen = self.seen;
        let states = seen.hidden_states.iter().map(state).collect::<Result<_>>()?;
        Ok((states, seen.attentions.own.iter().map(weight).collect::<Result<_>>()?))
    }
}

fn array(data: &Data) -> Result<Array> {
    let shape = data.dims().to_vec();
    let data = data.to_device(&Device::Cpu)?.to_dtype(DType::F32)?.contiguous()?.flatten_all()?;
    Ok(Array { shape, values: cpu::view::<f32>(&data)?.to_vec() })
}
