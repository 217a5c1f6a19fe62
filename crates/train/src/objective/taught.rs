//! The losses of a batch under a teacher: its distributions beside the targets, over tokens or over classes, and its last
//! hidden states beside the student's.

use candle_core::Result;
use phyla_data::batch::{Batch, IGNORE, Labels};
use phyla_models::Model;
use phyla_ops::{CrossEntropy, Distillation, Tensor, Told};

use super::preference::Found;
use super::{Counts, Mode, Part, Seen, class_logits, see, values};
use crate::metrics::Means;
use crate::teacher::Teacher;

/// As the losses of the objective, of which each part is `(1 - alpha) · own + alpha · T² · divergence`.
pub(super) fn taught(
    model: &Model,
    batch: &Batch,
    seen: &mut Seen,
    (teacher, counts): (&Teacher, Counts),
    label_smoothing: f32,
) -> Result<Found> {
    let (settings, own) = (&teacher.settings, Counts::of(batch));
    let mut theirs = phyla_ops::no_grad(|| see(&teacher.model, batch, counts, &Mode::default(), None))?;
    let args = |part: Part| {
        let scale = 1. / counts.count(part).max(1) as f64;
        Distillation {
            hard: CrossEntropy { label_smoothing, scale: ((1. - settings.alpha) * scale) as f32 },
            divergence: settings.divergence(),
            temperature: settings.temperature as f32,
            soft: (settings.alpha * settings.temperature.powi(2) * scale) as f32,
        }
    };
    let (mut parts, mut means) = (vec![], Means::default());
    let mut put = |part: Part, (loss, told): (Tensor, Told)| {
        means.share("distill/hard", told.hard, own.count(part));
        means.share("distill/divergence", told.soft, own.count(part));
        parts.push((part, loss));
    };
    if own.tokens > 0 {
        let teacher = (&teacher.model, &theirs.hidden);
        let args = args(Part::Tokens);
        put(Part::Tokens, model.taught_loss(&seen.hidden, teacher, &batch.targets, args, &mut seen.pass)?);
    }
    if own.rows > 0 {
        let answers = model.answers(&seen.hidden, &seen.input, &mut seen.pass, |head| !head.is_lm())?;
        let of_teacher = phyla_ops::no_grad(|| {
            teacher.model.answers(&theirs.hidden, &theirs.input, &mut theirs.pass, |head| !head.is_lm())
        })?;
        put(Part::Rows, of_classes(&answers, &of_teacher, &batch.labels, args(Part::Rows))?);
    }
    if settings.hidden_weight > 0. {
        // A batch weighs in its step as its targets do.
        let part = if own.tokens > 0 { Part::Tokens } else { Part::Rows };
        let share = own.count(part) as f64 / counts.count(part).max(1) as f64;
        let (loss, apart) = apart(batch, &seen.hidden, &theirs.hidden, settings.hidden_weight * share)?;
        means.share("distill/hidden", apart * own.count(part) as f64, own.count(part));
        parts.push((part, loss));
    }
    Ok(Found { parts, means, ..Found::default() })
}

/// Rows that have a class, from the logits over classes of both sides.
fn of_classes(
    ours: &[phyla_models::Named],
    theirs: &[phyla_models::Named],
    labels: &Labels,
    args: Distillation,
) -> Result<(Tensor, Told)> {
    let Labels::Class(classes) = labels else {
        candle_core::bail!(
            "a teacher teaches one class a row; several at once and numbers have no distribution over classes"
        )
    };
    let counted = |(_, class): &(u32, &i32)| **class != IGNORE;
    let (rows, classes): (Vec<u32>, Vec<i32>) = (0u32..).zip(classes).filter(counted).unzip();
    let (ours, theirs) = (class_logits(ours)?, class_logits(theirs)?);
    if ours.last_dim() != theirs.last_dim() {
        candle_core::bail!("{} classes of the student, {} of its teacher", ours.last_dim(), theirs.last_dim());
    }
    let teacher = phyla_ops::no_grad(|| phyla_ops::gather_rows(theirs, &rows))?;
    phyla_ops::distillation(&phyla_ops::gather_rows(ours, &rows)?, teacher.data(), &classes, args)
}

/// The mean over tokens of `1 - cos` of both sides' hidden states times `weight`, and that mean alone.
fn apart(batch: &Batch, ours: &Tensor, theirs: &Tensor, weight: f64) -> Result<(Tensor, f64)> {
    /// As torch's `CosineEmbeddingLoss` adds to squared lengths.
    const EPSILON: f64 = 1e-12;
    let (width, tokens) = (ours.last_dim(), batch.lengths.iter().sum::<usize>().max(1) as f64);
    let (student, teacher) = (values(ours)?, values(theirs)?);
    let (mut gradient, mut sum) = (vec![0f32; student.len()], 0.);
    let dot = |a: &[f32], b: &[f32]| -> f64 { a.iter().zip(b).map(|(&a, &b)| f64::from(a) * f64::from(b)).sum() };
    for (row, &length) in batch.lengths.iter().enumerate() {
        for token in row * batch.time..row * batch.time + length {
            let at = token * width..(token + 1) * width;
            let (s, t) = (&student[at.clone()], &teacher[at.clone()]);
            let (of_student, of_teacher) = (dot(s, s) + EPSILON, dot(t, t) + EPSILON);
            let cosine = dot(s, t) / (of_student * of_teacher).sqrt();
            sum += 1. - cosine;
            let (by_teacher, by_student) = (1. / (of_student * of_teacher).sqrt(), cosine / of_student);
            let slope = |s: f32, t: f32| by_student * f64::from(s) - by_teacher * f64::from(t);
            let scale = weight / tokens;
            gradient[at]
                .iter_mut()
                .zip(s.iter().zip(t))
                .for_each(|(out, (&s, &t))| *out = (scale * slope(s, t)) as f32);
        }
    }
    Ok((phyla_ops::reduced(ours, weight * sum / tokens, gradient)?, sum / tokens))
}
