//! How far the distribution of one row of logits is from that of another, with the gradient by the first: what a student
//! learns of a teacher, where `loss` knows one class alone.

use crate::chunk::{self, Parts};
use crate::vector::{self, Math, per_isa};

/// Which divergence, of a student's distribution `p` and a teacher's `q`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Divergence {
    /// `KL(q ‖ p)`: the student covers all that the teacher finds possible.
    Forward,
    /// `KL(p ‖ q)`: the student keeps to what the teacher finds likely.
    Reverse,
    /// `β KL(q ‖ m) + (1 - β) KL(p ‖ m)` with `m = β q + (1 - β) p` (Agarwal et al. 2024, eq. 1), `β` between 0 and 1.
    Between(f32),
}

/// The divergence of every row of `student[rows, ours]` from `teacher[rows, theirs]`, both divided by `temperature`, over
/// the classes that both have: `found[rows]`, in nats and without a factor.
///
/// With `add`, its factor times the gradient by the student's logits is added to its `[rows, ours]`.
pub fn divergence_rows(
    student: &[f32],
    teacher: &[f32],
    [ours, theirs]: [usize; 2],
    (divergence, temperature): (Divergence, f32),
    add: Option<(f32, &mut [f32])>,
    found: &mut [f32],
) {
    let (rows, sharpness) = (found.len(), 1. / temperature);
    let fits = student.len() == rows * ours && teacher.len() == rows * theirs;
    let fits = fits && add.as_ref().is_none_or(|(_, gradient)| gradient.len() == student.len());
    assert!(fits, "divergence_rows: {} and {} logits for {rows} rows", student.len(), teacher.len());
    let common = ours.min(theirs);
    if common == 0 {
        return found.fill(0.);
    }
    let found = Parts::new(found);
    let (factor, gradient) = match add {
        Some((factor, gradient)) => (factor, Some(Parts::new(gradient))),
        None => (0., None),
    };
    chunk::each(student.len(), ours, |range| {
        for row in range.start / ours..range.end / ours {
            // SAFETY: one row, one result.
            let found = unsafe { found.at(row..row + 1) };
            // SAFETY: the rows of one range are this call's alone.
            let gradient = gradient.as_ref().map(|all| unsafe { all.at(row * ours..row * ours + common) });
            let (student, teacher) = (&student[row * ours..][..common], &teacher[row * theirs..][..common]);
            found[0] = one_row(student, teacher, divergence, sharpness, gradient.map(|gradient| (factor, gradient)));
        }
    });
}

/// Logits per step of the sums: they stay in L1.
const TILE: usize = 1024;

/// Of logits: the largest, and the logarithm of `sum e^((x - largest) sharpness)`.
#[inline(always)]
fn shift<M: Math>(x: &[f32], sharpness: f32) -> [f32; 2] {
    let most = vector::max(x);
    let (mut sum, mut powers) = (0f64, [0f32; TILE]);
    for x in x.chunks(TILE) {
        let powers = &mut powers[..x.len()];
        for (power, &x) in powers.iter_mut().zip(x) {
            *power = vector::exp_down::<M>((x - most) * sharpness);
        }
        sum += f64::from(vector::sum1(powers, |sum, x| sum + x));
    }
    // NaN does not survive a maximum, and a broken model must show.
    [most, if sum.is_nan() || most.is_nan() { f32::NAN } else { sum.ln() as f32 }]
}

/// The logarithms of both probabilities of each class.
#[derive(Clone, Copy)]
struct Logs {
    sharpness: f32,
    student: [f32; 2],
    teacher: [f32; 2],
}

impl Logs {
    #[inline(always)]
    fn of(self, s: f32, t: f32) -> [f32; 2] {
        let log = |x: f32, [most, sum]: [f32; 2]| (x - most) * self.sharpness - sum;
        [log(s, self.student), log(t, self.teacher)]
    }
}

/// `p x` where a class without probability counts for nothing, however far apart the logarithms are.
#[inline(always)]
fn weigh(p: f32, x: f32) -> f32 {
    if p > 0. { p * x } else { 0. }
}

