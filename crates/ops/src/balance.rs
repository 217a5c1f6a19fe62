//! Losses that keep a router's choices even. All have one form: how often something was chosen, a constant, times the
//! probability it was given, through which the gradient flows.

use candle_core::{Device, Result};
use phyla_kernels::balance as kernels;
use phyla_kernels::memory::zeros;

use crate::{Data, Routed, Tensor, cpu, plain};

/// What DeepSeek-V2 balances (section 2.2.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Balance {
    /// Rows over experts (eq. 23-25).
    Expert,
    /// Rows over devices, each holding as many neighbouring experts (eq. 26-28).
    Device {
        /// How many.
        devices: usize,
    },
    /// What devices receive (eq. 29-31): a row counts once for each device it is sent to.
    Communication {
        /// How many.
        devices: usize,
        /// The most devices a row is sent to, the paper's M: the groups that routing allows.
        limit: usize,
    },
}

/// `scale ·` the mean over sequences of `Σ_i f_i P_i`, as one number; `scale` is the paper's alpha.
///
/// The rows are `sequences` stretches of equal length; with 1 the whole batch is balanced (`seq_aux` off). Rows whose
/// `keep` is 0, padding, count nowhere.
pub fn balance(routed: &Routed, of: Balance, sequences: usize, keep: Option<&[u8]>, scale: f32) -> Result<Tensor> {
    let sizes = Sizes::of(routed, keep)?;
    if sequences == 0 || !sizes.rows.is_multiple_of(sequences) {
        candle_core::bail!("{} rows are not {sequences} sequences of one length", sizes.rows);
    }
    let devices = match of {
        Balance::Expert => sizes.experts,
        Balance::Device { devices } | Balance::Communication { devices, .. } => devices,
    };
    if devices == 0 || !sizes.experts.is_multiple_of(devices) {
        candle_core::bail!("{} experts cannot be spread evenly over {devices} devices", sizes.experts);
    }
    if matches!(of, Balance::Communication { limit: 0, .. }) {
        candle_core::bail!("communication is balanced for rows that are sent to at least one device, not to 0");
    }
    let time = sizes.rows / sequences;
    let kept = |row: usize| keep.is_none_or(|keep| keep[row] != 0);
    let counted: Vec<usize> =
        (0..sequences).map(|s| (s * time..(s + 1) * time).filter(|&row| kept(row)).count()).collect();
    // A sequence of nothing but padding has no balance.
    let present = counted.iter().filter(|&&rows| rows > 0).count();
    let mut factors = Vec::with_capacity(sequences * sizes.experts);
    for (s, &rows) in counted.iter().enumerate() {
        let mut frequency = vec![0f64; devices];
        for row in (s * time..(s + 1) * time).filter(|&row| kept(row)) {
            let mut device: Vec<usize> = routed.experts[row * sizes.k..][..sizes.k]
                .iter()
                .map(|&expert| expert as usize / (sizes.experts / devices))
                .collect();
            if matches!(of, Balance::Communication { .. }) {
                device.sort_unstable();
                device.dedup();
            }
            device.into_iter().for_each(|device| frequency[device] += 1.);
        }
        let rows = rows.max(1) as f64;
        // Eq. 24, 27 (its mean over the experts of a device) and 30; then 25, the mean probability.
        let even = match of {
            Balance::Expert | Balance::Device { .. } => devices as f64 / (sizes.k as f64 * rows),
            Balance::Communication { limit, .. } => devices as f64 / (limit as f64 * rows),
        };
        let share = scale as f64 / present.max(1) as f64 / rows;
        factors.extend((0..sizes.experts).map(|e| (frequency[e / (sizes.experts / devices)] * even * share) as f32));
    }
    sum(&[&routed.probs], factors, keep)
}

