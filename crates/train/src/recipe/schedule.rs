//! `[schedule]`: the table; the curves themselves stand in `crate::schedule`.

use serde::{Deserialize, Serialize};

use super::check_range;
use super::read::Kinded;

/// `[schedule]`: keys common to every curve.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ScheduleTable {
    /// The curve after warm-up (`kind` and its keys).
    #[serde(skip)]
    pub shape: Shape,
    /// Steps of linear warm-up.
    pub warmup_steps: Option<u64>,
    /// Warm-up as a share of the run instead.
    pub warmup_ratio: Option<f64>,
}

/// The curve after warm-up.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Shape {
    /// The peak throughout.
    Constant(Constant),
    /// A straight line down to the minimum at the last step.
    Linear(Linear),
    /// Half a cosine down to the minimum at the last step (arXiv 1608.03983).
    Cosine(Cosine),
    /// With the inverse root of the step, as in "Attention is all you need".
    InverseSqrt(InverseSqrt),
    /// Warm-up, stable, decay (arXiv 2404.06395).
    Wsd(Wsd),
}

/// The peak throughout: no settings.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Constant {}

/// A decay to a minimum.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Linear {
    /// Learning rate at the end; 0 unless given.
    pub min_lr: Option<f64>,
    /// The end as a share of the peak instead.
    pub min_lr_ratio: Option<f64>,
}

/// Half a cosine, or more.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Cosine {
    /// Learning rate at the lowest point; 0 unless given.
    pub min_lr: Option<f64>,
    /// The lowest point as a share of the peak instead.
    pub min_lr_ratio: Option<f64>,
    /// Cosine waves over the run; 0.5 ends at the lowest point.
    pub cycles: f64,
}

/// The 2017 paper's curve.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct InverseSqrt {
    /// With it, equation 3 itself: `lr · d_model^-0.5 · min(step^-0.5, step · warmup^-1.5)`, where
    /// `optim.lr` is a factor, usually 1. Without it, the peak is `optim.lr`.
    pub d_model: Option<usize>,
    /// Steps after which the plain form starts to fall as `step^-0.5`; the warm-up's length unless
    /// given, 10,000 without warm-up.
    pub timescale: Option<u64>,
}

/// Warm-up, stable, decay.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Wsd {
    /// Steps of decay at the end.
    pub decay_steps: Option<u64>,
    /// Decay as a share of the run instead; 0.1 unless given.
    pub decay_ratio: Option<f64>,
    /// The form of the decay.
    pub decay: DecayShape,
    /// Learning rate at the end; 0 unless given.
    pub min_lr: Option<f64>,
    /// The end as a share of the peak instead.
    pub min_lr_ratio: Option<f64>,
}

/// The form of the last phase of `wsd`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DecayShape {
    /// `1 - x`.
    Linear,
    /// `(1 + cos πx) / 2`.
    Cosine,
    /// `1 - √x` (arXiv 2405.18392 finds it best).
    #[default]
    Sqrt,
}

impl Default for Shape {
    fn default() -> Self {
        Self::Cosine(Cosine::default())
    }
}

impl Default for Cosine {
    fn default() -> Self {
        Self { min_lr: None, min_lr_ratio: None, cycles: 0.5 }
    }
}

impl Kinded for ScheduleTable {
    type Kind = Shape;
    const DEFAULT: Option<&'static str> = Some("cosine");
    fn kind(&self) -> &Shape {
        &self.shape
    }
    fn set_kind(&mut self, kind: Shape) {
        self.shape = kind;
    }
}

impl ScheduleTable {
    /// `min_lr` and `min_lr_ratio` of the curve, for those that have a minimum.
    pub(crate) fn minimum(&self) -> (Option<f64>, Option<f64>) {
        match &self.shape {
            Shape::Constant(_) | Shape::InverseSqrt(_) => (None, None),
            Shape::Linear(curve) => (curve.min_lr, curve.min_lr_ratio),
            Shape::Cosine(curve) => (curve.min_lr, curve.min_lr_ratio),
            Shape::Wsd(curve) => (curve.min_lr, curve.min_lr_ratio),
        }
    }

    pub(super) fn check(&self, problems: &mut Vec<String>) {
        let mut one_of = |a: &str, b: &str, both: bool| {
            if both {
                problems.push(format!("`schedule.{a}` and `schedule.{b}` are both given; keep one"));
            }
        };
        let (min_lr, min_lr_ratio) = self.minimum();
        one_of("warmup_steps", "warmup_ratio", self.warmup_steps.is_some() && self.warmup_ratio.is_some());
        one_of("min_lr", "min_lr_ratio", min_lr.is_some() && min_lr_ratio.is_some());
        if let Shape::Wsd(wsd) = &self.shape {
            one_of("decay_steps", "decay_ratio", wsd.decay_steps.is_some() && wsd.decay_ratio.is_some());
            check_range(problems, "schedule.decay_ratio", wsd.decay_ratio.unwrap_or(0.0), 0.0, 1.0);
        }
        check_range(problems, "schedule.warmup_ratio", self.warmup_ratio.unwrap_or(0.0), 0.0, 1.0);
        check_range(problems, "schedule.min_lr", min_lr.unwrap_or(0.0), 0.0, f64::MAX);
        check_range(problems, "schedule.min_lr_ratio", min_lr_ratio.unwrap_or(0.0), 0.0, 1.0);
        match &self.shape {
            Shape::Cosine(cosine) => check_range(problems, "schedule.cycles", cosine.cycles, 0.0, f64::MAX),
            Shape::InverseSqrt(curve) => {
                if curve.d_model == Some(0) || curve.timescale == Some(0) {
                    problems.push("`schedule.d_model` and `schedule.timescale` must be at least 1".into());
                }
                if curve.d_model.is_some() && curve.timescale.is_some() {
                    problems.push(
                        "`schedule.timescale` belongs to the plain form; leave it or `schedule.d_model` out".into(),
                    );
                }
            }
            _ => {}
        }
    }
}