/// The sums over a row of two terms of each class's logarithms.
#[inline(always)]
fn sums(s: &[f32], t: &[f32], logs: Logs, term: impl Fn(f32, f32) -> [f32; 2]) -> [f64; 2] {
    let (mut sums, mut terms) = ([0f64; 2], [[0f32; TILE]; 2]);
    for (s, t) in s.chunks(TILE).zip(t.chunks(TILE)) {
        let [first, second] = &mut terms;
        let (first, second) = (&mut first[..s.len()], &mut second[..s.len()]);
        for (((first, second), &s), &t) in first.iter_mut().zip(second.iter_mut()).zip(s).zip(t) {
            let [p, q] = logs.of(s, t);
            [*first, *second] = term(p, q);
        }
        sums[0] += f64::from(vector::sum1(first, |sum, x| sum + x));
        sums[1] += f64::from(vector::sum1(second, |sum, x| sum + x));
    }
    sums
}

#[inline(always)]
fn back(s: &[f32], t: &[f32], logs: Logs, (factor, out): (f32, &mut [f32]), slope: impl Fn(f32, f32) -> f32) {
    let factor = factor * logs.sharpness;
    for ((out, &s), &t) in out.iter_mut().zip(s).zip(t) {
        let [p, q] = logs.of(s, t);
        *out += factor * slope(p, q);
    }
}

/// `log p - log m` and `log q - log m` of a mixture `m = β q + (1 - β) p`.
#[inline(always)]
fn from_mixture<M: Math>(beta: f32, p: f32, q: f32) -> [f32; 2] {
    let apart = (q - p).clamp(-80., 80.);
    let above = -vector::ln::<M>(M::fma(beta, vector::exp::<M>(apart), 1. - beta));
    [above, above + apart]
}

#[inline(always)]
fn one_row_loop<M: Math>(
    s: &[f32],
    t: &[f32],
    divergence: Divergence,
    sharpness: f32,
    add: Option<(f32, &mut [f32])>,
) -> f32 {
    let logs = Logs { sharpness, student: shift::<M>(s, sharpness), teacher: shift::<M>(t, sharpness) };
    let exp = |x: f32| vector::exp_down::<M>(x);
    let broken = logs.student[1] + logs.teacher[1];
    let value = match divergence {
        Divergence::Forward => {
            let [value, _] = sums(s, t, logs, |p, q| [weigh(exp(q), q - p), 0.]);
            if let Some(add) = add {
                back(s, t, logs, add, |p, q| exp(p) - exp(q));
            }
            value
        }
        Divergence::Reverse => {
            let [value, _] = sums(s, t, logs, |p, q| [weigh(exp(p), p - q), 0.]);
            if let Some(add) = add {
                let mean = value as f32;
                back(s, t, logs, add, |p, q| weigh(exp(p), p - q - mean));
            }
            value
        }
        Divergence::Between(beta) => {
            let [of_student, of_teacher] = sums(s, t, logs, |p, q| {
                let [student, teacher] = from_mixture::<M>(beta, p, q);
                [weigh(exp(p), student), weigh(exp(q), teacher)]
            });
            if let Some(add) = add {
                let (mean, share) = (of_student as f32, 1. - beta);
                back(s, t, logs, add, |p, q| {
                    // What flows through the mixture cancels, but for this.
                    share * weigh(exp(p), from_mixture::<M>(beta, p, q)[0] - mean)
                });
            }
            f64::from(beta) * of_teacher + (1. - f64::from(beta)) * of_student
        }
    };
    if broken.is_nan() { f32::NAN } else { value as f32 }
}

