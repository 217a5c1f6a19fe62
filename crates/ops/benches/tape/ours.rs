//! The step on our tape, with our operations.

use std::sync::Arc;

use candle_core::Result;
use phyla_kernels::activation::Act;
use phyla_ops::{
    AttentionArgs, CrossEntropy, Param, Visibility, Weight, activate, add, attention, embedding, layer_norm, linear,
    linear_cross_entropy,
};

use crate::Sizes;

pub(crate) fn model(s: &Sizes) -> Result<impl FnMut() -> Result<f32> + use<>> {
    let fresh = |(i, shape): (usize, Vec<usize>)| -> Result<Arc<Param>> {
        let param = Param::new(format!("weight.{i}"), Weight::Dense(crate::fresh(&shape, i)?));
        param.set_trainable(true)?;
        Ok(Arc::new(param))
    };
    let weights = s.weights().into_iter().enumerate().map(fresh).collect::<Result<Vec<_>>>()?;
    let (batch, time, heads, dim, layers) = (s.batch, s.time, s.heads, s.hidden / s.heads, s.layers);
    let (ids, positions) = (s.ids(), s.positions());
    let targets: Vec<i32> = ids.iter().map(|&id| id as i32).collect();
    let ranges = Arc::new(positions.iter().map(|&i| (0, i + 1)).collect());
    let visible = Visibility { ranges, key_valid: None };
    let args = AttentionArgs::scaled(1. / (dim as f32).sqrt());
    Ok(move || {
        weights.iter().for_each(|w| w.zero_grad());
        let rows = [batch, time];
        let mut x =
            add(&embedding(&weights[0], &ids, &rows, None)?, &embedding(&weights[1], &positions, &rows, None)?)?;
        for w in weights[4..].chunks_exact(16).take(layers) {
            let h = layer_norm(&x, &w[0], Some(&w[1]), 1e-5)?;
            let split = |i: usize| linear(&h, &w[i], Some(&w[i + 1]))?.reshape((batch, time, heads, dim));
            let a = attention(&split(2)?, &split(4)?, &split(6)?, &visible, &args)?;
            x = add(&x, &linear(&a.reshape((batch, time, heads * dim))?, &w[8], Some(&w[9]))?)?;
            let h = layer_norm(&x, &w[10], Some(&w[11]), 1e-5)?;
            let h = activate(&linear(&h, &w[12], Some(&w[13]))?, Act::Gelu)?;
            x = add(&x, &linear(&h, &w[14], Some(&w[15]))?)?;
        }
        let x = layer_norm(&x, &weights[2], Some(&weights[3]), 1e-5)?;
        let mean = CrossEntropy { label_smoothing: 0., scale: 1. / targets.len() as f32 };
        let loss = linear_cross_entropy(&x, &weights[0], None, &targets, mean)?;
        loss.backward()?;
        loss.data().to_scalar()
    })
}
