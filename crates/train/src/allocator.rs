//! AdaLoRA's allocator of ranks (Zhang et al. 2023, sections 3.2 and 3.3): how much the loss depends on each singular direction is
//! followed step by step, and the directions that it depends on least are masked, over all maps together, until as many are left
//! as the recipe wants.
//!
//! Numbers and steps are those of peft's `AdaLoraModel.update_and_allocate`: gradients as the optimiser took them, parameters as it
//! left them, steps counted from 1.

use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use phyla_models::adapter::{AdaLoraSpec, Adapter, AdapterSpec, Directions, Kept};
use phyla_models::checkpoint::{Checkpoint, Dtype, MAX_SHARD_BYTES, SafetensorsWriter, TensorSpec, Values};
use phyla_ops::{Param, Weight, cpu};

use crate::TrainError;

/// Follows the directions of one adapter.
#[derive(Debug)]
pub struct Allocator {
    spec: AdaLoraSpec,
    /// Steps in all.
    total: u64,
    modules: Vec<Directions>,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// Of each parameter, module by module in the order of [`Directions::params`]; empty before the first step and after the last
    /// time that directions are taken away.
    followed: Vec<Followed>,
    /// What is left, since directions were taken away first.
    kept: Kept,
}

/// Of each number of a parameter.
#[derive(Clone, Debug)]
struct Followed {
    /// How much the loss depends on it: `|x · slope|`, smoothed.
    sensitivity: Vec<f32>,
    /// How much that changes, smoothed.
    uncertainty: Vec<f32>,
}

/// Name of its file in a checkpoint, without the ending.
const FILE: &str = "allocator";

impl Allocator {
    /// For an adapter of AdaLoRA that learns for `total` steps, where it does not say so itself; `None` for any other.
    ///
    /// # Errors
    /// An adapter for which nobody says so.
    pub fn new(adapter: &Adapter, total: Option<u64>) -> Result<Option<Self>, TrainError> {
        let AdapterSpec::AdaLora(spec) = adapter.spec() else { return Ok(None) };
        let Some(total) = spec.total_step.or(total) else {
            return Err(TrainError::Settings("`method.total_step` is not given: adalora plans by it".into()));
        };
        Ok(Some(Self { spec: spec.clone(), total, modules: adapter.directions(), state: Mutex::default() }))
    }

