//! Rows sent to their experts and the answers brought back. The choice itself is made in `route`.

use candle_core::Result;
use phyla_kernels::memory::zeros;
use phyla_kernels::route as kernels;

use crate::{Data, Tensor, cpu, gather_rows, plain, split_rows};

/// The rows that one expert gets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Group {
    /// The expert.
    pub expert: usize,
    /// Its rows, ascending.
    pub rows: Vec<u32>,
    /// For each of them the place of this choice in `[rows, top_k]`.
    pub slots: Vec<u32>,
}

/// Sorts the choices `[rows, top_k]` by expert; experts that nobody chose are left out.
pub fn group_by_expert(chosen: &[u32], top_k: usize, experts: usize) -> Result<Vec<Group>> {
    if top_k == 0 || !chosen.len().is_multiple_of(top_k) {
        candle_core::bail!("{} choices are not {top_k} for each row", chosen.len());
    }
    let mut counts = vec![0usize; experts];
    for (slot, &expert) in chosen.iter().enumerate() {
        match counts.get_mut(expert as usize) {
            Some(count) => *count += 1,
            None => candle_core::bail!("row {} chose expert {expert} of {experts}", slot / top_k),
        }
    }
    let empty = |(expert, &count): (usize, &usize)| Group {
        expert,
        rows: Vec::with_capacity(count),
        slots: Vec::with_capacity(count),
    };
    let mut groups: Vec<Group> = counts.iter().enumerate().map(empty).collect();
    for (slot, &expert) in chosen.iter().enumerate() {
        let group = &mut groups[expert as usize];
        group.rows.push((slot / top_k) as u32);
        group.slots.push(slot as u32);
    }
    groups.retain(|group| !group.rows.is_empty());
    Ok(groups)
}

/// For each group its rows of `x [.., dim]`: `[group's rows, dim]`.
///
/// One copy, and one gradient for all groups together.
pub fn dispatch(x: &Tensor, groups: &[Group]) -> Result<Vec<Tensor>> {
    let rows: Vec<u32> = groups.iter().flat_map(|group| &group.rows).copied().collect();
    let sizes: Vec<usize> = groups.iter().map(|group| group.rows.len()).collect();
    split_rows(&gather_rows(x, &rows)?, &sizes)
}

/// `out[row] = Σ_j weights[row, j] · answer[row, j]`, `[rows, dim]`, from each group's answers `[group's rows, dim]` and
/// their slots; `weights` is `[rows, top_k]`.
///
/// A slot that no group answers adds nothing: its expert is elsewhere. The sum runs in the order of `j`.
pub fn combine(answers: &[(Tensor, &[u32])], weights: &Tensor, dim: usize) -> Result<Tensor> {
    let &[rows, k] = weights.dims() else {
        candle_core::bail!("weights of experts are [rows, top_k], found {:?}", weights.dims());
    };
    check(answers, rows * k, dim)?;
    let slots: Vec<u32> = answers.iter().flat_map(|(_, slots)| *slots).copied().collect();
    let inputs: Vec<&Tensor> = answers.iter().map(|(answer, _)| answer).chain([weights]).collect();
    if !inputs.iter().all(|x| plain::fast(x)) {
        return plain::composed(&inputs, &[], move |args| reference(args, &slots, [rows, k, dim]));
    }
    let kept: Vec<Data> = answers.iter().map(|(y, _)| y.data().contiguous()).collect::<Result<_>>()?;
    let factors = weights.data().contiguous()?;
    let mut out = zeros(rows * dim);
    if dim > 0 && k > 0 {
        with_answers(&kept, &slots, rows * k, dim, |answers| {
            kernels::combine(&mut out, answers, &cpu::view::<f32>(&factors)?, k, dim);
            Ok(())
        })?;
    }
    let tracked: Vec<bool> = inputs.iter().map(|x| x.tracked()).collect();
    Ok(Tensor::record(cpu::tensor(out, (rows, dim))?, &inputs, false, move |dout| {
        let dout = dout.contiguous()?;
        let dout = cpu::view::<f32>(&dout)?;
        let mut danswers = zeros(if tracked[..kept.len()].contains(&true) { slots.len() * dim } else { 0 });
        let mut dweights = zeros(rows * k);
        if dim > 0 && k > 0 {
            if !danswers.is_empty() {
                let factors = cpu::view::<f32>(&factors)?;
                kernels::combine_backward_answers(&mut danswers, &dout, &factors, &slots, k, dim);
            }
            if tracked[kept.len()] {
                with_answers(&kept, &slots, rows * k, dim, |answers| {
                    kernels::combine_backward_weights(&mut dweights, &dout, answers, k, dim);
                    Ok(())
                })?;
            }
        }
        // Each group's gradient is a stretch of one tensor.
        let count = danswers.len() / dim.max(1);
        let danswers = cpu::tensor(danswers, (count, dim))?;
        let mut grads = Vec::with_capacity(tracked.len());
        let mut at = 0;
        for (answer, &tracked) in kept.iter().zip(&tracked) {
            let rows = answer.dim(0)?;
            grads.push(if tracked { Some(danswers.narrow(0, at.min(count), rows.min(count))?) } else { None });
            at += rows;
        }
        grads.push(if tracked[kept.len()] { Some(cpu::tensor(dweights, (rows, k))?) } else { None });
        Ok(grads)
    }))
}

fn check(answers: &[(Tensor, &[u32])], slots: usize, dim: usize) -> Result<()> {
    let mut answered = vec![false; slots];
    for (answer, slots_of) in answers {
        if answer.dims() != [slots_of.len(), dim] {
            candle_core::bail!("{} slots need answers of [{0}, {dim}], found {:?}", slots_of.len(), answer.dims());
        }
        for &slot in *slots_of {
            match answered.get_mut(slot as usize) {
                Some(answered) if !*answered => *answered = true,
                Some(_) => candle_core::bail!("slot {slot} is answered twice"),
                None => candle_core::bail!("an answer for slot {slot} of {slots}"),
            }
        }
    }
    Ok(())
}

/// Lends out the answers in the order of slots, wherever they lie.
fn with_answers<R>(
    answers: &[Data],
    slots: &[u32],
    count: usize,
    dim: usize,
    f: impl FnOnce(&[Option<&[f32]>]) -> Result<R>,
) -> Result<R> {
    let views: Vec<_> = answers.iter().map(cpu::view::<f32>).collect::<Result<_>>()?;
    let mut by_slot = vec![None; count];
    let rows = views.iter().flat_map(|view| view.chunks_exact(dim));
    for (row, &slot) in rows.zip(slots) {
        by_slot[slot as usize] = Some(row);
    }
    f(&by_slot)
}

fn reference(args: &[Data], slots: &[u32], [rows, k, dim]: [usize; 3]) -> Result<Data> {
    let (weights, answers) = (&args[args.len() - 1], &args[..args.len() - 1]);
    let zeros = Data::zeros((rows, dim), weights.dtype(), weights.device())?;
    let answers: Vec<&Data> = answers.iter().filter(|y| y.elem_count() > 0).collect();
    if answers.is_empty() {
        return Ok(zeros);
    }
    let list = |ids: Vec<u32>| Data::from_vec(ids, slots.len(), weights.device());
    let weight = weights.reshape((rows * k, 1))?.index_select(&list(slots.to_vec())?, 0)?;
    let weighed = Data::cat(&answers, 0)?.broadcast_mul(&weight)?;
    zeros.index_add(&list(slots.iter().map(|slot| slot / k as u32).collect())?, &weighed, 0)
}
