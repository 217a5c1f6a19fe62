//! Roll-outs: the model answers prompts, the answers are judged, and what comes of it becomes batches to learn from.
//!
//! One roll-out gives several updates. Where a run stands in it belongs to its checkpoints, completions included, since the
//! weights that wrote them are gone by then.

pub mod advantage;
pub(crate) mod experience;
mod write;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use phyla_data::batch::{Batch, Batches, Labels};
use phyla_data::supervised::loader::Examples;
use phyla_data::supervised::prompts::Prompts;
use phyla_data::supervised::records::Prompt;
use phyla_data::tokenizer::Tokenizer;
use phyla_kernels::rng::Rng;
use phyla_models::Model;
use phyla_models::adapter::Adapter;
use phyla_models::checkpoint::atomic_write;
use serde::{Deserialize, Serialize};

use crate::TrainError;
use crate::critic::Critic;
use crate::metrics::Means;
use crate::objective::policy::{self, Estimates};
use crate::recipe::{Objective, Play, Recipe};
use crate::reference::without;
use crate::report::SampleText;
use crate::reward::{Item, Rewards};
pub use experience::Completion;
use write::Writer;

/// Everything that roll-outs need beside the model in training.
#[derive(Debug)]
pub struct Rollouts {
    objective: Objective,
    prompts: Arc<Prompts>,
    /// Prompts to be measured on.
    held_out: Option<Arc<Prompts>>,
    rewards: Rewards,
    reference: Reference,
    critic: Option<Critic>,
    writer: Writer,
    /// Completions of one forward pass, and passes of one update.
    sizes: [usize; 2],
    seed: u64,
    state: State,
}

/// Its file in a checkpoint.
const STATE: &str = "rollouts.json";

/// Held-out prompts in a sample.
const SHOWN: usize = 3;

/// What the policy is held to.
#[derive(Debug)]
pub enum Reference {
    /// Nothing.
    None,
    /// Another model, which does not learn.
    Model(Box<Model>),
    /// The model itself without the adapter that learns.
    Without(Arc<Adapter>),
}

/// Where a run stands in its roll-outs, for its checkpoints.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct State {
    /// Roll-outs made.
    pub rollouts: u64,
    /// Updates that have been taken of the last one.
    pub taken: usize,
    /// The price of divergence, where it adapts.
    pub kl_coef: Option<f64>,
    /// The last one, until all its updates are taken.
    pub completions: Vec<Completion>,
}

/// What one update is made of.
#[derive(Debug)]
pub struct Turn {
    /// Its batches.
    pub batches: Vec<Batch>,
    /// What a roll-out measured, if it began one.
    pub means: Means,
}

/// What held-out prompts measured.
#[derive(Debug)]
pub struct Measured {
    /// The mean reward.
    pub reward: f64,
    /// It and others, by name.
    pub scores: BTreeMap<String, f64>,
}

impl Rollouts {
    /// Prepares roll-outs of `play` over some prompts.
    pub fn new(
        recipe: &Recipe,
        play: &Play,
        model: &Model,
        (tokenizer, ends): (Arc<Tokenizer>, Vec<u32>),
        (prompts, held_out): (Arc<Prompts>, Option<Arc<Prompts>>),
        reference: Reference,
    ) -> Result<Self, TrainError> {
        let critic = matches!(recipe.objective, Objective::Ppo(_)).then(|| Critic::new(model)).transpose()?;
        Ok(Self {
            objective: recipe.objective.clone(),
            prompts,
            held_out,
            rewards: Rewards::open(recipe, play)?,
            reference,
            critic,
            writer: Writer::new(play.rollout, tokenizer, ends),
            sizes: [recipe.train.batch, recipe.train.accumulate],
            seed: recipe.seed,
            state: State::default(),
        })
    }

    /// The value head.
    pub fn critic(&self) -> Option<&Critic> {
        self.critic.as_ref()
    }

    /// Writes where it stands, completions and value head included, into a checkpoint.
    pub fn save(&self, folder: &Path) -> Result<(), TrainError> {
        if let Some(critic) = &self.critic {
            critic.save(folder)?;
        }
        let text = serde_json::to_vec(&self.state).map_err(|e| TrainError::Settings(format!("{STATE}: {e}")))?;
        Ok(atomic_write(folder.join(STATE), &text)?)
    }

