//! Which experts each row goes to, and with what weight (Shazeer et al. 2017; Mixtral; DeepSeek-V2, eq. 20-22). What
//! then happens to the rows is in `experts`, what keeps the choice even in `balance`.

use candle_core::{D, DType, Result};
use phyla_kernels::memory::zeros;
pub use phyla_kernels::route::Groups;
use phyla_kernels::{loss, route as kernels};

use crate::{Data, Tensor, cpu, plain};

/// How experts are chosen. Weights are probabilities out of a softmax over all experts.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Routing {
    /// Experts a row goes to.
    pub top_k: usize,
    /// Divide the weights by their sum over the chosen, which is the same as a softmax over the chosen alone (Mixtral
    /// always; elsewhere `norm_topk_prob`).
    pub renormalise: bool,
    /// Factor on the weights, after that (`routed_scaling_factor`); 1 for none.
    pub scale: f32,
    /// Choose groups first, then experts within them (DeepSeek-V2's `group_limited_greedy`).
    pub groups: Option<Groups>,
}

/// Where rows go.
#[derive(Clone, Debug)]
pub struct Routed {
    /// `[rows, top_k]`: the factor on each chosen expert's answer.
    pub weights: Tensor,
    /// `[rows, top_k]`: the experts, best first; of equally likely ones the lowest, where PyTorch leaves it open.
    pub experts: Vec<u32>,
    /// `[rows, experts]`: the softmax over all, groups or not, for the balance losses.
    pub probs: Tensor,
}

/// Chooses experts for each row of `logits [.., experts]`. Weights and probabilities are differentiable; the choice
/// is not.
pub fn route(logits: &Tensor, routing: &Routing) -> Result<Routed> {
    let (rows, experts) = (logits.rows(), logits.last_dim());
    check(experts, routing)?;
    let probs = softmax(logits, [rows, experts])?;
    let mut chosen = vec![0; rows * routing.top_k];
    let sizes = [experts, routing.top_k];
    if plain::fast(&probs) {
        kernels::top_k(&mut chosen, &cpu::view::<f32>(probs.data())?, sizes, routing.groups);
    } else {
        let scores: Vec<f32> = probs.data().to_dtype(DType::F32)?.flatten_all()?.to_vec1()?;
        kernels::top_k(&mut chosen, &scores, sizes, routing.groups);
    }
    Ok(Routed { weights: weigh(&probs, &chosen, routing)?, experts: chosen, probs })
}

fn check(experts: usize, routing: &Routing) -> Result<()> {
    let k = routing.top_k;
    let within = match routing.groups {
        None => experts,
        Some(Groups { count, top }) if count > 0 && top <= count && experts.is_multiple_of(count) => {
            experts / count * top
        }
        Some(Groups { count, top }) => {
            candle_core::bail!("routing to {top} of {count} groups: {experts} experts do not come in such groups")
        }
    };
    if k == 0 || k > within {
        candle_core::bail!("routing to {k} experts: a row may choose among {within} of {experts}");
    }
    Ok(())
}

fn softmax(logits: &Tensor, [rows, experts]: [usize; 2]) -> Result<Tensor> {
    if !plain::fast(logits) {
        return plain::composed(&[logits], &[], move |args| {
            let x = args[0].reshape((rows, experts))?.to_dtype(plain::wide(&args[0]))?;
            let powers = x.broadcast_sub(&x.max_keepdim(D::Minus1)?.detach())?.exp()?;
            powers.broadcast_div(&powers.sum_keepdim(D::Minus1)?)
        });
    }
    let input = logits.data().contiguous()?;
    let mut probs = cpu::view::<f32>(&input)?.to_vec();
    loss::softmax_rows(&mut probs, experts);
    let (probs, from) = (cpu::tensor(probs, (rows, experts))?, input.shape().clone());
    let kept = probs.clone();
    Ok(Tensor::record(probs, &[logits], false, move |dy| {
        let dy = dy.contiguous()?;
        let mut dx = zeros(rows * experts);
        kernels::softmax_backward(&mut dx, &cpu::view::<f32>(&dy)?, &cpu::view::<f32>(&kept)?, experts);
        Ok(vec![Some(cpu::tensor(dx, from)?)])
    }))
}

fn weigh(probs: &Tensor, chosen: &[u32], routing: &Routing) -> Result<Tensor> {
    let (sizes, rows) = ([probs.last_dim(), routing.top_k], probs.rows());
    let how = kernels::Weighing { renormalise: routing.renormalise, scale: routing.scale };
    let chosen = chosen.to_vec();
    if !plain::fast(probs) {
        return plain::composed(&[probs], &[], move |args| {
            let chosen = Data::from_slice(&chosen, (rows, sizes[1]), args[0].device())?;
            let weights = args[0].gather(&chosen, 1)?;
            let weights = if how.renormalise { weights.broadcast_div(&weights.sum_keepdim(1)?)? } else { weights };
            weights * f64::from(how.scale)
        });
    }
    let kept = probs.data().clone();
    let mut weights = zeros(rows * sizes[1]);
    kernels::weigh(&mut weights, &cpu::view::<f32>(&kept)?, &chosen, sizes, how);
    Ok(Tensor::record(cpu::tensor(weights, (rows, sizes[1]))?, &[probs], false, move |dy| {
        let dy = dy.contiguous()?;
        let mut dprobs = zeros(rows * sizes[0]);
        kernels::weigh_backward(&mut dprobs, &cpu::view::<f32>(&dy)?, &cpu::view::<f32>(&kept)?, &chosen, sizes, how);
        Ok(vec![Some(cpu::tensor(dprobs, (rows, sizes[0]))?)])
    }))
}
