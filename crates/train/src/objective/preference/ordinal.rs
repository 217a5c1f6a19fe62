//! Graded texts: proportional odds (McCullagh 1980), one score a text and thresholds between the grades.

use super::curve::{log_1m_exp, log_sigmoid, sigmoid};

/// A loss summed over texts, and its slopes.
#[derive(Clone, Debug, PartialEq)]
pub struct GradeLoss {
    /// The sum.
    pub value: f64,
    /// By the texts' scores.
    pub scores: Vec<f64>,
    /// By the thresholds.
    pub thresholds: Vec<f64>,
}

/// `-log (σ(θ[k] - s) - σ(θ[k-1] - s))` summed over texts of score `s` and grade `k`; below the worst grade lies no threshold,
/// and none above the best. `thresholds` rise.
#[must_use]
pub fn cumulative(scores: &[f64], grades: &[usize], thresholds: &[f64]) -> GradeLoss {
    let mut loss = GradeLoss { value: 0., scores: vec![0.; scores.len()], thresholds: vec![0.; thresholds.len()] };
    for (at, (&score, &grade)) in scores.iter().zip(grades).enumerate() {
        let upper = thresholds.get(grade).map(|threshold| threshold - score);
        let lower = grade.checked_sub(1).and_then(|below| thresholds.get(below)).map(|threshold| threshold - score);
        // σ(b) - σ(a) = σ(b) σ(-a) (1 - exp(a - b)), of which no part cancels.
        if let Some(upper) = upper {
            loss.value -= log_sigmoid(upper);
            loss.scores[at] += sigmoid(-upper);
            loss.thresholds[grade] -= sigmoid(-upper);
        }
        if let Some(lower) = lower {
            loss.value -= log_sigmoid(-lower);
            loss.scores[at] -= sigmoid(lower);
            loss.thresholds[grade - 1] += sigmoid(lower);
        }
        if let (Some(upper), Some(lower)) = (upper, lower) {
            // Of thresholds that rounding has put together, no logarithm of nothing.
            let width = (upper - lower).max(1e-9);
            loss.value -= log_1m_exp(-width);
            let push = 1. / width.exp_m1();
            loss.thresholds[grade] -= push;
            loss.thresholds[grade - 1] += push;
        }
    }
    loss
}

/// The grade that a score lies in: as many as thresholds lie below it.
#[must_use]
pub fn grade_of(score: f64, thresholds: &[f64]) -> usize {
    thresholds.iter().filter(|&&threshold| threshold < score).count()
}

/// Of all pairs of texts with different grades, the share whose better one has the higher score; equal scores are half
/// right.
#[must_use]
pub fn ranked(scores: &[f64], grades: &[usize]) -> Option<f64> {
    let most = grades.iter().max().map_or(0, |grade| grade + 1);
    let mut order: Vec<usize> = (0..scores.len().min(grades.len())).collect();
    order.sort_by(|&a, &b| scores[a].total_cmp(&scores[b]));
    // How many texts of each grade have a lower score than those that come now.
    let (mut below, mut right, mut pairs) = (vec![0u64; most], 0., 0.);
    for same in order.chunk_by(|&a, &b| scores[a] == scores[b]) {
        let mut here = vec![0u64; most];
        same.iter().for_each(|&at| here[grades[at]] += 1);
        for &at in same {
            let worse = |counts: &[u64]| counts[..grades[at]].iter().sum::<u64>() as f64;
            right += worse(&below) + 0.5 * worse(&here);
        }
        below.iter_mut().zip(&here).for_each(|(below, here)| *below += here);
    }
    for (grade, &count) in below.iter().enumerate() {
        pairs += count as f64 * below[..grade].iter().sum::<u64>() as f64;
    }
    (pairs > 0.).then(|| right / pairs)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pairs_of_one_grade_do_not_count_and_equal_scores_are_half_right() {
        assert_eq!(ranked(&[1., 2., 3.], &[0, 1, 2]), Some(1.));
        assert_eq!(ranked(&[3., 2., 1.], &[0, 1, 2]), Some(0.));
        assert_eq!(ranked(&[1., 1.], &[0, 1]), Some(0.5));
        assert_eq!(ranked(&[1., 2.], &[1, 1]), None);
        // Against all pairs one by one.
        let scores: Vec<f64> = (0..40).map(|at| f64::from(at * 7 % 11)).collect();
        let grades: Vec<usize> = (0..40).map(|at| at * 5 % 4).collect();
        let (mut right, mut pairs) = (0., 0.);
        for a in 0..40 {
            for b in (0..40).filter(|&b| grades[a] < grades[b]) {
                right += if scores[a] < scores[b] {
                    1.
                } else if scores[a] == scores[b] {
                    0.5
                } else {
                    0.
                };
                pairs += 1.;
            }
        }
        assert_eq!(ranked(&scores, &grades), Some(right / pairs));
    }

    #[test]
    fn a_score_between_two_thresholds_has_the_grade_between() {
        let thresholds = [-1., 0.5, 2.];
        assert_eq!([-3., -0.9, 1., 9.].map(|score| grade_of(score, &thresholds)), [0, 1, 2, 3]);
    }
}
