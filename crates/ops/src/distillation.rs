//! What a student learns of a teacher's logits (Hinton et al. 2015) beside the targets: `loss` with a second term, from logits
//! or fused with the products that make both sides'.

use std::sync::Arc;

use candle_core::{D, Result};
use phyla_kernels::divergence::{Divergence, divergence_rows};
use phyla_kernels::loss::cross_entropy_rows;
use phyla_kernels::memory::alloc;

use crate::linear::{check_bias, check_gradient, sizes};
use crate::logits::Logits;
use crate::loss::{IGNORE, check, reference as cross_entropy};
use crate::{CrossEntropy, Data, Param, Tensor, cpu, plain};

/// How both terms become one number. Rows without a target count in neither.
#[derive(Clone, Copy, Debug)]
pub struct Distillation {
    /// The term of the targets.
    pub hard: CrossEntropy,
    /// Which divergence from the teacher.
    pub divergence: Divergence,
    /// What both sides' logits are divided by before they become probabilities.
    pub temperature: f32,
    /// Factor on the sum of divergences.
    pub soft: f32,
}

/// The sums over rows of both terms, without their factors.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Told {
    /// Cross-entropies.
    pub hard: f64,
    /// Divergences.
    pub soft: f64,
}

impl Distillation {
    /// Adds what some rows give; with a gradient wanted, it takes the place of the logits.
    fn rows(&self, logits: &mut [f32], teacher: &[f32], targets: &[i32], wanted: bool, told: &mut Told) -> Result<()> {
        let rows = targets.len();
        let sizes = [logits.len() / rows.max(1), teacher.len() / rows.max(1)];
        let mut found = alloc(rows);
        let (smoothing, way) = (self.hard.label_smoothing, (self.divergence, self.temperature));
        let sum = |found: &[f32]| found.iter().map(|&x| f64::from(x)).sum::<f64>();
        let mut hard = |logits: &mut [f32], scale, found: &mut [f32]| {
            let done = cross_entropy_rows(logits, targets, smoothing, scale, found).map_err(candle_core::Error::wrap);
            told.hard += sum(found);
            done
        };
        if wanted {
            let mut student = alloc(logits.len());
            student.copy_from_slice(logits);
            hard(logits, Some(self.hard.scale), &mut found)?;
            divergence_rows(&student, teacher, sizes, way, Some((self.soft, logits)), &mut found);
        } else {
            hard(logits, None, &mut found)?;
            divergence_rows(logits, teacher, sizes, way, None, &mut found);
        }
        told.soft += sum(&found);
        Ok(())
    }

    fn total(&self, told: Told) -> Result<Data> {
        let sum = f64::from(self.hard.scale) * told.hard + f64::from(self.soft) * told.soft;
        Data::new(sum as f32, &candle_core::Device::Cpu)
    }
}

/// `hard · Σ cross-entropy + soft · Σ divergence` of `logits[rows, vocab]` against the targets and `teacher[rows, any]`, over
/// the classes that both have; all rows have a target.
///
/// # Errors
/// Numbers of rows that differ, and rows without a target.
pub fn distillation(logits: &Tensor, teacher: &Data, targets: &[i32], args: Distillation) -> Result<(Tensor, Told)> {
    check_rows([logits.rows(), teacher.elem_count() / teacher.dim(D::Minus1)?.max(1)], logits.last_dim(), targets)?;
    if !plain::fast(logits) {
        return composed(logits, teacher, targets, args);
    }
    let wanted = logits.tracked() && crate::recording();
    let mut values = cpu::view::<f32>(&logits.data().contiguous()?)?.to_vec();
    let mut told = Told::default();
    let teacher = teacher.contiguous()?;
    args.rows(&mut values, &cpu::view::<f32>(&teacher)?, targets, wanted, &mut told)?;
    let shape = logits.data().shape().clone();
    let loss = Tensor::record(args.total(told)?, &[logits], false, move |up| {
        let up = up.to_scalar::<f32>()?;
        if up != 1. {
            phyla_kernels::elementwise::scale(&mut values, up);
        }
        Ok(vec![Some(cpu::tensor(values, shape)?)])
    });
    Ok((loss, told))
}

