//! How good completions are: by a reward model, by checks of the text, or by a program of the user's.

mod check;
mod command;
mod model;

use phyla_data::supervised::prompts::Source;

use crate::TrainError;
use crate::recipe::{Play, Recipe, RewardFunction};
use command::Program;
use model::Scorer;

/// A completion, to be judged.
#[derive(Clone, Copy, Debug)]
pub struct Item<'a> {
    /// What was asked.
    pub prompt: &'a Source,
    /// What was written, without the token that ends it.
    pub completion: &'a str,
    /// Whether it came to its end, rather than to the limit.
    pub ended: bool,
    /// Its tokens.
    pub tokens: usize,
}

/// All judges of a recipe.
#[derive(Debug)]
pub struct Rewards {
    graders: Vec<Grader>,
    names: Vec<String>,
    weights: Vec<f64>,
}

#[derive(Debug)]
enum Grader {
    Model(Box<Scorer>),
    Check(check::Check),
    Command(Program),
}

/// What the judges say of some completions.
#[derive(Debug)]
pub struct Verdict {
    /// Of each completion what each judge says; nothing where it cannot judge.
    pub each: Vec<Vec<Option<f64>>>,
    /// The weighted sum; nothing where no judge says anything.
    pub sums: Vec<Option<f64>>,
}

impl Rewards {
    /// Loads the models and starts the programs that `play` names.
    ///
    /// # Errors
    /// A model that is none of rewards, and a program that cannot be started.
    pub fn open(recipe: &Recipe, play: &Play) -> Result<Self, TrainError> {
        let grader = |reward: &RewardFunction| -> Result<Grader, TrainError> {
            Ok(match reward {
                RewardFunction::Model { path, max_len } => {
                    Grader::Model(Box::new(Scorer::open(recipe, path, *max_len)?))
                }
                RewardFunction::Command { command, timeout } => Grader::Command(Program::start(command, *timeout)?),
                other => Grader::Check(check::Check::new(other)?),
            })
        };
        let graders = play.rewards.iter().map(grader).collect::<Result<_, _>>()?;
        let weights = play.weights.map_or_else(|| vec![1.; play.rewards.len()], <[f64]>::to_vec);
        Ok(Self { graders, names: names(play.rewards), weights })
    }

    /// What the judges are called, in their order.
    pub fn names(&self) -> &[String] {
        &self.names
    }

    /// Judges completions, some at a time.
    ///
    /// # Errors
    /// [`TrainError::Reward`]: a judge that fails, or says what is no number.
    pub fn judge(&mut self, items: &[Item], batch: usize) -> Result<Verdict, TrainError> {
        let mut each = vec![vec![]; items.len()];
        for (grader, name) in self.graders.iter_mut().zip(&self.names) {
            let said = match grader {
                Grader::Model(scorer) => scorer.scores(items, batch)?.into_iter().map(Some).collect(),
                Grader::Check(check) => check.scores(items)?,
                Grader::Command(program) => program.scores(items)?,
            };
            for ((item, said), each) in items.iter().zip(said).zip(&mut each) {
                if said.is_some_and(|said: f64| !said.is_finite()) {
                    let what =
                        format!("a completion got the reward {}: {:?}", said.unwrap_or_default(), item.completion);
                    return Err(TrainError::Reward { name: name.clone(), what });
                }
                each.push(said);
            }
        }
        let sum = |said: &Vec<Option<f64>>| {
            let known = || said.iter().zip(&self.weights).filter_map(|(said, weight)| Some((*said)? * weight));
            (known().count() > 0).then(|| known().sum())
        };
        let sums = each.iter().map(sum).collect();
        Ok(Verdict { each, sums })
    }
}

/// The kinds, numbered where there are several of one.
fn names(rewards: &[RewardFunction]) -> Vec<String> {
    let of = |at: usize| {
        let name = rewards[at].name();
        let same = |rewards: &[RewardFunction]| rewards.iter().filter(|other| other.name() == name).count();
        if same(rewards) > 1 { format!("{name}_{}", same(&rewards[..at]) + 1) } else { name.to_owned() }
    };
    (0..rewards.len()).map(of).collect()
}
