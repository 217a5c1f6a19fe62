//! The update rules in tensor operations: what the kernels do, for other devices than the CPU.

use candle_core::{DType, Result};
use phyla_ops::{Data, Weight};

use super::{Call, Item};
use crate::recipe::Rule;

impl Call<'_> {
    /// As `fused`. Weight, states and bf16 copy are replaced by new tensors' values.
    pub(super) fn plain(&self, item: &Item, grad: &Data) -> Result<()> {
        let (lr, decay) = (self.lr(), self.settings.weight_decay);
        let p = item.param.weight().to_f32()?;
        let g = (grad * f64::from(self.args.grad_scale))?;
        let kept = (&p * (1. - lr * decay))?;
        let new = match (self.rule, item.state.as_slice()) {
            (Rule::Adamw(rule), [m, v]) => {
                let [beta1, beta2] = rule.betas;
                let m_new = ((m * beta1)? + (&g * (1. - beta1))?)?;
                let v_new = ((v * beta2)? + (g.sqr()? * (1. - beta2))?)?;
                let step = self.step as i32;
                let root = ((&v_new / (1. - beta2.powi(step)))?.sqrt()? + rule.eps)?;
                let new = (kept - ((&m_new * (lr / (1. - beta1.powi(step))))? / root)?)?;
                set(m, &m_new)?;
                set(v, &v_new)?;
                new
            }
            (Rule::Sgd(_), []) => (kept - (g * lr)?)?,
            (Rule::Sgd(rule), [velocity]) => {
                let new = if self.step == 1 { g.clone() } else { ((velocity * rule.momentum)? + &g)? };
                let direction = if rule.nesterov { (g + (&new * rule.momentum)?)? } else { new.clone() };
                set(velocity, &new)?;
                (kept - (direction * lr)?)?
            }
            (Rule::Lion(rule), [m]) => {
                let [beta1, beta2] = rule.betas;
                let direction = ((m * beta1)? + (&g * (1. - beta1))?)?.sign()?;
                set(m, &((m * beta2)? + (g * (1. - beta2))?)?)?;
                (kept - (direction * lr)?)?
            }
            (Rule::Adafactor(_), _) => {
                candle_core::bail!("adafactor runs on the CPU only; on {:?} take adamw, sgd or lion", p.device())
            }
            (_, states) => candle_core::bail!("an update rule with {} states", states.len()),
        };
        if let Some(low) = item.param.low() {
            set(&low, &new.to_dtype(DType::BF16)?)?;
        }
        item.param.set_weight(Weight::Dense(new))
    }
}

fn set(data: &Data, values: &Data) -> Result<()> {
    data.slice_set(&values.contiguous()?, 0, 0)
}
