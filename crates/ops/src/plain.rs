//! Plain references: any composition of candle operations as one recorded operation.
//!
//! The backward pass runs the composition again and lets candle differentiate it, so that a reference is
//! written once, in forward direction only. Slow, right, and the same on every device.

use std::cell::Cell;
use std::sync::Arc;

use candle_core::{DType, Device, Result, Var};

use crate::{Data, Param, Tensor};

thread_local! {
    static FORCED: Cell<bool> = const { Cell::new(false) };
}

/// Runs `f` with every operation on its plain reference, also on the CPU.
pub fn forced<R>(f: impl FnOnce() -> R) -> R {
    struct Restore(bool);
    impl Drop for Restore {
        fn drop(&mut self) {
            FORCED.set(self.0);
        }
    }
    let _restore = Restore(FORCED.replace(true));
    f()
}

/// The type in which a reference sums: f32, or f64 for f64 numbers (for numerical gradients).
pub(crate) fn wide(data: &Data) -> DType {
    if data.dtype() == DType::F64 { DType::F64 } else { DType::F32 }
}

/// Whether the fast CPU path applies to operations on `x`.
pub(crate) fn fast(x: &Tensor) -> bool {
    x.device().is_cpu() && x.data().dtype() == DType::F32 && !FORCED.get()
}

/// As [`fast`], for operations whose only input is a parameter.
pub(crate) fn fast_on(device: &Device) -> bool {
    device.is_cpu() && !FORCED.get()
}

/// Records `f(inputs ++ params)` as one operation, differentiated by candle when its turn comes.
pub(crate) fn composed(
    inputs: &[&Tensor],
    params: &[&Arc<Param>],
    f: impl Fn(&[Data]) -> Result<Data> + Send + 'static,
) -> Result<Tensor> {
    let device = match inputs.first() {
        Some(x) => x.device().clone(),
        None => params.first().map_or(Device::Cpu, |p| p.weight().device()),
    };
    let numbers = {
        let (inputs, params): (Vec<Data>, Vec<Arc<Param>>) =
            (inputs.iter().map(|x| x.data().clone()).collect(), params.iter().map(|&p| p.clone()).collect());
        move || -> Result<(Vec<Data>, Vec<Arc<Param>>)> {
            let mut all = inputs.clone();
            for param in &params {
                all.push(param.compute().to_f32()?.to_device(&device)?);
            }
            Ok((all, params.clone()))
        }
    };
    let out = f(&numbers()?.0)?.detach();
    let count = inputs.len();
    let tracked: Vec<bool> = inputs.iter().map(|x| x.tracked()).collect();
    let wants = params.iter().any(|p| p.wants_grad());
    Ok(Tensor::record(out, inputs, wants, move |grad| {
        let (all, params) = numbers()?;
        let vars = all
            .iter()
            .enumerate()
            .map(|(i, data)| {
                let wanted = if i < count { tracked[i] } else { params[i - count].trainable() };
                if wanted { Ok(Some(Var::from_tensor(data)?)) } else { Ok(None) }
            })
            .collect::<Result<Vec<_>>>()?;
        let at = |i: usize| vars[i].as_ref().map_or_else(|| all[i].clone(), |v| v.as_tensor().clone());
        let args: Vec<Data> = (0..all.len()).map(at).collect();
        let out = f(&args)?;
        let dtype = wide(&out);
        let grads = (out.to_dtype(dtype)? * grad.to_dtype(dtype)?)?.sum_all()?.backward()?;
        let mut result = Vec::with_capacity(count);
        for (i, var) in vars.iter().enumerate() {
            let grad = var.as_ref().and_then(|v| grads.get(v.as_tensor()).cloned());
            if i < count {
                result.push(grad);
            } else if let Some(grad) = grad {
                params[i - count].accumulate_data(&grad)?;
            }
        }
        Ok(result)
    }))
}
