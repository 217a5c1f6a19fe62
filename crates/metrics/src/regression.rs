//! Numbers against numbers: correlation (Pearson, Spearman) and mean error (squared, absolute).
//!
//! Equal to scipy's and scikit-learn's, except that what they answer with NaN is an error here.

use crate::error::{mean, same_length};
use crate::{Error, Result};

/// Pearson's correlation coefficient in -1..=1: how close the points lie to a straight line.
///
/// # Errors
/// Lists of different lengths, fewer than two samples, a value that is not finite, a constant list.
pub fn pearson(references: &[f64], predictions: &[f64]) -> Result<f64> {
    const METRIC: &str = "Pearson correlation";
    check(METRIC, references, predictions)?;
    let a = direction(METRIC, "references", references)?;
    let b = direction(METRIC, "predictions", predictions)?;
    let product: f64 = a.iter().zip(&b).map(|(a, b)| a * b).sum();
    // Rounding may step just outside.
    Ok(product.clamp(-1.0, 1.0))
}

/// Spearman's rank correlation in -1..=1: Pearson's of the ranks, equal values sharing their mean rank.
///
/// # Errors
/// As [`pearson`].
pub fn spearman(references: &[f64], predictions: &[f64]) -> Result<f64> {
    const METRIC: &str = "Spearman correlation";
    check(METRIC, references, predictions)?;
    let a = direction(METRIC, "references", &ranks(references))?;
    let b = direction(METRIC, "predictions", &ranks(predictions))?;
    let product: f64 = a.iter().zip(&b).map(|(a, b)| a * b).sum();
    Ok(product.clamp(-1.0, 1.0))
}

/// The mean of the squared differences.
///
/// # Errors
/// Lists of different lengths, empty ones, a value that is not finite, a sum that overflows.
pub fn mean_squared_error(references: &[f64], predictions: &[f64]) -> Result<f64> {
    mean_of("mean squared error", references, predictions, |difference| difference * difference)
}

/// The mean of the absolute differences.
///
/// # Errors
/// As [`mean_squared_error`].
pub fn mean_absolute_error(references: &[f64], predictions: &[f64]) -> Result<f64> {
    mean_of("mean absolute error", references, predictions, f64::abs)
}

/// The rank of each value, from 1; equal values share the mean of the ranks they fill.
pub fn ranks(values: &[f64]) -> Vec<f64> {
    let mut order: Vec<usize> = (0..values.len()).collect();
    order.sort_by(|&a, &b| values[a].total_cmp(&values[b]));
    let mut ranks = vec![0.0; values.len()];
    let mut start = 0;
    // `==`, not the order's equality: 0 and -0 are one value.
    for group in order.chunk_by(|&a, &b| values[a] == values[b]) {
        let shared = start as f64 + (group.len() as f64 + 1.0) / 2.0;
        group.iter().for_each(|&index| ranks[index] = shared);
        start += group.len();
    }
    ranks
}

fn mean_of(metric: &'static str, references: &[f64], predictions: &[f64], loss: impl Fn(f64) -> f64) -> Result<f64> {
    check(metric, references, predictions)?;
    let sum = references.iter().zip(predictions).map(|(a, b)| loss(a - b)).sum();
    let mean = mean(sum, references.len() as u64, metric, "sample")?;
    if mean.is_finite() {
        return Ok(mean);
    }
    Err(Error::Undefined { metric, reason: "the differences are too large for their sum to be finite".to_owned() })
}

fn check(metric: &str, references: &[f64], predictions: &[f64]) -> Result<()> {
    same_length("predictions", references.len(), predictions.len())?;
    for (name, values) in [("reference", references), ("prediction", predictions)] {
        if let Some(index) = values.iter().position(|value| !value.is_finite()) {
            let value = values[index];
            return Err(Error::Input(format!("{metric}: expected a finite number, found {value} as {name} {index}")));
        }
    }
    Ok(())
}

/// The values without their mean, at length 1.
fn direction(metric: &'static str, name: &str, values: &[f64]) -> Result<Vec<f64>> {
    let undefined = |reason| Err(Error::Undefined { metric, reason });
    if values.len() < 2 {
        return undefined(format!("it takes at least two samples, found {}", values.len()));
    }
    // Asked of the values themselves: the mean of equal values need not equal them.
    if values.iter().all(|value| *value == values[0]) {
        return undefined(format!("the {name} are constant ({})", values[0]));
    }
    let mean = values.iter().sum::<f64>() / values.len() as f64;
    // Scaled by the largest, or squares of very small and very large values would vanish or overflow.
    let largest = values.iter().map(|value| (value - mean).abs()).fold(0.0, f64::max);
    let scaled: Vec<f64> = values.iter().map(|value| (value - mean) / largest).collect();
    let length = scaled.iter().map(|value| value * value).sum::<f64>().sqrt();
    if !length.is_finite() || length == 0.0 {
        return undefined(format!("the {name} are too large or too close together to be told from their mean"));
    }
    Ok(scaled.into_iter().map(|value| value / length).collect())
}
