//! The learning rate as a pure function of the step: the curves behind the recipe's `[schedule]`.
//!
//! `step` counts from 0. Warm-up rises as `(step + 1) / (warmup + 1)`: it reaches the peak at the same
//! step as transformers' `get_*_schedule` (from there on the two agree exactly), but its first step
//! already moves the weights, where transformers' multiplies it by zero.

use std::f64::consts::PI;

use crate::recipe::{DecayShape, ScheduleTable, Shape};

/// Steps after which the plain inverse-root curve falls when there is no warm-up to take it from.
const DEFAULT_TIMESCALE: f64 = 10_000.0;

/// Share of a run that `wsd` decays over unless told.
const DEFAULT_DECAY_RATIO: f64 = 0.1;

/// The learning rate over time.
#[derive(Clone, Debug)]
pub struct Schedule {
    peak: f64,
    /// Lowest factor on the peak.
    floor: f64,
    table: ScheduleTable,
}

impl Schedule {
    /// A schedule from its table and the peak learning rate `optim.lr`.
    #[must_use]
    pub fn new(table: &ScheduleTable, peak: f64) -> Self {
        let floor = match table.minimum() {
            (Some(lr), _) if peak > 0.0 => lr / peak,
            (_, Some(ratio)) => ratio,
            _ => 0.0,
        };
        Self { peak, floor, table: table.clone() }
    }

    /// The learning rate of the update after `step` earlier ones, in a run of `total` steps.
    ///
    /// Beyond the end it stays at its last value. In a run with a time budget `total` is the current
    /// estimate; the function keeps no state, so a better estimate takes effect at once.
    #[must_use]
    pub fn lr(&self, step: u64, total: u64) -> f64 {
        let warmup = self.warmup(total);
        let (step, total) = (step as f64, total as f64);
        if let Shape::InverseSqrt(curve) = &self.table.shape
            && let Some(d_model) = curve.d_model
        {
            // "Attention is all you need", equation 3, whose steps count from 1.
            let step = step + 1.0;
            let rise = if warmup > 0.0 { step * warmup.powf(-1.5) } else { f64::INFINITY };
            return self.peak * (d_model as f64).powf(-0.5) * step.powf(-0.5).min(rise);
        }
        if step < warmup {
            return self.peak * (step + 1.0) / (warmup + 1.0);
        }
        self.peak * self.factor(step, warmup, total)
    }

    /// Length of the warm-up in steps.
    fn warmup(&self, total: u64) -> f64 {
        match (self.table.warmup_steps, self.table.warmup_ratio) {
            (Some(steps), _) => steps as f64,
            (_, Some(ratio)) => (ratio * total as f64).ceil(),
            _ => 0.0,
        }
    }

