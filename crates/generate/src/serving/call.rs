//! A request on its way: whom to tell, what has come of it so far, and how long it took.

use std::sync::atomic::Ordering;
use std::time::Instant;

use super::adapters::are_all;
use super::request::{Answer, Job, RequestTimings, Sink, Update};
use crate::engine::run::Picker;
use crate::outputs::Recorder;
use crate::processor::{Processor, chain};
use crate::sequence::Active;
use crate::watch::{Moment, Watcher};
use crate::{FinishReason, Generator, Result, Sequence};

/// A request.
pub(super) struct Call<'a> {
    pub job: Job,
    chain: Vec<Box<dyn Processor>>,
    sink: Sink<'a>,
    /// Its sequences, once they have ended.
    done: Vec<Option<Sequence>>,
    /// When it was first given blocks.
    started: Option<Instant>,
    /// When its first id came.
    first: Option<Instant>,
    timings: RequestTimings,
    watch: Watcher<'a>,
    /// Gathers the scores that were asked for; a generator does that by itself.
    recorder: Option<Recorder>,
}

impl<'a> Call<'a> {
    pub fn new(job: Job, sink: Sink<'a>, watch: Watcher<'a>) -> Self {
        let (chain, done) = (chain(&job.settings), (0..job.settings.returns).map(|_| None).collect());
        let (outputs, timings) = (job.settings.outputs, RequestTimings::default());
        let recorder = (job.alone.is_none() && outputs.any()).then(|| Recorder::new(outputs, vec![]));
        Self { job, chain, sink, done, started: None, first: None, timings, watch, recorder }
    }

    /// Whether nobody wants the answer any more.
    pub fn is_cancelled(&self) -> bool {
        self.job.cancel.load(Ordering::Relaxed)
    }

    /// Whether the time that it was given is over.
    pub fn is_late(&self) -> bool {
        let limit = self.job.settings.max_time.zip(self.started);
        limit.is_some_and(|(limit, started)| started.elapsed() >= limit)
    }

    /// It is given blocks, `shared` positions of which need not be read.
    pub fn start(&mut self, shared: usize) {
        self.started.get_or_insert_with(Instant::now);
        self.timings.shared += shared;
    }

    /// Some ids of it were read.
    pub fn has_read(&mut self, ids: usize) {
        self.timings.read += ids;
    }

    /// One of its sequences had to give its blocks back.
    pub fn preempted(&mut self) {
        self.timings.preemptions += 1;
    }

    /// Picks the next id of a sequence from its logits.
    pub fn extend(&mut self, active: &mut Active, logits: &[f32], row: &mut Vec<f32>) -> Result<()> {
        let Self { job, chain, sink, watch, recorder, .. } = self;
        let both = |moment: &Moment| {
            recorder.iter().for_each(|recorder| recorder.hear(moment));
            watch.tell(*moment);
        };
        let watch = if recorder.is_some() { Watcher(Some(&both)) } else { *watch };
        let picker = Picker { settings: &job.settings, chain, watch };
        picker.extend(active, logits, row, &mut |event| sink(Update::Event(event)))?;
        self.first.get_or_insert_with(Instant::now);
        Ok(())
    }

    /// Ends a sequence before its time.
    pub fn end(&mut self, active: &mut Active, reason: FinishReason) -> Result<()> {
        active.end(reason, &mut |event| (self.sink)(Update::Event(event)))
    }

    /// Takes a sequence that has ended; whether it was the last.
    pub fn take(&mut self, number: usize, active: Active) -> bool {
        self.done[number] = Some(active.into_sequence());
        self.done.iter().all(Option::is_some)
    }

    /// Has all of it done by a generator, which nothing runs beside.
    pub fn run_alone(&mut self, generator: &Generator) -> Result<()> {
        self.start(0);
        let Some(request) = self.job.alone.take() else { return Ok(()) };
        let Self { job, sink, first, .. } = self;
        let mut tell = |event: crate::Event| {
            first.get_or_insert_with(Instant::now);
            sink(Update::Event(event));
        };
        let mut generator = (*generator).cancelled_by(&job.cancel);
        if !are_all(&job.adapters, generator.adapters()) {
            generator = generator.forgetful();
        }
        let made = generator.generate(&[request.prompt], &request.config, request.seed, &mut tell)?;
        self.timings.read += made.timings.read;
        self.done = made.sequences.into_iter().map(Some).collect();
        Ok(())
    }

    /// Ids that it has been answered.
    pub fn written(&self) -> usize {
        self.done.iter().flatten().map(|sequence| sequence.ids.len()).sum()
    }

    /// Tells how it ended.
    pub fn finish(mut self, ended: Result<()>) {
        let since = |moment: Option<Instant>| {
            moment.map_or_else(|| self.job.submitted.elapsed(), |moment| moment - self.job.submitted)
        };
        let timings = RequestTimings {
            queued: since(self.started),
            first_token: since(self.first),
            total: self.job.submitted.elapsed(),
            ..self.timings
        };
        let mut sequences: Vec<Sequence> = std::mem::take(&mut self.done).into_iter().flatten().collect();
        let given = self.recorder.take().map_or(Ok(()), |recorder| recorder.give(&mut sequences));
        (self.sink)(Update::Done(ended.and(given).map(|()| Answer { sequences, timings })));
    }
}