per_isa! {
    fn one_row(s: &[f32], t: &[f32], divergence: Divergence, sharpness: f32, add: Option<(f32, &mut [f32])>) -> f32
        = one_row_loop;
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rng::Rng;

    fn log_probs(x: &[f32], temperature: f64) -> Vec<f64> {
        let x: Vec<f64> = x.iter().map(|&x| f64::from(x) / temperature).collect();
        let most = x.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let sum: f64 = x.iter().map(|x| (x - most).exp()).sum();
        x.iter().map(|x| x - most - sum.ln()).collect()
    }

    fn plain(s: &[f32], t: &[f32], divergence: Divergence, temperature: f64) -> f64 {
        let (p, q) = (log_probs(s, temperature), log_probs(t, temperature));
        let kl = |a: &[f64], b: &[f64]| -> f64 { a.iter().zip(b).map(|(a, b)| a.exp() * (a - b)).sum() };
        match divergence {
            Divergence::Forward => kl(&q, &p),
            Divergence::Reverse => kl(&p, &q),
            Divergence::Between(beta) => {
                let beta = f64::from(beta);
                let m: Vec<f64> =
                    p.iter().zip(&q).map(|(p, q)| (beta * q.exp() + (1. - beta) * p.exp()).ln()).collect();
                beta * kl(&q, &m) + (1. - beta) * kl(&p, &m)
            }
        }
    }

    const ALL: [Divergence; 5] = [
        Divergence::Forward,
        Divergence::Reverse,
        Divergence::Between(0.5),
        Divergence::Between(0.1),
        Divergence::Between(0.97),
    ];

    #[test]
    fn values_and_slopes_match_f64() {
        for (rows, ours, theirs) in [(1, 1, 1), (3, 7, 7), (5, 9, 6), (2, 1030, 2049), (17, 64, 64)] {
            for (divergence, temperature) in ALL.into_iter().flat_map(|d| [(d, 1.), (d, 0.5), (d, 4.)]) {
                let draw = |seed: u64, count: usize| {
                    let mut x = vec![0.; count];
                    Rng::new(seed).fill_normal(&mut x, 20., 3.);
                    x
                };
                let (student, teacher) = (draw(1, rows * ours), draw(2, rows * theirs));
                let (mut found, mut gradient) = (vec![9.; rows], vec![0.25; rows * ours]);
                let args = (divergence, temperature);
                divergence_rows(&student, &teacher, [ours, theirs], args, Some((3., &mut gradient)), &mut found);
                let mut again = vec![0.; rows];
                divergence_rows(&student, &teacher, [ours, theirs], args, None, &mut again);
                assert_eq!(found, again);
                let common = ours.min(theirs);
                for row in 0..rows {
                    let (s, t) = (&student[row * ours..][..common], &teacher[row * theirs..][..common]);
                    let truth = plain(s, t, divergence, f64::from(temperature));
                    // Sums over the classes in f32: a few ulps of logarithms near 40.
                    assert!((f64::from(found[row]) - truth).abs() < 2e-5, "{divergence:?} {} {truth}", found[row]);
                    let slopes = &gradient[row * ours..][..ours];
                    assert!(slopes[common..].iter().all(|&x| x == 0.25), "classes of one alone take no part");
                    for at in (0..common).step_by(1 + common / 9) {
                        let moved = |by: f32| {
                            let mut s = s.to_vec();
                            s[at] += by;
                            plain(&s, t, divergence, f64::from(temperature))
                        };
                        let step = 1. / 64.; // exact in f32; the error of the difference is its square
                        let slope = 3. * (moved(step) - moved(-step)) / (2. * f64::from(step));
                        assert!((f64::from(slopes[at]) - 0.25 - slope).abs() < 3e-3, "{divergence:?} {at} {slope}");
                    }
                }
            }
        }
    }

    #[test]
    fn what_is_the_same_is_not_apart_and_what_is_broken_shows() {
        let x = [0.5, -3., f32::NEG_INFINITY, 2.];
        for divergence in ALL {
            let mut found = [1.];
            let mut gradient = [0.; 2];
            divergence_rows(&x[..2], &x[..2], [2, 2], (divergence, 2.), Some((1., &mut gradient)), &mut found);
            assert!(found[0].abs() < 1e-7 && gradient.iter().all(|x| x.abs() < 1e-7), "{divergence:?} {found:?}");
            divergence_rows(&x[..2], &[f32::NAN, 0.], [2, 2], (divergence, 1.), None, &mut found);
            assert!(found[0].is_nan());
        }
    }
}
