//! Completions with all that is known of them: what they are worth, and how they become batches.

use phyla_data::batch::{Batch, IGNORE, Labels, Pairs, Played};
use serde::{Deserialize, Serialize};

use super::advantage::{gae, leave_one_out, mean_and_deviation, over_group, whiten};
use super::write::Written;
use crate::metrics::Means;
use crate::recipe::{KlEstimator, Objective, Ppo, Rloo};

/// A completion that the policy wrote; lists are over its tokens.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Completion {
    /// The number of its prompt.
    pub prompt: u32,
    /// Tokens of the prompt.
    pub given: usize,
    /// Prompt and completion.
    pub ids: Vec<u32>,
    /// The completion as text.
    pub text: String,
    /// Whether it came to its end.
    pub ended: bool,
    /// What each judge said.
    pub rewards: Vec<(String, Option<f64>)>,
    /// The sum, less what a missing end costs; nothing if nobody could judge.
    pub reward: Option<f64>,
    /// Log-probabilities under the policy that wrote it.
    pub old: Vec<f32>,
    /// Log-probabilities under the reference; empty without one.
    pub reference: Vec<f32>,
    /// Mean entropy of the policy over its tokens, in nats.
    pub entropy: f64,
    /// What the value head expected; empty without one.
    pub values: Vec<f32>,
    /// By how much each token is better than expected.
    pub advantages: Vec<f32>,
    /// What the value head should have expected.
    pub returns: Vec<f32>,
    /// Whether it is not learned from.
    pub left_out: bool,
}

impl Completion {
    /// What was written to a prompt.
    pub fn new(number: u32, prompt: &[u32], written: Written) -> Self {
        let Written { ids, text, ended } = written;
        let given = prompt.len();
        Self { prompt: number, given, ids: [prompt, &ids].concat(), text, ended, ..Self::default() }
    }

    /// Tokens of the completion.
    #[must_use]
    pub fn tokens(&self) -> usize {
        self.ids.len() - self.given
    }

    /// `log π(y) - log π_ref(y)` of each token; nothing without a reference.
    fn gaps(&self) -> impl Iterator<Item = f64> + '_ {
        self.old.iter().zip(&self.reference).map(|(old, reference)| f64::from(*old) - f64::from(*reference))
    }

    /// How far the policy is from the reference on this completion, in nats: the sum over its tokens.
    #[must_use]
    pub fn divergence(&self) -> f64 {
        self.gaps().sum()
    }
}

/// Gives completions their advantages, and tells what there is to tell.
pub fn weigh(objective: &Objective, made: &mut [Completion], price: f64) -> Means {
    let group = objective.play().map_or(1, |play| play.generations);
    let referenced = objective.play().is_some_and(|play| play.reference.is_some());
    let means = told(made, group, !referenced);
    for one in made.iter_mut() {
        one.left_out = one.reward.is_none();
    }
    match objective {
        Objective::Ppo(ppo) => with_values(ppo, made, price),
        Objective::Grpo(grpo) => {
            let rewards: Vec<Option<f64>> = made.iter().map(|one| one.reward).collect();
            spread(made, &over_group(&rewards, group, grpo.scale_rewards), grpo.mask_truncated_completions);
        }
        Objective::Rloo(rloo) => {
            let rewards = made.iter().map(|one| held(rloo, one, price)).collect::<Vec<_>>();
            let advantages = leave_one_out(&rewards, group, rloo.normalize_advantages);
            spread(made, &advantages, rloo.mask_truncated_completions);
        }
        _ => {}
    }
    let mut means = means;
    if let Objective::Ppo(_) = objective {
        means.add("kl_coef", &[price]);
    }
    means
}

/// The reward of a completion within its bounds, less what its divergence costs.
fn held(rloo: &Rloo, one: &Completion, price: f64) -> Option<f64> {
    let reward = one.reward?;
    let reward = rloo.reward_clip_range.map_or(reward, |[low, high]| reward.clamp(low, high));
    Some(reward - price * one.divergence())
}

/// One advantage for all tokens of each completion.
fn spread(made: &mut [Completion], advantages: &[f64], mask_truncated: bool) {
    for (one, &advantage) in made.iter_mut().zip(advantages) {
        one.advantages = vec![advantage as f32; one.tokens()];
        // What nobody could judge has no advantage, and is held to the reference all the same, as in trl.
        one.left_out = mask_truncated && !one.ended;
    }
}

/// Advantages of each token over what the value head expected (InstructGPT): the reward comes with the last token, the
/// price of divergence with each.
fn with_values(ppo: &Ppo, made: &mut [Completion], price: f64) {
    let mut rewards: Vec<Vec<f64>> = vec![];
    for one in made.iter() {
        let cost = |gap: f64| match ppo.kl_estimator {
            KlEstimator::K1 => gap,
            KlEstimator::K3 => (-gap).exp() - 1. + gap,
        };
        let mut own: Vec<f64> = one.gaps().map(|gap| -price * cost(gap)).collect();
        own.resize(one.tokens(), 0.);
        if let (Some(last), Some(reward)) = (own.last_mut(), one.reward) {
            *last += reward;
        }
        rewards.push(own);
    }
    if ppo.whiten_rewards {
        over_all(&mut rewards, false);
    }
    let mut advantages = vec![];
    for (one, rewards) in made.iter_mut().zip(&rewards) {
        let values: Vec<f64> = one.values.iter().map(|&value| f64::from(value)).collect();
        let (better, returns) = gae(rewards, &values, ppo.gamma, ppo.lam);
        one.returns = returns.iter().map(|&x| x as f32).collect();
        advantages.push(better);
    }
    over_all(&mut advantages, true);
    for (one, advantages) in made.iter_mut().zip(advantages) {
        one.advantages = advantages.iter().map(|&x| x as f32).collect();
    }
}