    /// Factor on the peak after warm-up.
    fn factor(&self, step: f64, warmup: f64, total: f64) -> f64 {
        // Share of the run after warm-up that has passed.
        let progress = ((step - warmup) / (total - warmup).max(1.0)).clamp(0.0, 1.0);
        let above_floor = |factor: f64| self.floor + (1.0 - self.floor) * factor;
        match &self.table.shape {
            Shape::Constant(_) => 1.0,
            Shape::Linear(_) => above_floor(1.0 - progress),
            Shape::Cosine(curve) => above_floor(0.5 * (1.0 + (2.0 * PI * curve.cycles * progress).cos())),
            Shape::InverseSqrt(curve) => {
                let timescale = match curve.timescale {
                    Some(steps) => steps as f64,
                    None if warmup > 0.0 => warmup,
                    None => DEFAULT_TIMESCALE,
                };
                // Shifted so that the curve is 1 where warm-up ends, whatever the time scale.
                ((step - warmup + timescale) / timescale).powf(-0.5)
            }
            Shape::Wsd(curve) => {
                let length = match (curve.decay_steps, curve.decay_ratio) {
                    (Some(steps), _) => steps as f64,
                    (_, ratio) => (ratio.unwrap_or(DEFAULT_DECAY_RATIO) * total).ceil(),
                };
                // A decay longer than what warm-up leaves begins where warm-up ends.
                let begin = (total - length).max(warmup);
                if step < begin {
                    return 1.0;
                }
                let progress = ((step - begin) / (total - begin).max(1.0)).min(1.0);
                above_floor(match curve.decay {
                    DecayShape::Linear => 1.0 - progress,
                    DecayShape::Cosine => 0.5 * (1.0 + (PI * progress).cos()),
                    DecayShape::Sqrt => 1.0 - progress.sqrt(),
                })
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::recipe::{Constant, Cosine, InverseSqrt, Linear, Wsd};

    const PEAK: f64 = 3e-4;

    fn schedule(shape: Shape, warmup: u64) -> Schedule {
        Schedule::new(&ScheduleTable { shape, warmup_steps: Some(warmup), warmup_ratio: None }, PEAK)
    }

    /// Both sides are a handful of f64 operations: only rounding may differ.
    #[track_caller]
    fn close(a: f64, b: f64) {
        assert!((a - b).abs() <= 1e-12 * PEAK.max(b.abs()), "{a} and {b}");
    }

    #[test]
    fn warm_up_is_linear_and_ends_at_the_peak() {
        let schedule = schedule(Shape::Constant(Constant {}), 99);
        close(schedule.lr(0, 1000), PEAK / 100.0);
        close(schedule.lr(49, 1000), PEAK / 2.0);
        close(schedule.lr(99, 1000), PEAK);
        close(schedule.lr(5000, 1000), PEAK);
    }

    #[test]
    fn warm_up_as_a_ratio_rounds_up() {
        let table = ScheduleTable { shape: Shape::Constant(Constant {}), warmup_steps: None, warmup_ratio: Some(0.03) };
        let schedule = Schedule::new(&table, PEAK);
        // 0.03 of 101 steps is 3.03: four steps of warm-up.
        close(schedule.lr(3, 101), PEAK * 4.0 / 5.0);
        close(schedule.lr(4, 101), PEAK);
    }

    // The closures below restate transformers' optimization.py after warm-up.

    #[test]
    fn linear_equals_transformers() {
        let (warmup, total) = (10, 200);
        let schedule = schedule(Shape::Linear(Linear::default()), warmup);
        for step in warmup..250 {
            let theirs = ((200.0 - step as f64) / (200.0 - 10.0)).max(0.0);
            close(schedule.lr(step, total), PEAK * theirs);
        }
    }

    #[test]
    fn cosine_equals_transformers_with_and_without_minimum() {
        let (warmup, total) = (10, 200);
        for ratio in [None, Some(0.1)] {
            for cycles in [0.5, 1.5] {
                let schedule = schedule(Shape::Cosine(Cosine { min_lr: None, min_lr_ratio: ratio, cycles }), warmup);
                for step in warmup..=200 {
                    let progress = (step as f64 - 10.0) / 190.0;
                    let factor = 0.5 * (1.0 + (PI * cycles * 2.0 * progress).cos());
                    let floor = ratio.unwrap_or(0.0);
                    close(schedule.lr(step, total), PEAK * (factor * (1.0 - floor) + floor).max(0.0));
                }
            }
        }
    }

    #[test]
    fn cosine_equals_nanogpt_including_warm_up() {
        let (lr, min_lr, warmup, total) = (1e-3, 1e-4, 100_u64, 2000_u64);
        let table = ScheduleTable {
            shape: Shape::Cosine(Cosine { min_lr: Some(min_lr), ..Cosine::default() }),
            warmup_steps: Some(warmup),
            warmup_ratio: None,
        };
        let schedule = Schedule::new(&table, lr);
        for it in 0..2100_u64 {
            let theirs = if it < warmup {
                lr * (it as f64 + 1.0) / (warmup as f64 + 1.0)
            } else if it > total {
                min_lr
            } else {
                let ratio = (it - warmup) as f64 / (total - warmup) as f64;
                min_lr + 0.5 * (1.0 + (PI * ratio).cos()) * (lr - min_lr)
            };
            close(schedule.lr(it, total), theirs);
        }
    }

    #[test]
    fn inverse_sqrt_equals_transformers() {
        for (warmup, timescale) in [(10, None), (10, Some(40)), (0, None)] {
            let schedule = schedule(Shape::InverseSqrt(InverseSqrt { d_model: None, timescale }), warmup);
            let scale = timescale.unwrap_or(if warmup > 0 { warmup } else { 10_000 }) as f64;
            for step in warmup..300 {
                let shift = scale - warmup as f64;
                close(schedule.lr(step, 300), PEAK / ((step as f64 + shift) / scale).sqrt());
            }
        }
    }

    #[test]
    fn inverse_sqrt_with_d_model_is_equation_3() {
        let table = ScheduleTable {
            shape: Shape::InverseSqrt(InverseSqrt { d_model: Some(512), timescale: None }),
            warmup_steps: Some(4000),
            warmup_ratio: None,
        };
        let schedule = Schedule::new(&table, 1.0);
        // The paper's base model peaks at step 4000 with (512 * 4000)^-0.5.
        close(schedule.lr(3999, 100_000), (512.0_f64 * 4000.0).powf(-0.5));
        close(schedule.lr(0, 100_000), 512.0_f64.powf(-0.5) * 4000.0_f64.powf(-1.5));
        close(schedule.lr(15_999, 100_000), schedule.lr(3999, 100_000) / 2.0);
        assert!(schedule.lr(3998, 100_000) < schedule.lr(3999, 100_000));
    }

    #[test]
    fn wsd_equals_transformers() {
        let (warmup, stable, decay) = (10.0, 60.0, 30.0);
        let total = 100;
        for (form, min) in [(DecayShape::Linear, 0.0), (DecayShape::Cosine, 0.1), (DecayShape::Sqrt, 0.05)] {
            let wsd = Wsd { decay_steps: Some(30), decay: form, min_lr_ratio: Some(min), ..Wsd::default() };
            let schedule = schedule(Shape::Wsd(wsd), 10);
            for step in 10..120_u64 {
                let s = step as f64;
                let theirs = if s < warmup + stable {
                    1.0
                } else if s < warmup + stable + decay {
                    let progress = (s - warmup - stable) / decay;
                    let factor = match form {
                        DecayShape::Linear => 1.0 - progress,
                        DecayShape::Cosine => 0.5 * (1.0 + (PI * progress).cos()),
                        DecayShape::Sqrt => 1.0 - progress.sqrt(),
                    };
                    (factor * (1.0 - min) + min).max(0.0)
                } else {
                    min
                };
                close(schedule.lr(step, total), PEAK * theirs);
            }
        }
    }

    #[test]
    fn a_run_shorter_than_its_warm_up_stays_finite() {
        for shape in [
            Shape::Linear(Linear::default()),
            Shape::Cosine(Cosine::default()),
            Shape::Wsd(Wsd::default()),
            Shape::InverseSqrt(InverseSqrt { d_model: Some(1), timescale: None }),
        ] {
            for total in [0, 1, 5] {
                for warmup in [0, 5, 50] {
                    for step in 0..100 {
                        let lr = schedule(shape.clone(), warmup).lr(step, total);
                        assert!(lr.is_finite() && lr >= 0.0, "{shape:?} {total} {warmup} {step}: {lr}");
                    }
                }
            }
        }
    }
}
