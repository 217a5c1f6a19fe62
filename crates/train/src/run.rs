//! The training loop: every method and objective runs through here.

mod record;
mod turn;

use std::fmt::Write as _;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use candle_core::{DType, Device};
use phyla_kernels::rng::Rng;
use phyla_models::checkpoint::AtomicDir;

use crate::TrainError;
use crate::average::average;
use crate::evaluate::{Evaluation, evaluate};
use crate::judge::Scores;
use crate::metrics::{Metrics, Row, peak_rss_mb};
use crate::optimizer::Optimizer;
use crate::progress::{Progress, Tick};
use crate::recipe::{Length, Recipe};
use crate::report::SampleText;
use crate::resume;
use crate::rollout::Turn;
use crate::rundir::RunDir;
use crate::schedule::Schedule;
use crate::setup::Setup;
use crate::signals::Interrupt;
use crate::state::{self, Since, State};
use crate::step::{StepResult, Stepper};
use crate::tensorboard::EventWriter;
use crate::thresholds;

/// How to run a recipe.
#[derive(Clone, Debug)]
pub struct Options {
    /// Continue the run in the recipe's output folder.
    pub resume: bool,
    /// Show no progress.
    pub quiet: bool,
    /// Where to compute.
    pub device: Device,
}

impl Default for Options {
    fn default() -> Self {
        Self { resume: false, quiet: false, device: Device::Cpu }
    }
}

/// How a run ended.
#[derive(Clone, Debug, serde::Serialize)]
pub struct Summary {
    /// Updates made, those before a resumption included.
    pub steps: u64,
    /// Tokens trained on.
    pub tokens: u64,
    /// Seconds of training.
    pub seconds: f64,
    /// Number of weights.
    pub parameters: usize,
    /// Training loss of the last step.
    pub loss: f64,
    /// Validation loss at the end.
    pub eval_loss: Option<f64>,
    /// `exp(eval_loss)`, where the loss is over a vocabulary alone.
    pub perplexity: Option<f64>,
    /// What else the validation data measured at the end: `accuracy`, `f1`, …
    pub eval_scores: Scores,
    /// Why the run ended before its length, if it did.
    pub stopped: Option<Stopped>,
    /// The signal that interrupted it, for the exit status.
    #[serde(skip)]
    pub signal: Option<i32>,
    /// The trained model, as a Hugging Face folder; only of runs that came to their end.
    pub model: Option<PathBuf>,
    /// The HTML report.
    pub report: PathBuf,
}

/// Why a run ended before its length.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Stopped {
    /// Ctrl-C or SIGTERM: everything is saved, `--resume` continues.
    Interrupted,
    /// The validation loss has stopped falling.
    Early,
}