/// Whitens the numbers of all rows together.
fn over_all(rows: &mut [Vec<f64>], shift: bool) {
    let mut all: Vec<f64> = rows.iter().flatten().copied().collect();
    whiten(&mut all, shift);
    let mut all = all.into_iter();
    rows.iter_mut().flatten().zip(&mut all).for_each(|(x, white)| *x = white);
}

/// What is told of completions: rewards, divergence, entropy, lengths.
pub fn told(made: &[Completion], group: usize, alone: bool) -> Means {
    let mut means = Means::default();
    let rewards: Vec<f64> = made.iter().filter_map(|one| one.reward).collect();
    means.add("reward", &rewards);
    means.add("reward_std", &[mean_and_deviation(&rewards).1]);
    let judges = made.first().map_or(0, |one| one.rewards.len());
    for judge in (0..judges).filter(|_| judges > 1) {
        let said: Vec<f64> = made.iter().filter_map(|one| one.rewards.get(judge)?.1).collect();
        let name = made.first().and_then(|one| one.rewards.get(judge)).map_or("", |(name, _)| name.as_str());
        means.add(&format!("rewards/{name}"), &said);
    }
    if !alone {
        means.add("objective/kl", &made.iter().map(Completion::divergence).collect::<Vec<_>>());
    }
    means.add("objective/entropy", &made.iter().map(|one| one.entropy).collect::<Vec<_>>());
    means.add("completions/mean_length", &made.iter().map(|one| one.tokens() as f64).collect::<Vec<_>>());
    let clipped = |one: &Completion| f64::from(u8::from(!one.ended));
    means.add("completions/clipped_ratio", &made.iter().map(clipped).collect::<Vec<_>>());
    if group > 1 {
        let even = |group: &[Completion]| {
            let rewards: Vec<f64> = group.iter().filter_map(|one| one.reward).collect();
            f64::from(u8::from(mean_and_deviation(&rewards).1 == 0.))
        };
        means.add("frac_reward_zero_std", &made.chunks(group).map(even).collect::<Vec<_>>());
    }
    means
}

/// Completions behind their prompts, with their tokens for targets.
pub fn rows<'c>(made: impl Iterator<Item = &'c Completion> + Clone, pad: u32) -> Batch {
    let mut batch = Batch::of_rows(made.clone().map(|one| one.ids.as_slice()), pad);
    for one in made {
        // What stands at a place predicts the token behind it.
        let before = std::iter::repeat_n(IGNORE, one.given - 1);
        let filling = std::iter::repeat_n(IGNORE, batch.time - one.ids.len() + 1);
        batch.targets.extend(before.chain(one.ids[one.given..].iter().map(|&id| id as i32)).chain(filling));
        batch.tokens += one.tokens();
    }
    batch
}

/// Some completions with what a policy's loss needs.
pub fn played(made: &[Completion], units: &[usize], pad: u32, tokens_per_update: f32) -> Batch {
    let of = || units.iter().map(|&at| &made[at]);
    let all = |list: fn(&Completion) -> &Vec<f32>| of().flat_map(list).copied().collect();
    let labels = Played {
        old: all(|one| &one.old),
        reference: all(|one| &one.reference),
        advantages: all(|one| &one.advantages),
        values: all(|one| &one.values),
        returns: all(|one| &one.returns),
        left_out: of().map(|one| one.left_out).collect(),
        tokens_per_update,
    };
    Batch { labels: Labels::Played(labels), ..rows(of(), pad) }
}

/// Pairs of completions, the one with the higher reward first; `units` count pairs.
pub fn pairs(made: &[Completion], units: &[usize], pad: u32) -> Batch {
    let ordered = |&at: &usize| {
        let (a, b) = (&made[2 * at], &made[2 * at + 1]);
        // What nobody could judge teaches nothing: as if both were alike.
        let gap = a.reward.zip(b.reward).map_or(0., |(a, b)| a - b);
        if gap >= 0. { (a, b, gap) } else { (b, a, -gap) }
    };
    let all: Vec<_> = units.iter().map(ordered).collect();
    let of: Vec<&Completion> = all.iter().map(|pair| pair.0).chain(all.iter().map(|pair| pair.1)).collect();
    let sum = |one: &&Completion| one.reference.iter().map(|&x| f64::from(x)).sum::<f64>() as f32;
    let labels = Pairs {
        reference: Some(of.iter().map(sum).collect()),
        margins: Some(all.iter().map(|pair| pair.2 as f32).collect()),
        whole: false,
    };
    Batch { labels: Labels::Pairs(labels), ..rows(of.into_iter(), pad) }
}