    /// Goes on from there.
    pub fn load(&mut self, folder: &Path) -> Result<(), TrainError> {
        if let Some(critic) = &self.critic {
            critic.load(folder)?;
        }
        let error =
            |reason: String| TrainError::Resume { path: folder.to_owned(), reason: format!("{STATE}: {reason}") };
        let text = std::fs::read(folder.join(STATE)).map_err(|e| error(e.to_string()))?;
        self.state = serde_json::from_slice(&text).map_err(|e| error(e.to_string()))?;
        Ok(())
    }

    /// The examples of one update, and how many completions each is.
    fn examples(&self) -> (usize, usize) {
        (self.sizes[0] * self.sizes[1], self.play().map_or(1, |play| play.together))
    }

    fn play(&self) -> Option<Play<'_>> {
        self.objective.play()
    }

    /// Updates that come of one pass over all prompts.
    pub fn updates_per_epoch(&self) -> u64 {
        let (examples, together) = self.examples();
        let Some(play) = self.play() else { return 1 };
        let completions = self.prompts.count() * play.generations * play.passes;
        (completions / (examples * together).max(1)).max(1) as u64
    }

    /// The batches of the next update, of a new roll-out if the last one is used up; nothing if `interrupt` came first.
    ///
    /// # Errors
    /// [`TrainError::Reward`] and what the model says; the state is then as before.
    pub fn next(
        &mut self,
        model: &Model,
        prompts: &mut dyn Batches,
        interrupt: &AtomicBool,
    ) -> Result<Option<Turn>, TrainError> {
        let mut means = Means::default();
        if self.state.completions.is_empty() {
            let Some(found) = self.play_out(model, prompts, interrupt)? else { return Ok(None) };
            means = found;
        }
        let batches = self.batches();
        self.state.taken += 1;
        let (examples, _) = self.examples();
        if self.state.taken >= self.play().map_or(0, |play| play.updates(examples)) {
            self.state.taken = 0;
            self.state.completions.clear();
        }
        Ok(Some(Turn { batches, means }))
    }

    /// Writes, judges and weighs a new roll-out.
    fn play_out(
        &mut self,
        model: &Model,
        prompts: &mut dyn Batches,
        interrupt: &AtomicBool,
    ) -> Result<Option<Means>, TrainError> {
        let (examples, _) = self.examples();
        let Some(play) = self.objective.play() else { return Ok(None) };
        let (completions, generations) = (play.completions(examples), play.generations);
        let (before, mut numbers) = (prompts.state(), vec![]);
        while numbers.len() < completions / generations {
            match prompts.next_batch()?.labels {
                Labels::Prompts(more) => numbers.extend(more),
                _ => return Err(TrainError::Settings("roll-outs need prompts".into())),
            }
        }
        let rng = Rng::new(self.seed).split("rollout").split(self.state.rollouts);
        let made = self.write(model, &self.prompts.clone(), (&numbers, generations), &rng, Some(interrupt));
        let made = made.and_then(|made| match made {
            Some(mut made) => Ok(Some((self.judge(model, &self.prompts.clone(), &mut made)?, made))),
            None => Ok(None),
        });
        let stopped = interrupt.load(std::sync::atomic::Ordering::SeqCst);
        match made {
            Ok(Some((means, made))) if !stopped => {
                self.state.rollouts += 1;
                self.state.completions = made;
                Ok(Some(means))
            }
            other => {
                // As if nothing had begun. What an interruption broke is no fault.
                prompts.restore(before)?;
                if stopped { Ok(None) } else { other.map(|_| None) }
            }
        }
    }

    /// The completions of some prompts, `returns` of each; nothing if it was interrupted.
    fn write(
        &self,
        model: &Model,
        prompts: &Prompts,
        (numbers, returns): (&[u32], usize),
        rng: &Rng,
        interrupt: Option<&AtomicBool>,
    ) -> Result<Option<Vec<Completion>>, TrainError> {
        let mut made: Vec<Vec<Completion>> = vec![vec![]; numbers.len()];
        // Draws follow from a prompt and its number among the answers: a prompt that comes again needs others.
        let mut times: BTreeMap<u32, u64> = BTreeMap::new();
        let mut rounds: BTreeMap<u64, Vec<usize>> = BTreeMap::new();
        for (at, number) in numbers.iter().enumerate() {
            let time = times.entry(*number).or_default();
            rounds.entry(*time).or_default().push(at);
            *time += 1;
        }
        for (round, places) in rounds {
            let ids: Vec<Vec<u32>> = places.iter().map(|&at| prompts.ids(numbers[at]).to_vec()).collect();
            let seed = rng.split(round).next_u64();
            let Some(written) = self.writer.write(model, &ids, returns, seed, interrupt)? else { return Ok(None) };
            for (at, written) in written {
                let number = numbers[places[at]];
                made[places[at]].push(Completion::new(number, prompts.ids(number), written));
            }
        }
        Ok(Some(made.into_iter().flatten().collect()))
    }

    /// Rewards, log-probabilities and advantages of completions, and what is told of them.
    fn judge(&mut self, model: &Model, prompts: &Prompts, made: &mut [Completion]) -> Result<Means, TrainError> {
        self.reward(prompts, made)?;
        self.value(model, made)
    }

    /// Log-probabilities and advantages of completions whose rewards are known; the price of divergence adapts.
    fn value(&mut self, model: &Model, made: &mut [Completion]) -> Result<Means, TrainError> {
        self.score(model, made)?;
        let price = self.kl_coef();
        let means = experience::weigh(&self.objective, made, price);
        if let Objective::Ppo(ppo) = &self.objective
            && let Some(target) = ppo.target_kl
        {
            let divergence = made.iter().map(Completion::divergence).sum::<f64>() / made.len().max(1) as f64;
            // Ziegler et al. 2019, section 2.2.
            let error = (divergence / target - 1.).clamp(-0.2, 0.2);
            self.state.kl_coef = Some(price * (1. + error * made.len() as f64 / ppo.horizon));
        }
        Ok(means)
    }

    /// The price of divergence now.
    fn kl_coef(&self) -> f64 {
        match (&self.objective, self.state.kl_coef) {
            (_, Some(price)) => price,
            (Objective::Ppo(ppo), None) => ppo.kl_coef,
            (Objective::Rloo(rloo), None) => rloo.beta,
            _ => 0.,
        }
    }

    fn reward(&mut self, prompts: &Prompts, made: &mut [Completion]) -> Result<(), TrainError> {
        let penalty = self.objective.play().map_or(0., |play| play.missing_eos_penalty);
        let items: Vec<Item> = made
            .iter()
            .map(|one| Item {
                prompt: prompts.source(one.prompt),
                completion: &one.text,
                ended: one.ended,
                tokens: one.tokens(),
            })
            .collect();
        let verdict = self.rewards.judge(&items, self.sizes[0])?;
        let names = self.rewards.names();
        for ((one, each), sum) in made.iter_mut().zip(verdict.each).zip(verdict.sums) {
            one.rewards = names.iter().cloned().zip(each).collect();
            one.reward = sum.map(|sum| sum - if one.ended { 0. } else { penalty });
        }
        Ok(())
    }

    /// Log-probabilities under the policy and its reference, and values.
    fn score(&self, model: &Model, made: &mut [Completion]) -> Result<(), TrainError> {
        let pad = self.prompts.pad();
        let mut order: Vec<usize> = (0..made.len()).collect();
        order.sort_by_key(|&at| std::cmp::Reverse(made[at].ids.len()));
        for part in order.chunks(self.sizes[0].max(1)) {
            let batch = experience::rows(part.iter().map(|&at| &made[at]), pad);
            let own = policy::ask(model, &batch, self.temperature(), self.critic.as_ref())?;
            let reference = self.ask_reference(model, &batch)?;
            let mut first = 0;
            for &at in part {
                let one = &mut made[at];
                let of = first..first + one.tokens();
                first = of.end;
                one.old = own.log_probs[of.clone()].to_vec();
                one.entropy = own.entropies[of.clone()].iter().map(|&x| f64::from(x)).sum::<f64>() / of.len() as f64;
                one.values = own.values.get(of.clone()).unwrap_or_default().to_vec();
                one.reference = reference.log_probs.get(of).unwrap_or_default().to_vec();
            }
        }
        Ok(())
    }

    fn ask_reference(&self, model: &Model, batch: &Batch) -> Result<Estimates, TrainError> {
        Ok(match &self.reference {
            Reference::None => Estimates::default(),
            Reference::Model(reference) => policy::ask(reference, batch, self.temperature(), None)?,
            Reference::Without(adapter) => {
                without(model, adapter, || policy::ask(model, batch, self.temperature(), None))?
            }
        })
    }

    /// At which log-probabilities are taken: of pairs as they are, as in trl.
    fn temperature(&self) -> f32 {
        match &self.objective {
            Objective::OnlineDpo(_) => 1.,
            objective => objective.play().map_or(1., |play| play.rollout.temperature as f32),
        }
    }

    /// The batches of the next update of the last roll-out.
    fn batches(&self) -> Vec<Batch> {
        let (examples, together) = self.examples();
        let made = &self.state.completions;
        let updates = (made.len() / (examples * together).max(1)).max(1);
        let (pass, part) = (self.state.taken / updates, self.state.taken % updates);
        let mut order: Vec<usize> = (0..made.len() / together.max(1)).collect();
        let mut rng = Rng::new(self.seed).split("minibatches").split(self.state.rollouts).split(pass as u64);
        rng.shuffle(&mut order);
        let counted = made.iter().filter(|one| !one.left_out).map(Completion::tokens).sum::<usize>();
        let own = order.get(part * examples..(part + 1) * examples).unwrap_or_default();
        let batch = |units: &[usize]| match together {
            2 => experience::pairs(made, units, self.prompts.pad()),
            _ => experience::played(made, units, self.prompts.pad(), counted as f32 / updates as f32),
        };
        own.chunks(self.sizes[0].max(1)).map(batch).collect()
    }

    /// How good the model's answers to held-out prompts are, the same draws each time.
    pub fn measure(&mut self, model: &Model, most: usize) -> Result<Option<Measured>, TrainError> {
        let Some(prompts) = self.held_out.clone() else { return Ok(None) };
        let numbers: Vec<u32> = (0..prompts.count().min(most) as u32).collect();
        let rng = Rng::new(self.seed).split("held-out prompts");
        let Some(mut made) = self.write(model, &prompts, (&numbers, 1), &rng, None)? else { return Ok(None) };
        self.reward(&prompts, &mut made)?;
        self.score(model, &mut made)?;
        let scores = experience::told(&made, 1, matches!(self.reference, Reference::None)).values();
        Ok(Some(Measured { reward: scores.get("reward").copied().unwrap_or_default(), scores }))
    }

    /// What the model answers to prompts, with its rewards; an empty prompt stands for some that are held out (of training,
    /// where none are).
    pub fn samples(&mut self, model: &Model, prompts: &[String]) -> Result<Vec<SampleText>, TrainError> {
        let rng = Rng::new(self.seed).split("samples");
        let mut samples = vec![];
        for prompt in prompts {
            let own = (!prompt.is_empty()).then(|| [Ok(Prompt::new(prompt.clone()))]);
            let prompts = match own {
                Some(own) => Arc::new(Prompts::new(own.into_iter(), self.writer.tokenizer(), usize::MAX)?),
                None => self.held_out.clone().unwrap_or_else(|| self.prompts.clone()),
            };
            let numbers: Vec<u32> = (0..prompts.count().min(SHOWN) as u32).collect();
            let Some(mut made) = self.write(model, &prompts, (&numbers, 1), &rng, None)? else { continue };
            if prompt.is_empty() {
                // Of a prompt without its row there is nothing to compare with.
                self.reward(&prompts, &mut made)?;
            }
            samples.extend(made.into_iter().map(|one| SampleText {
                step: 0,
                prompt: prompts.source(one.prompt).text.clone(),
                text: one.text,
                reward: one.reward,
            }));
        }
        Ok(samples)
    }
}

#[cfg(test)]
mod tests;