/// Trains as the recipe says.
///
/// # Errors
/// [`TrainError`]; what was saved before stays intact.
pub fn train(recipe: &Recipe, options: &Options) -> Result<Summary, TrainError> {
    let (run, checkpoint) = match options.resume {
        true => RunDir::resume(&recipe.output)?,
        false => (RunDir::create(&recipe.output)?, None),
    };
    let start = checkpoint.as_ref().map_or(0, |c| c.step);
    let mut progress = Progress::new(start, options.quiet);
    if options.resume {
        match &checkpoint {
            Some(checkpoint) => {
                progress.note(&format!("resuming after step {} from {}", checkpoint.step, checkpoint.path.display()));
                resume::check_recipe(&run, recipe)?.iter().for_each(|text| progress.note(text));
            }
            None => progress.note(&format!("{} holds no checkpoint: beginning at step 1", recipe.output.display())),
        }
    }
    let path = checkpoint.as_ref().map(|c| c.path.clone());
    let setup = Setup::new(recipe, run.root(), path.as_deref(), &options.device, &mut |text| progress.note(text))?;
    let mut optimizer = Optimizer::new(&recipe.optim, &setup.params(), |path| {
        recipe.method.lr_scale(path) * thresholds::lr_scale(path)
    })?;
    let mut state = match &checkpoint {
        Some(checkpoint) => state::read(checkpoint, &mut optimizer)?,
        None => State::default(),
    };
    let text = format!("{:016x}", setup.train.digest());
    if let Some(path) = &path {
        resume::check_text(&state, path, &text)?;
    }
    state.text = text;
    if let Some((_, step)) = state.best.filter(|_| recipe.train.keep_best) {
        // A kill between a checkpoint and the note that it is the best leaves an older note.
        run.mark_best_if_there(step)?;
    }
    if checkpoint.is_some() {
        // Nor had a run that was killed just after a checkpoint removed the ones before.
        run.prune(recipe.train.keep_last, recipe.train.keep_best)?;
    }
    let (metrics, rows) = match start {
        0 => (Metrics::create(&run.metrics())?, vec![]),
        step => Metrics::resume(&run.metrics(), step)?,
    };
    let resolved = recipe.resolved()?;
    run.write(&run.recipe(), &resolved)?;
    let events = EventWriter::create(&run.tensorboard(), (start > 0).then_some(start))
        .map_err(|source| TrainError::Write { path: run.tensorboard(), source })?;
    let mut trainer = Trainer {
        recipe,
        run,
        optimizer,
        state,
        metrics,
        rows,
        events,
        progress,
        resolved,
        saved: start,
        began: Instant::now(),
        loss: f64::NAN,
        shown: [None; 2],
    };
    trainer.run(setup)
}

struct Trainer<'a> {
    recipe: &'a Recipe,
    run: RunDir,
    optimizer: Optimizer,
    state: State,
    metrics: Metrics,
    rows: Vec<Row>,
    events: EventWriter,
    progress: Progress,
    resolved: String,
    /// Step of the newest checkpoint.
    saved: u64,
    began: Instant,
    loss: f64,
    /// Reward and divergence of the newest roll-out, to be shown.
    shown: [Option<f64>; 2],
}

