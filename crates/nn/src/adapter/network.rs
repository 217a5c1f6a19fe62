//! Linear maps in a row, bent in between: what makes prompts and prefixes while they are trained.

use std::sync::Arc;

use candle_core::Result;
use phyla_ops::{Param, Tensor};

use crate::Act;

/// `x[.., input]` through maps of weight `[output, input]` and bias `[output]` each, `act` between them.
pub fn network(x: &Tensor, maps: &[[Arc<Param>; 2]], act: Act) -> Result<Tensor> {
    let mut x = x.clone();
    for (at, [weight, bias]) in maps.iter().enumerate() {
        x = match at + 1 == maps.len() {
            true => phyla_ops::linear(&x, weight, Some(bias))?,
            false => phyla_ops::linear_act(&x, weight, Some(bias), act)?,
        };
    }
    Ok(x)
}
