//! The beams of one prompt: which continuations go on, and in which rows.

use phyla_kernels::rng::Rng;
use phyla_nn::Takeover;

use super::super::Prompt;
use super::Stopped;
use super::best::{Best, Candidate};
use super::finished::{Finished, Hypotheses};
use super::words::{Progress, in_turns};
use crate::processor::{History, Processor};
use crate::watch::{At, BeamCandidate, Fate, Moment, Stage, Watcher};
use crate::{Result, Settings, sampler};

/// A prompt's search.
pub(super) struct Beams<'a> {
    pub prompt: &'a Prompt,
    settings: &'a Settings,
    /// Running ones, group by group, best first unless words are forced; at first the prompt alone, for each group.
    running: Vec<Beam>,
    /// The running ones before, while the next are chosen; empty otherwise.
    before: Vec<Beam>,
    /// Memory of earlier ones.
    spare: Vec<Beam>,
    /// Finished ones.
    pub finished: Hypotheses<'a>,
    /// Whether the search has ended.
    pub done: bool,
    best: Best,
    /// Log-probabilities of each row, kept until the groups before its own have chosen.
    rows: Vec<Vec<f32>>,
    /// Continuations by ids that bring forced words further, and the banks that they come to.
    advances: Vec<(Candidate, usize)>,
    /// Each step's draws.
    stream: Rng,
    /// New ids of each running beam.
    length: usize,
    watch: Watcher<'a>,
    /// What the watcher is told of a step.
    told: Vec<BeamCandidate>,
}

/// A running beam.
struct Beam {
    history: History,
    /// For each new id the rank of the beam that it continues.
    origins: Vec<u32>,
    /// Sum of log-probabilities.
    score: f32,
    /// Its row in the prompt's block.
    row: usize,
    group: usize,
    progress: Progress,
}

impl<'a> Beams<'a> {
    /// The prompt alone, in row 0.
    pub fn new(prompt: &'a Prompt, settings: &'a Settings, watch: Watcher<'a>) -> Self {
        let progress = Progress::after(&prompt.ids, &settings.forced_words);
        let first = |group| {
            let (history, progress) = (prompt.history().drawing(&prompt.stream), progress.clone());
            Beam { history, origins: vec![], score: 0., row: 0, group, progress }
        };
        // As many as can end, and as many again to go on with.
        let best = Best::new(settings.beams / settings.groups * (1 + settings.eos.len().max(1)));
        Self {
            prompt,
            settings,
            running: (0..settings.groups).map(first).collect(),
            before: vec![],
            spare: vec![],
            finished: Hypotheses::new(prompt, settings),
            done: false,
            best,
            rows: vec![],
            advances: vec![],
            stream: prompt.stream.split("beams"),
            length: 0,
            watch,
            told: vec![],
        }
    }

    /// Where the beam that runs in this row is to go on, if one does.
    pub fn at(&self, row: usize) -> Option<At> {
        let running = self.running.iter().filter(|_| !self.done).position(|beam| beam.row == row);
        running.map(|rank| self.of(rank))
    }

    /// Where a beam is to go on.
    fn of(&self, rank: usize) -> At {
        At { prompt: self.prompt.index, branch: rank, step: self.length }
    }

    /// The newest id of a row; any where none runs.
    pub fn last(&self, row: usize) -> u32 {
        self.running.iter().find(|beam| beam.row == row).and_then(|beam| beam.history.last()).unwrap_or(0)
    }

    /// Takes the log-probabilities of a row's next id.
    pub fn offer(&mut self, row: usize, scores: &mut [f32], chain: &[Box<dyn Processor>]) {
        let Some(at) = self.at(row) else { return };
        if self.settings.groups > 1 {
            self.rows.resize_with(self.settings.beams, Vec::new);
            self.rows[row].clear();
            self.rows[row].extend_from_slice(scores);
            return;
        }
        let (rank, beam) = (at.branch, &self.running[at.branch]);
        self.watch.scores(at, Stage::LogProbabilities, scores);
        self.watch.process(at, chain, scores, &beam.history);
        match self.settings.sampling {
            None => self.best.offer(rank, beam.score, scores),
            Some(_) => self.best.draw(rank, beam.score, scores, &self.stream.split(self.length as u64)),
        }
        if !beam.progress.whole() {
            let advance = |(id, bank): (u32, usize)| (Candidate::new(beam.score + scores[id as usize], rank, id), bank);
            self.advances.extend(beam.progress.advances(&self.settings.forced_words).into_iter().map(advance));
        }
    }