/// `scale · experts · Σ_e f_e P_e`: the loss of the Switch Transformer (eq. 4-6) over the rows of all layers together,
/// as transformers computes it for Mixtral and Qwen's mixtures. `f_e`, the choices of an expert for each row, sum
/// to `top_k`.
///
/// Rows whose `keep` is 0, the same in all layers, count nowhere.
pub fn load_balance(layers: &[&Routed], keep: Option<&[u8]>, scale: f32) -> Result<Tensor> {
    let Some(first) = layers.first() else { candle_core::bail!("no layer to balance") };
    let sizes = Sizes::of(first, keep)?;
    let mut counts = vec![0usize; sizes.experts];
    for layer in layers {
        if Sizes::of(layer, keep)? != sizes {
            candle_core::bail!(
                "layers balanced together need equal sizes, found probabilities of {:?} and {:?}",
                first.probs.dims(),
                layer.probs.dims()
            );
        }
        for (row, chosen) in layer.experts.chunks_exact(sizes.k).enumerate() {
            if keep.is_none_or(|keep| keep[row] != 0) {
                chosen.iter().for_each(|&expert| counts[expert as usize] += 1);
            }
        }
    }
    let kept = keep.map_or(sizes.rows, |keep| keep.iter().filter(|&&keep| keep != 0).count());
    let rows = (kept * layers.len()).max(1) as f64;
    let even = scale as f64 * sizes.experts as f64 / (rows * rows);
    let factors = counts.iter().map(|&count| (count as f64 * even) as f32).collect();
    sum(&layers.iter().map(|layer| &layer.probs).collect::<Vec<_>>(), factors, keep)
}

#[derive(PartialEq)]
struct Sizes {
    rows: usize,
    experts: usize,
    k: usize,
}

impl Sizes {
    fn of(routed: &Routed, keep: Option<&[u8]>) -> Result<Self> {
        let (rows, experts) = routed.probs.data().dims2()?;
        let k = routed.weights.last_dim();
        if k == 0 || routed.experts.len() != rows * k {
            candle_core::bail!("{rows} rows with {k} experts each, but {} were chosen", routed.experts.len());
        }
        if let Some(expert) = routed.experts.iter().find(|&&expert| expert as usize >= experts) {
            candle_core::bail!("expert {expert} was chosen among {experts}");
        }
        if let Some(keep) = keep.filter(|keep| keep.len() != rows) {
            candle_core::bail!("a mask of {} does not fit {rows} rows", keep.len());
        }
        Ok(Self { rows, experts, k })
    }
}

/// `Σ probs · factors` over all layers, the factors `[stretches, experts]` being the same in each.
fn sum(layers: &[&Tensor], factors: Vec<f32>, keep: Option<&[u8]>) -> Result<Tensor> {
    let (rows, experts) = layers[0].data().dims2()?;
    let keep = keep.map(<[u8]>::to_vec);
    if !layers.iter().all(|probs| plain::fast(probs)) {
        return plain::composed(layers, &[], move |args| {
            let (device, dtype) = (args[0].device(), args[0].dtype());
            let stretches = factors.len() / experts;
            let factors = Data::from_slice(&factors, (stretches, 1, experts), device)?.to_dtype(dtype)?;
            let keep = match &keep {
                Some(keep) => Data::from_slice(keep, (stretches, rows / stretches, 1), device)?.to_dtype(dtype)?,
                None => Data::ones((stretches, rows / stretches, 1), dtype, device)?,
            };
            let factors = factors.broadcast_mul(&keep)?;
            let mut total = Data::zeros((), dtype, device)?;
            for probs in args {
                total = (total + probs.reshape(factors.dims())?.mul(&factors)?.sum_all()?)?;
            }
            Ok(total)
        });
    }
    let total = {
        let by = kernels::Factors { factors: &factors, keep: keep.as_deref(), rows, experts };
        let sum = |probs: &&Tensor| Ok(kernels::sum(&cpu::view::<f32>(&probs.data().contiguous()?)?, &by));
        layers.iter().map(sum).sum::<Result<f64>>()?
    };
    let wanted: Vec<bool> = layers.iter().map(|probs| probs.tracked()).collect();
    Ok(Tensor::record(Data::new(total as f32, &Device::Cpu)?, layers, false, move |up| {
        let up = up.to_scalar::<f32>()?;
        let by = kernels::Factors { factors: &factors, keep: keep.as_deref(), rows, experts };
        let grad = |wanted: &bool| -> Result<Option<Data>> {
            let mut dprobs = zeros(if *wanted { rows * experts } else { 0 });
            if !*wanted {
                return Ok(None);
            }
            kernels::backward(&mut dprobs, up, &by);
            Ok(Some(cpu::tensor(dprobs, (rows, experts))?))
        };
        wanted.iter().map(grad).collect()
    }))
}