/// The same for `x wᵀ + b` on both sides, of which a few rows at a time are held; as in [`crate::linear_cross_entropy`] the
/// backward pass is done on the spot, and must begin here.
///
/// # Errors
/// As [`distillation`], and sizes that do not fit.
pub fn linear_distillation(
    [x, teacher_x]: [&Tensor; 2],
    [w, teacher_w]: [&Arc<Param>; 2],
    [b, teacher_b]: [Option<&Arc<Param>>; 2],
    targets: &[i32],
    args: Distillation,
) -> Result<(Tensor, Told)> {
    let ((vocab, _), (theirs, _)) = (sizes(x, w)?, sizes(teacher_x, teacher_w)?);
    check_bias(vocab, b)?;
    check_rows([x.rows(), teacher_x.rows()], vocab, targets)?;
    if !plain::fast(x) || b.is_some_and(|b| b.wants_grad()) {
        let teacher = crate::no_grad(|| crate::linear(teacher_x, teacher_w, teacher_b))?;
        return distillation(&crate::linear(x, w, b)?, teacher.data(), targets, args);
    }
    check_gradient(x, w)?;
    let tracked = crate::recording() && (x.tracked() || w.trainable());
    let (made, teacher) = (Logits::new(x, w, b)?, Logits::new(teacher_x, teacher_w, teacher_b)?);
    let mut dx = if tracked { made.room() } else { vec![] };
    let (mut told, mut room) = (Told::default(), vec![]);
    made.each(|start, logits| {
        let rows = logits.len() / vocab;
        room.resize(rows * theirs, 0.);
        teacher.fill(start, &mut room)?;
        args.rows(logits, &room, &targets[start..start + rows], tracked, &mut told)?;
        if tracked { made.back(start, logits, &mut dx) } else { Ok(()) }
    })?;
    let dx = if tracked { Some(made.shaped(dx)?) } else { None };
    let loss = Tensor::record(args.total(told)?, &[x], w.wants_grad(), move |up| {
        let up = up.to_scalar::<f32>()?;
        if up != 1. {
            candle_core::bail!(
                "the fused loss must be where the backward pass starts; found a gradient of {up} for it"
            );
        }
        Ok(vec![dx])
    });
    Ok((loss, told))
}

fn check_rows([rows, teacher]: [usize; 2], vocab: usize, targets: &[i32]) -> Result<()> {
    if rows != teacher {
        candle_core::bail!("{rows} rows of a student's logits against {teacher} of its teacher's");
    }
    if let Some(row) = targets.iter().position(|&target| target == IGNORE) {
        candle_core::bail!("row {row} has no target: leave it out, here every row counts");
    }
    check(rows, vocab, targets)
}

fn composed(logits: &Tensor, teacher: &Data, targets: &[i32], args: Distillation) -> Result<(Tensor, Told)> {
    let both = |data: &Data| -> Result<[Data; 2]> {
        let hard = cross_entropy(data, targets, CrossEntropy { scale: 1., ..args.hard })?;
        Ok([hard, divergence(data, teacher, args)?])
    };
    let [hard, soft] = both(logits.data())?;
    let number = |data: Data| data.to_dtype(candle_core::DType::F64)?.to_scalar::<f64>();
    let told = Told { hard: number(hard)?, soft: number(soft)? };
    let (teacher, targets) = (teacher.clone(), targets.to_vec());
    let loss = plain::composed(&[logits], &[], move |x| {
        let hard = cross_entropy(&x[0], &targets, args.hard)?;
        hard + (divergence(&x[0], &teacher, args)? * f64::from(args.soft))?
    })?;
    Ok((loss, told))
}

fn divergence(logits: &Data, teacher: &Data, args: Distillation) -> Result<Data> {
    let (ours, theirs) = (logits.dim(D::Minus1)?, teacher.dim(D::Minus1)?);
    let log_probs = |x: &Data, vocab: usize| -> Result<Data> {
        let x = x.reshape(((), vocab))?.narrow(1, 0, ours.min(theirs))?.to_dtype(plain::wide(logits))?;
        let x = (x / f64::from(args.temperature))?;
        let shifted = x.broadcast_sub(&x.max_keepdim(1)?.detach())?;
        shifted.broadcast_sub(&shifted.exp()?.sum_keepdim(1)?.log()?)
    };
    let (p, q) = (log_probs(logits, ours)?, log_probs(teacher, theirs)?);
    let kl = |a: &Data, b: &Data| (a.exp()? * (a - b)?)?.sum_all();
    match args.divergence {
        Divergence::Forward => kl(&q, &p),
        Divergence::Reverse => kl(&p, &q),
        Divergence::Between(beta) => {
            let beta = f64::from(beta);
            let m = ((p.exp()? * (1. - beta))? + (q.exp()? * beta)?)?.log()?;
            (kl(&q, &m)? * beta)? + (kl(&p, &m)? * (1. - beta))?
        }
    }
}
