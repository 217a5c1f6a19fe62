//! The curves that the losses on preferences are made of, with values that stay finite where their parts would not.

/// `1 / (1 + e^-x)`; `1 - σ(x)` is `σ(-x)`.
pub fn sigmoid(x: f64) -> f64 {
    1. / (1. + (-x).exp())
}

/// `ln σ(x)`.
pub fn log_sigmoid(x: f64) -> f64 {
    x.min(0.) - (-x.abs()).exp().ln_1p()
}

/// `ln(1 - e^x)` for `x < 0`.
pub fn log_1m_exp(x: f64) -> f64 {
    if x < -std::f64::consts::LN_2 { (-x.exp()).ln_1p() } else { (-x.exp_m1()).ln() }
}

/// The loss of a wish for a large `x` that is doubted by `smoothing`, and its slope.
pub fn logistic(x: f64, smoothing: f64) -> (f64, f64) {
    let value = -(1. - smoothing) * log_sigmoid(x) - smoothing * log_sigmoid(-x);
    (value, smoothing * sigmoid(x) - (1. - smoothing) * sigmoid(-x))
}

/// `max(0, 1 - x)`, and its slope.
pub fn hinge(x: f64) -> (f64, f64) {
    if x < 1. { (1. - x, -1.) } else { (0., 0.) }
}
