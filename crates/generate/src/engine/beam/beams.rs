//! The beams of one prompt: which continuations go on, which have finished, and when no better can come.

use phyla_kernels::rng::Rng;
use phyla_nn::Takeover;

use super::super::Prompt;
use super::Stopped;
use super::best::{Best, Candidate};
use crate::config::EarlyStopping;
use crate::processor::{History, Processor};
use crate::watch::{At, BeamCandidate, Fate, Moment, Stage, Watcher};
use crate::{Result, Settings, sampler};

/// A prompt's search.
pub(super) struct Beams<'a> {
    pub prompt: &'a Prompt,
    settings: &'a Settings,
    /// Running ones, best first; at first the prompt alone.
    running: Vec<Beam>,
    /// The running ones before, while the next are chosen; empty otherwise.
    before: Vec<Beam>,
    /// Memory of earlier ones.
    spare: Vec<Beam>,
    /// Finished ones, best first, as many as there may be beams.
    pub finished: Vec<Finished>,
    /// Whether the search has ended.
    pub done: bool,
    best: Best,
    candidates: Vec<Candidate>,
    /// Each step's draws.
    stream: Rng,
    /// New ids of each running beam.
    length: usize,
    watch: Watcher<'a>,
}

/// A running beam.
struct Beam {
    history: History,
    /// Sum of log-probabilities.
    score: f32,
    /// Its row in the prompt's block.
    row: usize,
}

/// A finished beam.
pub(super) struct Finished {
    /// The new ids.
    pub ids: Vec<u32>,
    /// Log-probability over length to a power.
    pub score: f32,
}

impl<'a> Beams<'a> {
    /// The prompt alone, in row 0.
    pub fn new(prompt: &'a Prompt, settings: &'a Settings, watch: Watcher<'a>) -> Self {
        let history = prompt.history().drawing(&prompt.stream);
        // As many as can end, and as many again to go on with.
        let best = Best::new(settings.beams * (1 + settings.eos.len().max(1)));
        Self {
            prompt,
            settings,
            running: vec![Beam { history, score: 0., row: 0 }],
            before: vec![],
            spare: vec![],
            finished: vec![],
            done: false,
            best,
            candidates: vec![],
            stream: prompt.stream.split("beams"),
            length: 0,
            watch,
        }
    }

    /// Where the beam that runs in this row is to go on, if one does.
    pub fn at(&self, row: usize) -> Option<At> {
        let running = self.running.iter().filter(|_| !self.done).position(|beam| beam.row == row);
        running.map(|rank| At { prompt: self.prompt.index, branch: rank, step: self.length })
    }

    /// The newest id of a row; any where none runs.
    pub fn last(&self, row: usize) -> u32 {
        self.running.iter().find(|beam| beam.row == row).and_then(|beam| beam.history.last()).unwrap_or(0)
    }

    /// Takes the log-probabilities of a row's next id.
    pub fn offer(&mut self, row: usize, scores: &mut [f32], chain: &[Box<dyn Processor>]) {
        let Some(at) = self.at(row) else { return };
        let (rank, beam) = (at.branch, &self.running[at.branch]);
        self.watch.scores(at, Stage::LogProbabilities, scores);
        self.watch.process(at, chain, scores, &beam.history);
        match self.settings.sampling {
            None => self.best.offer(rank, beam.score, scores),
            Some(_) => self.best.draw(rank, beam.score, scores, &self.stream.split(self.length as u64)),
        }
    }

    /// Goes on with the best of what was offered. `first` is the block's first row, for `moves`.
    pub fn choose(&mut self, first: usize, stopped: &Stopped, moves: &mut Vec<Takeover>) -> Result<()> {
        self.best.take(&mut self.candidates);
        if self.candidates.is_empty() && self.finished.is_empty() {
            return Err(sampler::nothing_left());
        }
        self.length += 1;
        std::mem::swap(&mut self.running, &mut self.before);
        let mut candidates = std::mem::take(&mut self.candidates);
        let mut told = self.told(&candidates);
        let (mut rank, mut ended) = (0, Ok(()));
        candidates.retain(|candidate| {
            // Those beyond the number of beams are there to go on with; were they to end they would not be good enough.
            let ends = self.ends(candidate, stopped).unwrap_or_else(|error| {
                ended = Err(error);
                true
            });
            if ends && rank < self.settings.beams {
                let ids = [self.before[candidate.beam].history.new_ids(), &[candidate.id]].concat();
                let score = self.keep(ids, candidate.score);
                if let Some(told) = told.get_mut(rank) {
                    told.fate = Fate::Finished(score);
                }
            }
            rank += 1;
            !ends
        });
        ended?;
        // Draws come in the order in which they were drawn.
        candidates.sort_by(|a, b| b.score.total_cmp(&a.score));
        candidates.iter().take(self.settings.beams).for_each(|candidate| self.go_on(candidate));
        self.tell(told, &candidates);
        self.settle(&candidates, first, moves);
        self.candidates = candidates;
        self.spare.append(&mut self.before);
        self.done = self.running.is_empty() || !self.can_improve();
        Ok(())
    }

