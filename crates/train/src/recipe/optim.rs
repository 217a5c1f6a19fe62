//! `[optim]`: the update rule and what it does to which parameter.

use phyla_nn::pattern::{Pattern, PatternError};
use serde::{Deserialize, Serialize};

use super::check_range;
use super::read::Kinded;

/// `[optim]`: keys common to every update rule.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Optim {
    /// The update rule (`kind` and its keys).
    #[serde(skip)]
    pub rule: Rule,
    /// Peak learning rate; the schedule scales it.
    pub lr: f64,
    /// Decoupled weight decay: each step takes `lr * weight_decay` of the weight away.
    #[serde(default)]
    pub weight_decay: f64,
    /// Largest norm of the whole gradient; longer ones are scaled down to it. No clipping when absent.
    pub clip: Option<f64>,
    /// Patterns of further parameters without decay. Tensors of one dimension (biases, norms) never
    /// decay, unless a group sets their decay.
    #[serde(default)]
    pub no_decay: Vec<Pattern>,
    /// Parameters with settings of their own; where several match, the last one decides.
    #[serde(default)]
    pub groups: Vec<OptimGroup>,
}

/// `[[optim.groups]]`: settings for the parameters that a pattern covers.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OptimGroup {
    /// Which parameters.
    pub pattern: Pattern,
    /// Factor on the learning rate.
    #[serde(default = "one")]
    pub lr_scale: f64,
    /// Weight decay in place of the common one.
    pub weight_decay: Option<f64>,
}

/// What the optimiser does to one parameter.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ParamSettings {
    /// Factor on the learning rate.
    pub lr_scale: f64,
    /// Decoupled weight decay.
    pub weight_decay: f64,
}

/// The update rule.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Rule {
    /// Adam with decoupled weight decay (arXiv 1711.05101).
    Adamw(AdamW),
    /// Stochastic gradient descent, with momentum if asked.
    Sgd(Sgd),
    /// Sign of an interpolated momentum (arXiv 2302.06675).
    Lion(Lion),
    /// Adam with factored second moments (arXiv 1804.04235).
    Adafactor(Adafactor),
}

/// Settings of `AdamW`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct AdamW {
    /// Decay rates of the first and second moment.
    pub betas: [f64; 2],
    /// Added to the root of the second moment.
    pub eps: f64,
}

/// Settings of SGD.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Sgd {
    /// Decay rate of the velocity; 0 keeps none.
    pub momentum: f64,
    /// Look ahead along the velocity.
    pub nesterov: bool,
}

/// Settings of Lion.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Lion {
    /// Interpolation for the update's sign, and decay rate of the momentum.
    pub betas: [f64; 2],
}

/// Settings of Adafactor.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Adafactor {
    /// Decay rate of the first moment; none is kept when absent.
    pub beta1: Option<f64>,
    /// The second moment decays with `1 - step^-decay` (equation in section 7.2: 0.8).
    pub decay: f64,
    /// Added to the squared gradient, and the floor of a parameter's scale.
    pub eps: [f64; 2],
    /// Largest root mean square of an update.
    pub clip_threshold: f64,
    /// Scale the learning rate by the parameter's root mean square (section 8).
    pub scale_by_parameter: bool,
}

impl Default for Rule {
    fn default() -> Self {
        Self::Adamw(AdamW::default())
    }
}

impl Default for AdamW {
    fn default() -> Self {
        Self { betas: [0.9, 0.999], eps: 1e-8 }
    }
}

impl Default for Lion {
    fn default() -> Self {
        Self { betas: [0.9, 0.99] }
    }
}

impl Default for Adafactor {
    fn default() -> Self {
        Self { beta1: None, decay: 0.8, eps: [1e-30, 1e-3], clip_threshold: 1.0, scale_by_parameter: true }
    }
}

fn one() -> f64 {
    1.0
}

impl Kinded for Optim {
    type Kind = Rule;
    const DEFAULT: Option<&'static str> = Some("adamw");
    fn kind(&self) -> &Rule {
        &self.rule
    }
    fn set_kind(&mut self, kind: Rule) {
        self.rule = kind;
    }
}

impl Optim {
    /// Learning-rate factor and decay of the parameter at `path` with `dims` dimensions.
    #[must_use]
    pub fn settings(&self, path: &str, dims: usize) -> ParamSettings {
        let exempt = dims < 2 || self.no_decay.iter().any(|pattern| pattern.covers(path));
        let mut settings = ParamSettings { lr_scale: 1.0, weight_decay: if exempt { 0.0 } else { self.weight_decay } };
        if let Some(group) = self.groups.iter().rev().find(|group| group.pattern.covers(path)) {
            settings.lr_scale = group.lr_scale;
            settings.weight_decay = group.weight_decay.unwrap_or(settings.weight_decay);
        }
        settings
    }

    /// Checks the patterns against the paths of the trained parameters.
    ///
    /// # Errors
    /// A pattern that matches nothing.
    pub fn check_paths(&self, paths: &[&str]) -> Result<(), PatternError> {
        let patterns = self.no_decay.iter().chain(self.groups.iter().map(|group| &group.pattern));
        for pattern in patterns {
            pattern.require_match(paths.iter().copied())?;
        }
        Ok(())
    }

    pub(super) fn check(&self, problems: &mut Vec<String>) {
        check_range(problems, "optim.lr", self.lr, 0.0, f64::MAX);
        check_range(problems, "optim.weight_decay", self.weight_decay, 0.0, f64::MAX);
        if let Some(clip) = self.clip
            && !(clip > 0.0 && clip.is_finite())
        {
            problems.push(format!("`optim.clip` is {clip}; expected a positive norm, or leave it out for no clipping"));
        }
        for group in &self.groups {
            check_range(problems, "optim.groups.lr_scale", group.lr_scale, 0.0, f64::MAX);
            check_range(problems, "optim.groups.weight_decay", group.weight_decay.unwrap_or(0.0), 0.0, f64::MAX);
        }
        let mut rate = |key: &str, value: f64| {
            if !(0.0..1.0).contains(&value) {
                problems.push(format!("`optim.{key}` is {value}; expected at least 0 and below 1"));
            }
        };
        match &self.rule {
            Rule::Adamw(AdamW { betas, eps }) => {
                rate("betas", betas[0]);
                rate("betas", betas[1]);
                if !(*eps > 0.0 && eps.is_finite()) {
                    problems.push(format!("`optim.eps` is {eps}; expected a small positive number such as 1e-8"));
                }
            }
            Rule::Sgd(Sgd { momentum, nesterov }) => {
                rate("momentum", *momentum);
                if *nesterov && *momentum == 0.0 {
                    problems
                        .push("`optim.nesterov` looks along the velocity and needs `optim.momentum` above 0".into());
                }
            }
            Rule::Lion(Lion { betas }) => betas.iter().for_each(|beta| rate("betas", *beta)),
            Rule::Adafactor(Adafactor { beta1, decay, eps, clip_threshold, .. }) => {
                rate("beta1", beta1.unwrap_or(0.0));
                if !(*decay > 0.0 && *decay <= 1.0) {
                    problems.push(format!("`optim.decay` is {decay}; expected above 0 and at most 1"));
                }
                check_range(problems, "optim.eps", eps[0], 0.0, 1.0);
                check_range(problems, "optim.eps", eps[1], 0.0, 1.0);
                if !(*clip_threshold > 0.0 && clip_threshold.is_finite()) {
                    problems.push(format!("`optim.clip_threshold` is {clip_threshold}; expected a positive number"));
                }
            }
        }
    }
}
