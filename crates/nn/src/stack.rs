//! Layers in a row.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use candle_core::Result;
use phyla_ops::Tensor;

use crate::{Conv, ConvSpec, Layer, LayerSpec, Pass, Scope};

/// The layers.
#[derive(Debug)]
pub struct Stack {
    layers: Vec<Arc<Layer>>,
    conv: Option<Conv>,
}

impl Stack {
    /// Takes `layers.0`, `layers.1`, …, and `conv` if asked for, from the scope.
    pub fn new(specs: &[LayerSpec], conv: Option<&ConvSpec>, scope: &mut Scope) -> Result<Self> {
        let conv = conv.map(|conv| Conv::new(conv, &mut scope.at("conv"))).transpose()?;
        let mut layers = scope.at("layers");
        let layers = specs
            .iter()
            .enumerate()
            .map(|(i, spec)| Ok(Arc::new(Layer::new(spec, &mut layers.at(i))?)))
            .collect::<Result<_>>()?;
        Ok(Self { layers, conv })
    }

    /// `x[batch, time, hidden]` through all layers, or the first of them that the pass asks for.
    pub fn forward(&self, x: Tensor, pass: &mut Pass) -> Result<Tensor> {
        let mut x = x;
        let layers = pass.layers.unwrap_or(self.layers.len());
        for (i, layer) in self.layers.iter().enumerate().take(layers) {
            pass.layer = i;
            if let Some(states) = &mut pass.hidden_states {
                states.push(x.clone());
            }
            let y = if pass.checkpointing && !pass.has_cache() {
                recomputed(layer, &x, pass)?
            } else {
                layer.forward(&x, pass)?
            };
            x = match &self.conv {
                Some(conv) if i == 0 => conv.forward(&x, &y, pass)?,
                _ => y,
            };
        }
        Ok(x)
    }
}

/// Runs a layer of which only the inputs are kept.
fn recomputed(layer: &Arc<Layer>, x: &Tensor, pass: &mut Pass) -> Result<Tensor> {
    let (layer, start) = (layer.clone(), pass.replay());
    let sites = Arc::new(AtomicU64::new(pass.sites()));
    let balance = Arc::new(Mutex::new(None));
    let (seen, said) = (sites.clone(), balance.clone());
    let inputs: Vec<&Tensor> = std::iter::once(x).chain(pass.shared()).collect();
    let y = phyla_ops::checkpoint(&inputs, move |inputs| {
        let mut pass = start.replay();
        pass.share(&inputs[1..]);
        let y = layer.forward(&inputs[0], &mut pass)?;
        seen.store(pass.sites(), Ordering::Relaxed);
        // The first run counts; the second, in the backward pass, says the same again.
        said.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(pass.balance.take());
        Ok(y)
    })?;
    pass.caught_up(sites.load(Ordering::Relaxed));
    let said = balance.lock().unwrap_or_else(PoisonError::into_inner).take().flatten();
    if let (Some(ledger), Some(said)) = (&mut pass.balance, said) {
        ledger.loss += said.loss;
    }
    Ok(y)
}