    fn state<R>(&self, f: impl FnOnce(&mut State) -> R) -> R {
        f(&mut self.state.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// What is left of the directions; nothing while all are.
    pub fn kept(&self) -> Kept {
        self.state(|state| state.kept.clone())
    }

    /// Adds the slope of how far directions are from orthonormal to the gradients, and returns what it adds to the loss.
    ///
    /// # Errors
    /// Those of operations.
    pub fn regularise(&self) -> Result<f64, TrainError> {
        let scale = (self.spec.orth_reg_weight / (2 * self.modules.len()).max(1) as f64) as f32;
        let mut sum = 0.;
        for module in &self.modules {
            for directions in [phyla_ops::Directions::Rows(&module.a), phyla_ops::Directions::Columns(&module.b)] {
                let loss = phyla_ops::orthogonality(directions, scale)?;
                sum += f64::from(loss.data().to_scalar::<f32>()?);
                loss.backward()?;
            }
        }
        Ok(sum)
    }

    /// After update `step`, while the gradients are there, which the optimiser took times `grad_scale`.
    ///
    /// # Errors
    /// Those of operations.
    pub fn allocate(&self, step: u64, grad_scale: f32) -> Result<(), TrainError> {
        self.state(|state| {
            let last = self.total.saturating_sub(self.spec.tfinal);
            if step < last {
                self.follow(&mut state.followed, grad_scale)?;
            }
            if step > last {
                return self.silence(&state.kept);
            }
            let due = step == last || (step > self.spec.tinit && step.is_multiple_of(self.spec.delta_t));
            // A run of a single step has followed nothing.
            if due && !state.followed.is_empty() {
                state.kept = self.choose(&state.followed, self.budget(step));
                self.silence(&state.kept)?;
            }
            if step == last {
                state.followed.clear();
            }
            Ok(())
        })
    }

    /// Masks again what is not left, after the adapter was given other numbers.
    ///
    /// # Errors
    /// Those of operations.
    pub fn mask(&self) -> Result<(), TrainError> {
        self.state(|state| self.silence(&state.kept))
    }

    /// Directions of all maps together that are left after a step: all at first, then fewer by a cubic curve (eq. 12).
    pub fn budget(&self, step: u64) -> usize {
        let (first, last) = (self.spec.tinit, self.total.saturating_sub(self.spec.tfinal));
        let all: usize = self.modules.iter().map(|module| module.values.count()).sum();
        let target = self.spec.target_rank * self.modules.len();
        if step <= first {
            all
        } else if step > last {
            target
        } else {
            let left = 1. - (step - first) as f64 / (last - first) as f64;
            ((all as f64 - target as f64) * left.powi(3) + target as f64) as usize
        }
    }

    /// Smooths what the numbers matter now into what they did (eqs. 9 and 10).
    fn follow(&self, followed: &mut Vec<Followed>, grad_scale: f32) -> Result<(), TrainError> {
        let params: Vec<&Arc<Param>> = self.modules.iter().flat_map(Directions::params).collect();
        if followed.is_empty() {
            let zeros = |param: &&Arc<Param>| vec![0.; param.count()];
            *followed = params.iter().map(|p| Followed { sensitivity: zeros(p), uncertainty: zeros(p) }).collect();
        }
        let [(old1, new1), (old2, new2)] =
            [self.spec.beta1, self.spec.beta2].map(|beta| (beta as f32, (1. - beta) as f32));
        for (param, followed) in params.into_iter().zip(followed) {
            let Some(gradient) = param.grad() else { continue };
            let gradient = gradient.to_device(&candle_core::Device::Cpu)?;
            let gradient = cpu::view::<f32>(&gradient)?;
            let of = followed.sensitivity.iter_mut().zip(&mut followed.uncertainty);
            for ((x, slope), (sensitivity, uncertainty)) in param.numbers()?.iter().zip(&*gradient).zip(of) {
                let now = (x * (slope * grad_scale)).abs();
                *sensitivity = old1 * *sensitivity + new1 * now;
                *uncertainty = old2 * *uncertainty + new2 * (now - *sensitivity).abs();
            }
        }
        Ok(())
    }

    /// The directions that are left if about `budget` of all are: a direction matters as much as its singular value and, on average,
    /// the numbers of its two vectors (eq. 8). Those that matter as little as the most that is taken away, go too.
    fn choose(&self, followed: &[Followed], budget: usize) -> Kept {
        let mut followed = followed.iter();
        let mut scores: Vec<(&str, Vec<f32>)> = vec![];
        for module in &self.modules {
            let rank = module.values.count();
            let input = module.a.dims()[1];
            let output: usize = module.b.iter().map(|b| b.dims()[0]).sum();
            let mut score = vec![0f64; rank];
            // A row of `a` and a number of the values are a direction's, and of `b` a column.
            let mut add = |numbers: usize, direction: &dyn Fn(usize) -> usize| {
                let Some(Followed { sensitivity, uncertainty }) = followed.next() else { return };
                for (at, (sensitivity, uncertainty)) in sensitivity.iter().zip(uncertainty).enumerate() {
                    score[direction(at)] += f64::from(sensitivity * uncertainty) / numbers as f64;
                }
            };
            add(input, &|at| at / input);
            add(1, &|at| at);
            module.b.iter().for_each(|_| add(output, &|at| at % rank));
            scores.push((&module.module, score.into_iter().map(|score| score as f32).collect()));
        }
        let mut all: Vec<f32> = scores.iter().flat_map(|(_, score)| score.iter().copied()).collect();
        all.sort_by(f32::total_cmp);
        let away = all.len().saturating_sub(budget);
        let most = away.checked_sub(1).map_or(f32::NEG_INFINITY, |at| all[at]);
        let left = |(module, score): (&str, Vec<f32>)| {
            (module.to_string(), score.into_iter().map(|score| score > most).collect())
        };
        scores.into_iter().map(left).collect()
    }

    /// Sets the singular values of directions that are not left to 0.
    fn silence(&self, kept: &Kept) -> Result<(), TrainError> {
        for module in &self.modules {
            let Some(kept) = kept.get(&module.module) else { continue };
            let mut values = module.values.numbers()?;
            values.iter_mut().zip(kept).filter(|(_, kept)| !**kept).for_each(|(value, _)| *value = 0.);
            module.values.set_weight(Weight::Dense(cpu::tensor(values, module.values.dims())?))?;
        }
        Ok(())
    }

    /// Writes it into a checkpoint.
    ///
    /// # Errors
    /// Those of the file system.
    pub fn save(&self, folder: &Path) -> Result<(), TrainError> {
        let tensors = self.state(|state| self.tensors(state));
        let specs: Vec<TensorSpec> = tensors
            .iter()
            .map(|(name, values)| TensorSpec { name: name.clone(), dtype: Dtype::F32, shape: vec![values.len()] })
            .collect();
        let mut writer = SafetensorsWriter::create(folder.join(FILE), &specs, MAX_SHARD_BYTES)?;
        for (name, values) in &tensors {
            writer.write(name, Values::F32(values))?;
        }
        writer.finish()?;
        Ok(())
    }

    /// What a checkpoint holds of it: of each parameter what is followed, of each module 1 for what is left and else 0.
    fn tensors(&self, state: &State) -> Vec<(String, Vec<f32>)> {
        let params = self.modules.iter().flat_map(Directions::params);
        let mut tensors: Vec<(String, Vec<f32>)> = (params.zip(&state.followed))
            .flat_map(|(param, followed)| {
                [
                    (format!("{}.exp_avg_ipt", param.path()), followed.sensitivity.clone()),
                    (format!("{}.exp_avg_unc", param.path()), followed.uncertainty.clone()),
                ]
            })
            .collect();
        let flags = |kept: &Vec<bool>| kept.iter().map(|kept| f32::from(u8::from(*kept))).collect();
        tensors.extend(state.kept.iter().map(|(module, kept)| (format!("{module}.kept"), flags(kept))));
        tensors
    }

    /// Reads what [`Allocator::save`] wrote.
    ///
    /// # Errors
    /// A file that is missing, or is of another adapter.
    pub fn load(&self, folder: &Path) -> Result<(), TrainError> {
        let tensors = Checkpoint::open(folder.join(FILE))?;
        let read = |name: String, count: usize| -> Result<Option<Vec<f32>>, TrainError> {
            if !tensors.contains(&name) {
                return Ok(None);
            }
            let values = tensors.get(&name)?.to_f32()?;
            if values.len() != count {
                let reason = format!("{FILE}: {name} has {} numbers, expected {count}", values.len());
                return Err(TrainError::Resume { path: folder.to_owned(), reason });
            }
            Ok(Some(values))
        };
        let mut state = State::default();
        for param in self.modules.iter().flat_map(Directions::params) {
            let [sensitivity, uncertainty] =
                ["exp_avg_ipt", "exp_avg_unc"].map(|which| read(format!("{}.{which}", param.path()), param.count()));
            if let (Some(sensitivity), Some(uncertainty)) = (sensitivity?, uncertainty?) {
                state.followed.push(Followed { sensitivity, uncertainty });
            }
        }
        for module in &self.modules {
            if let Some(flags) = read(format!("{}.kept", module.module), module.values.count())? {
                state.kept.insert(module.module.clone(), flags.iter().map(|flag| *flag > 0.).collect());
            }
        }
        let count = self.modules.iter().flat_map(Directions::params).count();
        if ![0, count].contains(&state.followed.len()) {
            let reason = format!("{FILE}: it follows {} parameters, expected {count}", state.followed.len());
            return Err(TrainError::Resume { path: folder.to_owned(), reason });
        }
        self.state(|old| *old = state);
        Ok(())
    }
}