    /// What is to be told of these, if anyone listens; what becomes of them is still open.
    fn told(&self, candidates: &[Candidate]) -> Vec<BeamCandidate> {
        let told = |c: &Candidate| BeamCandidate { parent: c.beam, id: c.id, score: c.score, fate: Fate::Dropped };
        candidates.iter().filter(|_| self.watch.is_there()).map(told).collect()
    }

    /// Tells what becomes of all candidates; the first of `others`, which have not ended, run.
    fn tell(&self, mut told: Vec<BeamCandidate>, others: &[Candidate]) {
        for (rank, runs) in others.iter().take(self.settings.beams).enumerate() {
            let same = told.iter_mut().find(|told| (told.parent, told.id) == (runs.beam, runs.id));
            if let Some(told) = same {
                told.fate = Fate::Runs(rank);
            }
        }
        let (prompt, step) = (self.prompt.index, self.length - 1);
        self.watch.tell(Moment::Beams { prompt, step, candidates: &told });
    }

    fn ends(&self, candidate: &Candidate, stopped: &Stopped) -> Result<bool> {
        if self.settings.eos.contains(&candidate.id) || self.length >= self.prompt.limit {
            return Ok(true);
        }
        let history = &self.before[candidate.beam].history;
        stopped.by(history.prompt(), history.new_ids(), candidate.id)
    }

    /// Puts a finished beam among the others; returns its score.
    fn keep(&mut self, ids: Vec<u32>, score: f32) -> f32 {
        let score = score / self.divisor(ids.len());
        let at = self.finished.partition_point(|other| other.score >= score);
        self.finished.insert(at, Finished { ids, score });
        self.finished.truncate(self.settings.beams);
        score
    }

    /// `length ^ length_penalty`.
    fn divisor(&self, length: usize) -> f32 {
        (length as f64).powf(f64::from(self.settings.length_penalty)) as f32
    }

    /// Adds a running beam, whose row is still to be settled.
    fn go_on(&mut self, candidate: &Candidate) {
        let from = &self.before[candidate.beam].history;
        let mut beam = match self.spare.pop() {
            Some(mut beam) => {
                beam.history.copy_from(from);
                beam
            }
            None => Beam { history: from.clone(), score: 0., row: 0 },
        };
        beam.history.push(candidate.id);
        beam.score = candidate.score;
        self.running.push(beam);
    }

    /// Gives every running beam a row: the best continuation of a beam its own, the others those that are given up.
    fn settle(&mut self, candidates: &[Candidate], first: usize, moves: &mut Vec<Takeover>) {
        let mut free = vec![true; self.settings.beams];
        let mut others = vec![];
        for (rank, candidate) in candidates.iter().take(self.running.len()).enumerate() {
            let row = self.before[candidate.beam].row;
            if std::mem::take(&mut free[row]) {
                self.running[rank].row = row;
            } else {
                others.push((rank, candidate.beam));
            }
        }
        let rows = (0..free.len()).filter(|&row| free[row]);
        for ((rank, from), row) in others.into_iter().zip(rows) {
            let from = &self.before[from];
            let held = self.before.iter().find(|beam| beam.row == row);
            let shared = held.map_or(0, |held| common(held.history.ids(), from.history.ids()));
            moves.push(Takeover { from: first + from.row, to: first + row, shared });
            self.running[rank].row = row;
        }
    }

    /// Whether a running beam may get among the finished ones.
    fn can_improve(&self) -> bool {
        let worst = match self.finished.last() {
            Some(worst) if self.finished.len() == self.settings.beams => worst.score,
            _ => return true,
        };
        let length = match self.settings.early_stopping {
            EarlyStopping::Enough => return false,
            // The longer the better: as long as it may become.
            EarlyStopping::Never if self.settings.length_penalty > 0. => self.prompt.limit,
            EarlyStopping::Never | EarlyStopping::Likely => self.length,
        };
        self.running.first().is_some_and(|beam| beam.score / self.divisor(length) > worst)
    }

    /// Ends early: running beams count as finished, behind those that are.
    pub fn stop(&mut self) {
        let running = self.running.drain(..).filter(|beam| !beam.history.new_ids().is_empty());
        let running: Vec<(Vec<u32>, f32)> = running.map(|b| (b.history.new_ids().to_vec(), b.score)).collect();
        for (ids, score) in running {
            let score = score / self.divisor(ids.len());
            self.finished.push(Finished { ids, score });
        }
        self.done = true;
    }
}

/// How many ids two histories begin with alike.
fn common(a: &[u32], b: &[u32]) -> usize {
    a.iter().zip(b).take_while(|(a, b)| a == b).count()
}
