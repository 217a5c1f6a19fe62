//! How far the confidence of a reward model can be believed: of the pairs that it tells apart with some confidence, how
//! many it orders as people did.

use serde::{Deserialize, Serialize};

use crate::objective::preference::sigmoid;

/// Pairs of like confidence.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Bin {
    /// Mean probability, from a half to 1, of the order that the model says.
    pub confidence: f64,
    /// Share of pairs in which that order is right.
    pub accuracy: f64,
    /// How many they are.
    pub pairs: u64,
}

/// Pairs by `σ(|margin|)`, in bins of equal width from a half to 1, without the empty ones; a margin is the chosen text's
/// reward less the rejected one's.
#[must_use]
pub fn bins(margins: &[f64]) -> Vec<Bin> {
    const BINS: usize = 10;
    let mut sums = [Bin::default(); BINS];
    for &margin in margins {
        let confidence = sigmoid(margin.abs());
        let bin = &mut sums[(((confidence - 0.5) * 2. * BINS as f64) as usize).min(BINS - 1)];
        bin.confidence += confidence;
        bin.accuracy += f64::from(u8::from(margin > 0.));
        bin.pairs += 1;
    }
    let mean = |bin: Bin| {
        let pairs = bin.pairs as f64;
        Bin { confidence: bin.confidence / pairs, accuracy: bin.accuracy / pairs, ..bin }
    };
    sums.into_iter().filter(|bin| bin.pairs > 0).map(mean).collect()
}

/// Expected calibration error (Guo et al. 2017, equation 3): how far confidence and accuracy are apart, over all pairs.
#[must_use]
pub fn error(bins: &[Bin]) -> f64 {
    let pairs: u64 = bins.iter().map(|bin| bin.pairs).sum();
    let sum: f64 = bins.iter().map(|bin| (bin.confidence - bin.accuracy).abs() * bin.pairs as f64).sum();
    sum / pairs.max(1) as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_model_that_is_right_as_often_as_it_says_has_no_error() {
        // Three of four right at a confidence of three quarters.
        let margin = 3f64.ln();
        let found = bins(&[margin, margin, -margin, margin]);
        assert_eq!(found.len(), 1);
        assert!((found[0].confidence - 0.75).abs() < 1e-12 && found[0].accuracy == 0.75 && found[0].pairs == 4);
        assert!(error(&found) < 1e-12);
        // Sure and wrong, sure and right, and one coin that was not thrown.
        let found = bins(&[-30., 30., 0.]);
        assert_eq!(found.iter().map(|bin| bin.pairs).collect::<Vec<_>>(), [1, 2]);
        assert!((error(&found) - (0.5 + 2. * 0.5) / 3.).abs() < 1e-9);
        assert_eq!(error(&bins(&[])), 0.);
    }
}
