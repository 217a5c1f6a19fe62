//! A small block behind a sublayer's last map, with a way around it: adapters as Houlsby et al. (2019, figure 2) put them
//! behind attention and feed-forward, and Pfeiffer et al. (2021) behind the feed-forward alone.

use std::sync::Arc;

use candle_core::Result;
use phyla_ops::{Param, Tensor};

use crate::Act;

/// `y + up(act(down(y)))`.
#[derive(Debug)]
pub struct Bottleneck {
    /// `[inner, output]` and `[inner]`.
    pub down: [Arc<Param>; 2],
    /// `[output, inner]` and `[output]`.
    pub up: [Arc<Param>; 2],
    /// What bends it.
    pub act: Act,
}

impl Bottleneck {
    pub(super) fn params(&self) -> Vec<&Arc<Param>> {
        self.down.iter().chain(&self.up).collect()
    }

    pub(super) fn apply(&self, y: Tensor) -> Result<Tensor> {
        let inner = phyla_ops::linear_act(&y, &self.down[0], Some(&self.down[1]), self.act)?; // [.., inner]
        phyla_ops::add(&y, &phyla_ops::linear(&inner, &self.up[0], Some(&self.up[1]))?)
    }
}