impl Trainer<'_> {
    fn run(&mut self, mut setup: Setup) -> Result<Summary, TrainError> {
        let recipe = self.recipe;
        let interrupt = Interrupt::listen().map_err(|source| TrainError::Write { path: "signals".into(), source })?;
        setup.train.restore(self.state.batches)?;
        let schedule = Schedule::new(&recipe.schedule, recipe.optim.lr);
        let per_epoch = match &setup.rollouts {
            Some(rollouts) => rollouts.updates_per_epoch(),
            None => setup.train.batches_per_epoch().div_ceil(recipe.train.accumulate as u64),
        };
        if setup.rollouts.is_some() && self.state.step == 0 && recipe.train.sample.every > 0 {
            // What the model wrote before, to be held against what it writes then.
            self.sample(&mut setup)?;
        }
        let before = self.state.seconds;
        // Where a run was killed after its last checkpoint and before its end, that end is all there is to do.
        let mut stopped = self.stale().then_some(Stopped::Early);
        loop {
            let (total, left) = self.total(per_epoch);
            if self.state.step >= total || stopped.is_some() {
                break;
            }
            let lr = schedule.lr(self.state.step, total);
            let result = match self.step(&mut setup, lr, &interrupt) {
                Ok(Some(result)) => result,
                Ok(None) => {
                    stopped = Some(Stopped::Interrupted);
                    self.keep(&setup)?;
                    break;
                }
                Err(error) => return Err(self.rescue(&setup, error)?),
            };
            self.state.seconds = before + self.began.elapsed().as_secs_f64();
            self.state.since.add(&result);
            let step = self.state.step;
            let [reward, kl] = self.shown;
            self.progress.tick(Tick { step, total, loss: result.loss, lr, tokens: result.tokens, left, reward, kl });
            let due = |every: u64| every > 0 && step.is_multiple_of(every);
            let last = step >= total;
            if due(recipe.train.log_every) || last {
                self.log(&result, lr)?;
            }
            if (due(recipe.train.eval_every) || last) && setup.validation.is_some() && self.evaluate(&mut setup)? {
                stopped = Some(Stopped::Early);
            }
            if due(recipe.train.sample.every) {
                self.sample(&mut setup)?;
            }
            if interrupt.requested() {
                stopped = Some(Stopped::Interrupted);
            }
            if due(recipe.train.save_every) || last || stopped.is_some() {
                self.keep(&setup)?;
            }
        }
        let signal = interrupt.signal().filter(|_| stopped == Some(Stopped::Interrupted));
        self.finish(&mut setup, stopped, signal)
    }

    /// Steps in all, as far as known, and the time left of a time budget.
    fn total(&self, per_epoch: u64) -> (u64, Option<Duration>) {
        match self.recipe.train.length() {
            Length::Steps(steps) => (steps, None),
            Length::Epochs(epochs) => (((epochs * per_epoch as f64).ceil() as u64).max(1), None),
            Length::Minutes(minutes) => {
                let budget = minutes * 60.;
                let left = budget - self.state.seconds;
                let pace = self.state.seconds / self.state.step.max(1) as f64;
                let more = if left <= 0. { 0 } else { ((left / pace.max(1e-6)) as u64).clamp(1, 1 << 40) };
                (self.state.step + more, Some(Duration::from_secs_f64(left.max(0.))))
            }
        }
    }

    fn step(&mut self, setup: &mut Setup, lr: f64, interrupt: &Interrupt) -> Result<Option<StepResult>, TrainError> {
        let Some(Turn { batches, means }) = self.turn(setup, interrupt)? else { return Ok(None) };
        let told = means.values();
        if let Some(reward) = told.get("reward") {
            self.shown = [Some(*reward), told.get("objective/kl").copied()];
        }
        let stepper = Stepper {
            model: &setup.model,
            objective: &self.recipe.objective,
            clip: self.recipe.optim.clip,
            rng: Rng::new(self.recipe.seed),
            checkpointing: self.recipe.train.activation_checkpointing,
            beside: setup.beside(),
        };
        let mut result = stepper.run(&mut self.optimizer, &batches, self.state.step + 1, lr)?;
        result.means.merge(&means);
        self.state.step += 1;
        self.state.tokens += result.tokens;
        self.state.batches = setup.train.state();
        self.loss = result.loss;
        Ok(Some(result))
    }

    fn log(&mut self, result: &StepResult, lr: f64) -> Result<(), TrainError> {
        let since = std::mem::take(&mut self.state.since);
        let row = Row {
            loss: Some(since.loss / since.steps.max(1) as f64),
            lr: Some(lr),
            grad_norm: Some(result.grad_norm),
            tokens_per_second: Some(since.tokens as f64 / since.seconds.max(1e-9)),
            peak_rss_mb: peak_rss_mb(),
            scores: since.means.values(),
            ..self.row()
        };
        self.push(row)
    }

    fn row(&self) -> Row {
        Row { step: self.state.step, tokens: self.state.tokens, time: self.state.seconds, ..Row::default() }
    }

    fn push(&mut self, row: Row) -> Result<(), TrainError> {
        self.metrics.push(&row)?;
        let named = [
            ("train/loss", row.loss),
            ("train/learning_rate", row.lr),
            ("train/grad_norm", row.grad_norm),
            ("train/tokens_per_second", row.tokens_per_second),
            ("eval/loss", row.eval_loss),
            ("eval/perplexity", row.perplexity),
        ];
        let under = |group: &'static str, scores: &Scores| -> Vec<(String, f64)> {
            scores.iter().map(|(name, score)| (format!("{group}/{name}"), *score)).collect()
        };
        let scores = [under("train", &row.scores), under("eval", &row.eval_scores)].concat();
        let values = named.iter().filter_map(|&(name, value)| Some((name, value?)));
        let values: Vec<(&str, f64)> =
            values.chain(scores.iter().map(|(name, score)| (name.as_str(), *score))).collect();
        self.events
            .scalars(row.step, &values)
            .map_err(|source| TrainError::Write { path: self.run.tensorboard(), source })?;
        self.rows.push(row);
        Ok(())
    }

    /// Measures the validation data; true if its loss has not fallen for too long.
    fn evaluate(&mut self, setup: &mut Setup) -> Result<bool, TrainError> {
        let Some(loss) = self.measure(setup, "")? else { return Ok(false) };
        if self.state.best.is_none_or(|(best, _)| loss < best) {
            self.state.best = Some((loss, self.state.step));
            self.state.stale_evaluations = 0;
            if self.recipe.train.keep_best {
                self.save(setup)?;
                self.run.mark_best(self.state.step)?;
                // The best one so far has just lost its claim to be kept.
                self.run.prune(self.recipe.train.keep_last, true)?;
            }
        } else {
            self.state.stale_evaluations += 1;
        }
        Ok(self.stale())
    }

    /// Measures the validation data, tells, and logs; returns what is to be low: the loss, or of roll-outs the reward
    /// turned round.
    fn measure(&mut self, setup: &mut Setup, what: &str) -> Result<Option<f64>, TrainError> {
        let Some(Evaluation { loss, reward, scores: eval_scores, reliability }) = evaluate(self.recipe, setup)? else {
            return Ok(None);
        };
        let mut text = format!("step {}{what}:", self.state.step);
        let mut perplexity = None;
        if let Some(loss) = loss {
            if !loss.is_finite() {
                return Err(self.diverged(format!("the validation loss is {loss}")));
            }
            // Writing to a `String` cannot fail, here and below.
            let _ = write!(text, " validation loss {loss:.4},");
            perplexity = self.recipe.objective.has_perplexity().then(|| loss.exp());
        }
        if let Some(perplexity) = perplexity {
            let _ = write!(text, " perplexity {perplexity:.2},");
        }
        for (name, score) in &eval_scores {
            let _ = write!(text, " {} {score:.4},", name.replace('_', " "));
        }
        self.progress.skip_time();
        self.progress.note(text.trim_end_matches([',', ':']));
        let row = Row { eval_loss: loss, perplexity, eval_scores, reliability, ..self.row() };
        // A run that was killed at its very end has told this already.
        let told =
            |last: &Row| last.step == row.step && (last.eval_loss, &last.eval_scores) == (loss, &row.eval_scores);
        if what.is_empty() || !self.rows.last().is_some_and(told) {
            self.push(row)?;
        }
        Ok(loss.or(reward.map(|reward| -reward)))
    }

    /// Puts the mean of the newest checkpoints into the model, if the recipe asks for it.
    fn average(&mut self, setup: &mut Setup) -> Result<(), TrainError> {
        let wanted = self.recipe.train.average_last;
        if wanted < 2 {
            return Ok(());
        }
        let checkpoints = self.run.newest(wanted)?;
        let steps: Vec<String> = checkpoints.iter().map(|checkpoint| checkpoint.step.to_string()).collect();
        let few = if checkpoints.len() < wanted { " (there are no more)" } else { "" };
        self.progress.note(&format!("the model is the mean of the checkpoints at steps {}{few}", steps.join(", ")));
        average(&setup.model, setup.adapter.as_deref(), &checkpoints)?;
        if let Some(allocator) = &setup.allocator {
            allocator.mask()?;
        }
        if let Some(thresholds) = &setup.thresholds {
            thresholds.average(checkpoints.iter().map(|checkpoint| checkpoint.path.as_path()))?;
        }
        self.measure(setup, ", mean of checkpoints")?;
        Ok(())
    }

    /// Whether the validation loss has not fallen for too long.
    fn stale(&self) -> bool {
        self.recipe.train.early_stop_patience.is_some_and(|patience| self.state.stale_evaluations >= patience)
    }

    fn diverged(&self, what: String) -> TrainError {
        let lr = self.rows.iter().rev().find_map(|row| row.lr).unwrap_or(self.recipe.optim.lr);
        TrainError::Diverged { what, step: self.state.step, lr }
    }

    fn sample(&mut self, setup: &mut Setup) -> Result<(), TrainError> {
        for text in crate::sample::samples(self.recipe, setup)? {
            self.progress.note(&format!("step {}: {}{}", self.state.step, text.prompt, text.text));
            self.state.samples.push(SampleText { step: self.state.step, ..text });
        }
        self.progress.skip_time();
        Ok(())
    }

    /// Saves a checkpoint, unless the newest is of this step.
    fn keep(&mut self, setup: &Setup) -> Result<(), TrainError> {
        if self.saved == self.state.step { Ok(()) } else { self.save(setup) }
    }

    fn save(&mut self, setup: &Setup) -> Result<(), TrainError> {
        // What cannot go on must not replace what can.
        if let Some(param) = setup.params().iter().find(|param| param.trainable() && !finite(param)) {
            return Err(self.diverged(format!("{} holds values that are not finite", param.path())));
        }
        self.metrics.sync()?;
        state::write(&self.run, &self.state, setup, &self.optimizer, &self.lineage(setup))?;
        self.saved = self.state.step;
        self.run.prune(self.recipe.train.keep_last, self.recipe.train.keep_best)?;
        self.write_report(setup)?;
        self.progress.skip_time();
        Ok(())
    }

    fn finish(
        &mut self,
        setup: &mut Setup,
        stopped: Option<Stopped>,
        signal: Option<i32>,
    ) -> Result<Summary, TrainError> {
        if stopped != Some(Stopped::Interrupted) {
            self.average(setup)?;
        }
        let shown = self.state.samples.last().is_some_and(|sample| sample.step == self.state.step);
        if self.recipe.train.sample.every > 0 && !shown && stopped != Some(Stopped::Interrupted) {
            self.sample(setup)?;
        }
        self.write_report(setup)?;
        self.events.flush().map_err(|source| TrainError::Write { path: self.run.tensorboard(), source })?;
        let mut model = None;
        if stopped != Some(Stopped::Interrupted) {
            let folder = AtomicDir::create(self.run.model())?;
            state::write_model(folder.path(), setup, DType::F32, &self.lineage(setup))?;
            folder.commit()?;
            model = Some(self.run.model());
        }
        self.progress.finish();
        let measured = self.rows.iter().rev().find(|row| row.is_evaluation());
        Ok(Summary {
            steps: self.state.step,
            tokens: self.state.tokens,
            seconds: self.state.seconds,
            parameters: setup.model.count(),
            loss: if self.loss.is_nan() {
                self.rows.iter().rev().find_map(|row| row.loss).unwrap_or(f64::NAN)
            } else {
                self.loss
            },
            eval_loss: measured.and_then(|row| row.eval_loss),
            perplexity: measured.and_then(|row| row.perplexity),
            eval_scores: measured.map(|row| row.eval_scores.clone()).unwrap_or_default(),
            stopped,
            signal,
            model,
            report: self.run.report(),
        })
    }
}

impl Since {
    fn add(&mut self, result: &StepResult) {
        self.loss += result.loss;
        self.steps += 1;
        self.tokens += result.tokens;
        self.means.merge(&result.means);
        self.seconds += result.time.as_secs_f64();
    }
}

/// Whether every weight is a number; a device's are not fetched for this.
fn finite(param: &phyla_ops::Param) -> bool {
    let phyla_ops::Weight::Dense(data) = param.weight() else { return true };
    // No early exit, so that the loop runs at the speed of memory.
    let all = |values: &[f32]| values.iter().fold(true, |all, x| all & x.is_finite());
    !data.device().is_cpu() || phyla_ops::cpu::view::<f32>(&data).map_or(true, |values| all(&values))
}