    /// Goes on with the best of what was offered. `first` is the block's first row, for `moves`.
    pub fn choose(
        &mut self,
        first: usize,
        chain: &[Box<dyn Processor>],
        stopped: &Stopped,
        moves: &mut Vec<Takeover>,
    ) -> Result<()> {
        self.length += 1;
        std::mem::swap(&mut self.running, &mut self.before);
        self.told.clear();
        let mut taken = vec![];
        for group in 0..self.settings.groups {
            if self.settings.groups > 1 {
                self.offer_group(group, chain);
            }
            self.choose_from(group, stopped, &mut taken)?;
            if self.done {
                break;
            }
        }
        if self.running.is_empty() && self.finished.best.is_empty() {
            return Err(sampler::nothing_left());
        }
        self.settle(&taken, first, moves);
        self.spare.append(&mut self.before);
        if self.finished.older() && self.length >= self.prompt.limit && !self.done {
            self.finish();
        }
        self.done |= self.running.is_empty();
        let (prompt, step) = (self.prompt.index, self.length - 1);
        self.watch.tell(Moment::Beams { prompt, step, candidates: &self.told });
        Ok(())
    }

    /// Offers what the rows of a group hold: less likely the more beams of the groups before it have just got it.
    fn offer_group(&mut self, group: usize, chain: &[Box<dyn Processor>]) {
        let mut scores = vec![];
        let mut chosen: Vec<u32> = self.running.iter().filter_map(|beam| beam.history.last()).collect();
        chosen.sort_unstable();
        for (rank, beam) in self.before.iter().enumerate().filter(|(_, beam)| beam.group == group) {
            let at = At { step: self.length - 1, ..self.of(rank) };
            scores.clone_from(&self.rows[beam.row]);
            self.watch.scores(at, Stage::LogProbabilities, &scores);
            for same in chosen.chunk_by(u32::eq) {
                scores[same[0] as usize] -= self.settings.diversity * same.len() as f32;
            }
            self.watch.scores(at, Stage::Processor("diversity_penalty"), &scores);
            self.watch.process(at, chain, &mut scores, &beam.history);
            self.best.offer(rank, beam.score, &scores);
        }
    }

    /// Chooses among what was offered for a group.
    fn choose_from(&mut self, group: usize, stopped: &Stopped, taken: &mut Vec<Candidate>) -> Result<()> {
        let mut candidates = vec![];
        self.best.take(&mut candidates);
        let most = candidates.first().map_or(f32::NEG_INFINITY, |best| best.score);
        let width = self.settings.beams / self.settings.groups;
        let mut going = vec![];
        for (rank, candidate) in candidates.into_iter().enumerate() {
            let end = self.ends(&candidate, stopped)?;
            // Those beyond the number of beams are there to go on with; were they to end they would not be good enough.
            let kept = end.filter(|_| rank < width).and_then(|end| self.keep(&candidate, end));
            self.note(&candidate, kept);
            if end.is_none() {
                going.push(candidate);
            }
        }
        // Draws come in the order in which they were drawn.
        going.sort_by(|a, b| b.score.total_cmp(&a.score));
        going.truncate(width);
        if !self.advances.is_empty() {
            going = self.advanced(going, stopped)?;
            going.truncate(width);
        }
        going.iter().for_each(|candidate| self.go_on(candidate, group));
        taken.append(&mut going);
        self.done = !if self.finished.older() {
            self.finished.can_improve(most, self.length)
        } else {
            self.running.first().is_some_and(|best| self.finished.can_improve(best.score, self.length))
        };
        Ok(())
    }

    /// What goes on, and what brings forced words further, in turns.
    fn advanced(&mut self, going: Vec<Candidate>, stopped: &Stopped) -> Result<Vec<Candidate>> {
        let words = &self.settings.forced_words;
        // Offers come row by row.
        let mut advances = std::mem::take(&mut self.advances);
        advances.sort_by_key(|(candidate, _)| candidate.beam);
        let mut all: Vec<(Candidate, usize)> = vec![];
        for candidate in going {
            let mut progress = self.before[candidate.beam].progress.clone();
            progress.add(candidate.id, words);
            all.push((candidate, progress.bank(words)));
        }
        let plain = all.len();
        for (candidate, bank) in advances.drain(..) {
            if all.iter().any(|(other, _)| (other.beam, other.id) == (candidate.beam, candidate.id)) {
                continue;
            }
            let end = self.ends(&candidate, stopped)?;
            let kept = end.and_then(|end| self.keep(&candidate, end));
            self.note(&candidate, kept);
            if end.is_none() {
                all.push((candidate, bank));
            }
        }
        self.advances = advances;
        Ok(if all.len() > plain { in_turns(all) } else { all.into_iter().map(|(candidate, _)| candidate).collect() })
    }

