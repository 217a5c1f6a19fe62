//! Convolution over time: a `linear` whose input is a window of steps.

use std::sync::Arc;

use candle_core::Result;
use phyla_kernels::memory::zeros;
use phyla_kernels::product::{self, MatRef, Precision};
use phyla_kernels::rows;
use phyla_kernels::unfold::{Windows, fold, unfold};

use crate::linear::check_bias;
use crate::{Data, Param, Tensor, cpu, plain};

/// How windows lie over the steps, and which channels see which.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Conv1d {
    /// Channels in this many groups, each apart from the others; 1 for none.
    pub groups: usize,
    /// Zeros before the first step.
    pub left: usize,
    /// Zeros after the last.
    pub right: usize,
}

impl Conv1d {
    /// As many steps out as in, the window of `taps` steps around each; with an even number one more after it.
    pub fn same(taps: usize, groups: usize) -> Self {
        let zeros = taps.saturating_sub(1);
        Self { groups, left: zeros / 2, right: zeros - zeros / 2 }
    }

    /// As many steps out as in, each seeing itself and those before.
    pub fn causal(taps: usize, groups: usize) -> Self {
        Self { groups, left: taps.saturating_sub(1), right: 0 }
    }
}

/// `y[b, t, o] = bias[o] + Σ_c Σ_j w[o, c, j] · x[b, t + j - left, group's first + c]`.
///
/// `x` is `[batch, time, in]`, `w` `[out, in / groups, taps]` (PyTorch's), the result `[batch, time + left + right + 1 -
/// taps, out]`.
pub fn conv1d(x: &Tensor, w: &Arc<Param>, b: Option<&Arc<Param>>, args: Conv1d) -> Result<Tensor> {
    let sizes = Sizes::of(x, w, args)?;
    check_bias(sizes.out, b)?;
    if !plain::fast(x) {
        let mut params = vec![w];
        params.extend(b);
        return plain::composed(&[x], &params, move |given| reference(given, sizes));
    }
    let input = x.data().contiguous()?;
    let mut y = zeros(sizes.batch * sizes.windows * sizes.out);
    {
        let (input, bias) = (cpu::view::<f32>(&input)?, b.map(|b| b.weight().to_f32()).transpose()?);
        let bias = bias.as_ref().map(cpu::view::<f32>).transpose()?;
        w.compute().with(|w| {
            forward(&mut y, &input, w, bias.as_deref(), sizes);
            Ok(())
        })?;
    }
    let wants = w.wants_grad() || b.is_some_and(|b| b.wants_grad());
    let (w, b, tracked) = (w.clone(), b.cloned(), x.tracked());
    let y = cpu::tensor(y, (sizes.batch, sizes.windows, sizes.out))?;
    // A frozen weight needs no input kept for its gradient.
    let kept = w.trainable().then_some(input);
    Ok(Tensor::record(y, &[x], wants, move |dy| {
        let dy = dy.contiguous()?;
        let dy = cpu::view::<f32>(&dy)?;
        if let Some(x) = &kept {
            let x = cpu::view::<f32>(x)?;
            w.accumulate(|dw| {
                weight_backward(dw, &dy, &x, sizes);
                Ok(())
            })?;
        }
        if let Some(b) = b.filter(|b| b.trainable()) {
            b.accumulate(|db| {
                product::sum_rows(db, &dy, sizes.batch * sizes.windows, sizes.out);
                Ok(())
            })?;
        }
        if !tracked {
            return Ok(vec![None]);
        }
        let mut dx = zeros(sizes.batch * sizes.time * sizes.channels);
        w.compute().with(|w| {
            input_backward(&mut dx, &dy, w, sizes);
            Ok(())
        })?;
        Ok(vec![Some(cpu::tensor(dx, (sizes.batch, sizes.time, sizes.channels))?)])
    }))
}

#[derive(Clone, Copy)]
struct Sizes {
    batch: usize,
    time: usize,
    channels: usize,
    out: usize,
    taps: usize,
    windows: usize,
    args: Conv1d,
    precision: Precision,
}

/// Windows are unfolded for whole sequences, about this many rows at a time: enough for the product to run at its
/// peak, few enough not to hold the input several times over.
const ROWS: usize = 1024;

impl Sizes {
    fn of(x: &Tensor, w: &Param, args: Conv1d) -> Result<Self> {
        let (&[batch, time, channels], &[out, each, taps]) = (x.dims(), w.dims()) else {
            candle_core::bail!(
                "{}: a convolution takes [batch, time, in] and a weight [out, in / groups, taps], found {:?} and {:?}",
                w.path(),
                x.dims(),
                w.dims()
            );
        };
        let Conv1d { groups, left, right } = args;
        if groups == 0 || each * groups != channels || !out.is_multiple_of(groups) {
            candle_core::bail!(
                "{}: a weight of {:?} in {groups} groups does not fit an input of {:?}",
                w.path(),
                w.dims(),
                x.dims()
            );
        }
        let padded = time + left + right;
        if taps == 0 || taps > padded {
            candle_core::bail!("{}: a window of {taps} steps does not fit {padded} steps, padding included", w.path());
        }
        Ok(Self { batch, time, channels, out, taps, windows: padded + 1 - taps, args, precision: w.precision() })
    }

