//! From rewards to advantages: plain formulas over numbers, in f64.

use crate::recipe::ScaleRewards;

/// Advantages and returns of one completion, token by token: generalised advantage estimation (Schulman et al. 2016,
/// eq. 16) with nothing behind the last token.
#[must_use]
pub fn gae(rewards: &[f64], values: &[f64], gamma: f64, lam: f64) -> (Vec<f64>, Vec<f64>) {
    let mut advantages = vec![0.; rewards.len()];
    let (mut next_value, mut next_advantage) = (0., 0.);
    for at in (0..rewards.len()).rev() {
        let delta = rewards[at] + gamma * next_value - values[at];
        next_advantage = delta + gamma * lam * next_advantage;
        advantages[at] = next_advantage;
        next_value = values[at];
    }
    let returns = advantages.iter().zip(values).map(|(advantage, value)| advantage + value).collect();
    (advantages, returns)
}

/// Brings numbers to variance 1 (of a sample) and, with `shift`, to mean 0.
pub fn whiten(numbers: &mut [f64], shift: bool) {
    let (mean, deviation) = mean_and_deviation(numbers);
    let scale = 1. / (deviation * deviation + 1e-8).sqrt();
    let kept = if shift { 0. } else { mean };
    numbers.iter_mut().for_each(|x| *x = (*x - mean) * scale + kept);
}

/// The mean, and the standard deviation of a sample; 0 where there are fewer than two numbers.
#[must_use]
pub fn mean_and_deviation(numbers: &[f64]) -> (f64, f64) {
    let count = numbers.len() as f64;
    let mean = numbers.iter().sum::<f64>() / count.max(1.);
    let squares: f64 = numbers.iter().map(|x| (x - mean) * (x - mean)).sum();
    (mean, if numbers.len() > 1 { (squares / (count - 1.)).sqrt() } else { 0. })
}

/// Advantages of completions over the mean of their group (Shao et al. 2024, section 4.1.2). What nobody could judge has
/// none, and counts for no mean.
#[must_use]
pub fn over_group(rewards: &[Option<f64>], group: usize, scale: ScaleRewards) -> Vec<f64> {
    let known = |rewards: &[Option<f64>]| -> Vec<f64> { rewards.iter().filter_map(|reward| *reward).collect() };
    let (_, of_all) = mean_and_deviation(&known(rewards));
    let of = |group: &[Option<f64>]| -> Vec<f64> {
        let (mean, own) = mean_and_deviation(&known(group));
        let divisor = match scale {
            ScaleRewards::Group => own + 1e-4,
            ScaleRewards::Batch => of_all + 1e-4,
            ScaleRewards::None => 1.,
        };
        group.iter().map(|reward| reward.map_or(0., |reward| (reward - mean) / divisor)).collect()
    };
    rewards.chunks(group.max(1)).flat_map(of).collect()
}

/// Advantages of completions over the mean of the others of their group (Ahmadian et al. 2024, eq. 9).
#[must_use]
pub fn leave_one_out(rewards: &[Option<f64>], group: usize, normalize: bool) -> Vec<f64> {
    let of = |group: &[Option<f64>]| -> Vec<Option<f64>> {
        let (sum, count) = group.iter().flatten().fold((0., 0.), |(sum, count), reward| (sum + reward, count + 1.));
        // Alone in its group, a completion has nothing to be better than.
        let over = |reward: f64| (count > 1.).then(|| reward - (sum - reward) / (count - 1.));
        group.iter().map(|reward| reward.and_then(over)).collect()
    };
    let advantages: Vec<Option<f64>> = rewards.chunks(group.max(1)).flat_map(of).collect();
    let known: Vec<f64> = advantages.iter().filter_map(|advantage| *advantage).collect();
    let (mean, divisor) = match normalize {
        true => {
            let (mean, deviation) = mean_and_deviation(&known);
            (mean, deviation + 1e-4)
        }
        false => (0., 1.),
    };
    advantages.into_iter().map(|advantage| advantage.map_or(0., |advantage| (advantage - mean) / divisor)).collect()
}
