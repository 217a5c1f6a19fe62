//! Online DPO: the pair losses of trl's `OnlineDPOTrainer`, on sums of log-probabilities.

use super::curve::logistic;
use super::{PairLoss, Pairs};
use crate::recipe::{DpoLoss, OnlineDpo};

/// The loss of pairs, of which those with a gap of 0 between their rewards teach nothing.
#[must_use]
pub fn online(settings: &OnlineDpo, pairs: &Pairs, gaps: Option<&[f32]>) -> PairLoss {
    let mut loss = PairLoss::zero(pairs.count());
    let beta = settings.beta;
    let differs = |at: usize| gaps.and_then(|gaps| gaps.get(at)).is_none_or(|&gap| gap != 0.);
    for at in (0..pairs.count()).filter(|&at| differs(at)) {
        let gain = pairs.chosen.ratio(at) - pairs.rejected.ratio(at);
        let (value, slope) = match settings.loss_type {
            DpoLoss::Ipo => {
                let short = gain - 1. / (2. * beta);
                (short * short, 2. * short)
            }
            _ => {
                let (value, slope) = logistic(beta * gain, 0.);
                (value, beta * slope)
            }
        };
        loss.put(at, value, [slope, -slope]);
    }
    loss
}