    /// Whether a continuation is the end of its beam, and in which way.
    fn ends(&self, candidate: &Candidate, stopped: &Stopped) -> Result<Option<End>> {
        if self.settings.eos.contains(&candidate.id) {
            return Ok(Some(End::Eos));
        }
        // Where that is a score of version 4.28.1, those that come to the limit are added behind those that end.
        if self.length >= self.prompt.limit && !self.finished.older() {
            return Ok(Some(End::Text));
        }
        let history = &self.before[candidate.beam].history;
        let stops = stopped.by(history.prompt(), history.new_ids(), candidate.id)?;
        Ok(stops.then_some(End::Text))
    }

    /// Remembers for the watcher what there is to choose from, and the score of what has ended.
    fn note(&mut self, c: &Candidate, finished: Option<f32>) {
        if self.watch.is_there() {
            let fate = finished.map_or(Fate::Dropped, Fate::Finished);
            self.told.push(BeamCandidate { parent: c.beam, id: c.id, score: c.score, fate });
        }
    }

    /// Puts a continuation that ends among the finished beams, unless words are missing; returns its score.
    fn keep(&mut self, candidate: &Candidate, end: End) -> Option<f32> {
        let from = &self.before[candidate.beam];
        let mut progress = from.progress.clone();
        if end == End::Text {
            progress.add(candidate.id, &self.settings.forced_words);
        }
        progress.whole().then(|| {
            let ids = [from.history.new_ids(), &[candidate.id]].concat();
            let origins = [&from.origins[..], &[candidate.beam as u32]].concat();
            self.finished.add(Finished { ids, origins, score: 0., met: true }, candidate.score, end == End::Eos)
        })
    }

    /// Adds a running beam, whose row is still to be settled.
    fn go_on(&mut self, candidate: &Candidate, group: usize) {
        let from = &self.before[candidate.beam];
        let mut beam = match self.spare.pop() {
            Some(mut beam) => {
                beam.history.copy_from(&from.history);
                beam.origins.clone_from(&from.origins);
                beam.progress.clone_from(&from.progress);
                beam
            }
            None => {
                let (history, origins, progress) = (from.history.clone(), from.origins.clone(), from.progress.clone());
                Beam { history, origins, score: 0., row: 0, group, progress }
            }
        };
        beam.history.push(candidate.id);
        beam.origins.push(candidate.beam as u32);
        beam.progress.add(candidate.id, &self.settings.forced_words);
        (beam.score, beam.group) = (candidate.score, group);
        let same = self.told.iter_mut().find(|told| (told.parent, told.id) == (candidate.beam, candidate.id));
        if let Some(told) = same {
            told.fate = Fate::Runs(self.running.len());
        }
        self.running.push(beam);
    }

    /// Gives every running beam a row: the best continuation of a beam its own, the others those that are given up.
    fn settle(&mut self, taken: &[Candidate], first: usize, moves: &mut Vec<Takeover>) {
        let mut free = vec![true; self.settings.beams];
        let mut others = vec![];
        for (rank, candidate) in taken.iter().enumerate() {
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

    /// Running beams have come to the limit: those with all words written finish, and the others where those are too few.
    fn finish(&mut self) {
        let running = std::mem::take(&mut self.running).into_iter().enumerate();
        let (whole, partial): (Vec<_>, Vec<_>) = running.partition(|(_, beam)| beam.progress.whole());
        let few = whole.len() < self.settings.returns;
        for (rank, beam) in whole.into_iter().chain(partial.into_iter().filter(|_| few)) {
            let sum = beam.score;
            let score = self.finished.add(beam.finished(), sum, false);
            for told in self.told.iter_mut().filter(|told| told.fate == Fate::Runs(rank)) {
                told.fate = Fate::Finished(score);
            }
        }
    }

    /// Ends early: running beams count as finished, behind those that are.
    pub fn stop(&mut self) {
        let said = |beam: &Beam| !beam.origins.is_empty() && beam.score > f32::NEG_INFINITY;
        for beam in self.running.drain(..).filter(said) {
            let score = self.finished.score(beam.score, beam.origins.len());
            self.finished.best.push(Finished { score, ..beam.finished() });
        }
        self.done = true;
    }
}

impl Beam {
    fn finished(self) -> Finished {
        let met = self.progress.whole();
        Finished { ids: self.history.new_ids().to_vec(), origins: self.origins, score: 0., met }
    }
}

/// How a beam ends: by an id that says no more than that, or by one that says something, as the last of a stop string does.
#[derive(Clone, Copy, PartialEq)]
enum End {
    Eos,
    Text,
}

/// How many ids two histories begin with alike.
fn common(a: &[u32], b: &[u32]) -> usize {
    a.iter().zip(b).take_while(|(a, b)| a == b).count()
}