    /// The channels of a group.
    fn group(&self, group: usize) -> Windows {
        let Self { time, channels, taps, windows, .. } = *self;
        let count = channels / self.args.groups;
        Windows { time, channels, taps, left: self.args.left, windows, first: group * count, count }
    }

    /// Outputs, inputs and columns of a window of one group.
    fn of_group(&self) -> (usize, usize) {
        (self.out / self.args.groups, self.channels / self.args.groups * self.taps)
    }

    /// Ranges of sequences.
    fn stretches(self) -> impl Iterator<Item = std::ops::Range<usize>> {
        let step = (ROWS / self.windows.max(1)).max(1);
        (0..self.batch).step_by(step).map(move |at| at..self.batch.min(at + step))
    }
}

fn forward(y: &mut [f32], x: &[f32], w: MatRef, bias: Option<&[f32]>, s: Sizes) {
    let (n, k) = s.of_group();
    let (mut u, mut z) = (vec![], vec![]);
    for stretch in s.stretches() {
        let (m, sequences) = (stretch.len() * s.windows, stretch.clone());
        let x = &x[stretch.start * s.time * s.channels..stretch.end * s.time * s.channels];
        let y = &mut y[sequences.start * s.windows * s.out..sequences.end * s.windows * s.out];
        u.resize(m * k, 0.);
        for group in 0..s.args.groups {
            unfold(&mut u, x, &s.group(group));
            let (w, bias) = (w.slice(group * n * k..(group + 1) * n * k), bias.map(|b| &b[group * n..][..n]));
            if s.args.groups == 1 {
                product::linear(y, &u, w, bias, [m, n, k], s.precision);
            } else {
                z.resize(m * n, 0.);
                product::linear(&mut z, &u, w, bias, [m, n, k], s.precision);
                rows::put_columns(y, &z, [m, s.out, group * n, n]);
            }
        }
    }
}

/// One group's columns of `dy`, copied only where there are others.
fn columns<'a>(to: &'a mut Vec<f32>, dy: &'a [f32], m: usize, group: usize, s: Sizes) -> &'a [f32] {
    if s.args.groups == 1 {
        return dy;
    }
    let n = s.out / s.args.groups;
    to.resize(m * n, 0.);
    rows::take_columns(to, dy, [m, s.out, group * n, n]);
    to
}

fn weight_backward(dw: &mut [f32], dy: &[f32], x: &[f32], s: Sizes) {
    let (n, k) = s.of_group();
    let (mut u, mut z) = (vec![], vec![]);
    for stretch in s.stretches() {
        let m = stretch.len() * s.windows;
        let x = &x[stretch.start * s.time * s.channels..stretch.end * s.time * s.channels];
        let dy = &dy[stretch.start * s.windows * s.out..stretch.end * s.windows * s.out];
        u.resize(m * k, 0.);
        for group in 0..s.args.groups {
            unfold(&mut u, x, &s.group(group));
            let dy = columns(&mut z, dy, m, group, s);
            product::linear_dw(&mut dw[group * n * k..(group + 1) * n * k], dy, &u, [m, n, k], true, s.precision);
        }
    }
}

fn input_backward(dx: &mut [f32], dy: &[f32], w: MatRef, s: Sizes) {
    let (n, k) = s.of_group();
    let (mut du, mut z) = (vec![], vec![]);
    for stretch in s.stretches() {
        let m = stretch.len() * s.windows;
        let dx = &mut dx[stretch.start * s.time * s.channels..stretch.end * s.time * s.channels];
        let dy = &dy[stretch.start * s.windows * s.out..stretch.end * s.windows * s.out];
        du.resize(m * k, 0.);
        for group in 0..s.args.groups {
            let dy = columns(&mut z, dy, m, group, s);
            let w = w.slice(group * n * k..(group + 1) * n * k);
            product::linear_dx(&mut du, dy, w, [m, n, k], false, s.precision);
            fold(dx, &du, &s.group(group));
        }
    }
}

/// Tap by tap: the input, shifted, times the weight of that tap.
fn reference(given: &[Data], s: Sizes) -> Result<Data> {
    let (x, w) = (&given[0], given[1].to_dtype(given[0].dtype())?);
    let x = x.pad_with_zeros(1, s.args.left, s.args.right)?;
    let (n, each) = (s.out / s.args.groups, s.channels / s.args.groups);
    let mut groups = vec![];
    for group in 0..s.args.groups {
        let mut sum = Data::zeros((s.batch * s.windows, n), x.dtype(), x.device())?;
        for tap in 0..s.taps {
            let x = x.narrow(1, tap, s.windows)?.narrow(2, group * each, each)?.contiguous()?;
            let w = w.narrow(0, group * n, n)?.narrow(2, tap, 1)?.squeeze(2)?.t()?.contiguous()?;
            sum = (sum + x.reshape((s.batch * s.windows, each))?.matmul(&w)?)?;
        }
        groups.push(sum);
    }
    let y = Data::cat(&groups, 1)?;
    let y = match given.get(2) {
        Some(b) => y.broadcast_add(&b.to_dtype(y.dtype())?)?,
        None => y,
    };
    y.reshape((s.batch, s.windows, s.out))
}
