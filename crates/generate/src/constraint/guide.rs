//! A constraint in one call: which ids may follow those of a sequence, with what it takes to say so kept from step to step.

use std::cell::RefCell;
use std::collections::HashMap;
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use llguidance::Matcher;
use llguidance::toktrie::SimpleVob;

use super::Compiled;
use crate::processor::{History, Processor, rule_out};
use crate::{Error, Settings};

/// A constraint, and what it cost and met with in this call.
#[derive(Clone)]
pub(crate) struct Guide(Arc<Inner>);

struct Inner {
    name: &'static str,
    compiled: Arc<Compiled>,
    begin: Mutex<Matcher>,
    masks: AtomicU64,
    nanoseconds: AtomicU64,
    failure: Mutex<Option<String>>,
}

impl Guide {
    /// The beginning of a call.
    pub fn new(name: &'static str, compiled: Arc<Compiled>) -> Self {
        // What a call has learnt about its grammar takes memory: it ends with the call.
        let begin = compiled.begin.lock().unwrap_or_else(PoisonError::into_inner).deep_clone();
        let (masks, nanoseconds, failure) = (AtomicU64::new(0), AtomicU64::new(0), Mutex::new(None));
        Self(Arc::new(Inner { name, compiled, begin: Mutex::new(begin), masks, nanoseconds, failure }))
    }

    /// How often it was asked what may follow, and how long that took in all.
    pub fn cost(&self) -> (usize, Duration) {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        (read(&self.0.masks) as usize, Duration::from_nanos(read(&self.0.nanoseconds)))
    }

    /// Why nothing may follow, if that has been met with: said instead of `error`, which knows but that nothing is left.
    pub fn explain(&self, error: Error) -> Error {
        let failure = self.0.failure.lock().unwrap_or_else(PoisonError::into_inner).take();
        match (error, failure) {
            (Error::Logits(_), Some(failure)) => Error::Settings(failure),
            (Error::Logits(error), None) => Error::Logits(format!(
                "{error}; besides a constraint, which leaves few ids, other settings may rule out all"
            )),
            (error, _) => error,
        }
    }

    /// Whether these ids, of which the last may end the sequence, are a whole document.
    pub fn complete(&self, ids: &[u32], settings: &Settings) -> bool {
        let ids = match ids.split_first() {
            Some((&first, document)) if settings.forced_bos == Some(first) => document,
            _ => ids,
        };
        let ids = match ids.split_last() {
            Some((last, document)) if settings.eos.contains(last) => document,
            _ => ids,
        };
        let mut matcher = self.begin();
        matcher.consume_tokens(ids).is_ok() && matcher.is_accepting().unwrap_or(false)
    }

    /// What holds it in a run of sequences.
    pub fn processor(&self, settings: &Settings) -> Constrained {
        let (forced_bos, forced_eos) = (settings.forced_bos, settings.forced_eos.clone());
        let forks = settings.beams > 1 || settings.speculates;
        let window = if settings.speculates { crate::engine::MOST_GUESSES + 1 } else { 1 };
        Constrained { guide: self.clone(), forced_bos, forced_eos, forks, window, states: RefCell::default() }
    }

    fn begin(&self) -> Matcher {
        self.0.begin.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl PartialEq for Guide {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

impl fmt::Debug for Guide {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Guide")
    }
}

/// Rules out every id that may not follow.
///
/// What may follow depends on the new ids alone: they find the state that has read them or, where there is none, the nearest
/// that has read their beginning. So it does not matter how sequences, beams and guesses come and go.
pub(crate) struct Constrained {
    guide: Guide,
    /// An id that a decoder is told to begin with, before the document.
    forced_bos: Option<u32>,
    /// Ids of which one comes last, where the document may end there.
    forced_eos: Vec<u32>,
    /// Whether a state is needed after what follows it has been asked for.
    forks: bool,
    /// How many ids sequences of a run are apart, at most.
    window: usize,
    states: RefCell<HashMap<Vec<u32>, State>>,
}

/// What has been read, and what may follow.
struct State {
    matcher: Matcher,
    mask: SimpleVob,
}

impl Processor for Constrained {
    fn name(&self) -> &'static str {
        self.guide.0.name
    }

    fn apply(&self, row: &mut [f32], history: &History) {
        let start = Instant::now();
        let begun = usize::from(self.forced_bos.is_some() && history.prompt().len() == 1);
        let Some(ids) = history.new_ids().get(begun..) else { return };
        let inner = &self.guide.0;
        if let Err(failure) = self.hold(row, ids, history) {
            row.fill(f32::NEG_INFINITY);
            *inner.failure.lock().unwrap_or_else(PoisonError::into_inner) = Some(failure);
        }
        inner.masks.fetch_add(1, Ordering::Relaxed);
        inner.nanoseconds.fetch_add(start.elapsed().as_nanos() as u64, Ordering::Relaxed);
    }
}

impl Constrained {
    fn hold(&self, row: &mut [f32], ids: &[u32], history: &History) -> Result<(), String> {
        let mut states = self.states.borrow_mut();
        if !states.contains_key(ids) {
            let state = self.read(&mut states, ids)?;
            states.retain(|known, _| known.len() + self.window >= ids.len());
            states.insert(ids.to_vec(), state);
        }
        let Some(State { mask, .. }) = states.get(ids) else { return Ok(()) };
        let last = history.new_ids().len() + 1 == history.limit();
        let forced: Vec<u32> = self.forced_eos.iter().copied().filter(|&id| last && allows(mask, id)).collect();
        for (id, x) in (0..).zip(row.iter_mut()) {
            if !allows(mask, id) || !forced.is_empty() && !forced.contains(&id) {
                *x = f32::NEG_INFINITY;
            }
        }
        if ids.is_empty() {
            rule_out(row, self.guide.0.compiled.vocabulary.dropping(history.ids()));
        }
        Ok(())
    }

    /// The state that has read `ids`.
    fn read(&self, states: &mut HashMap<Vec<u32>, State>, ids: &[u32]) -> Result<State, String> {
        let nearest = ids.len().saturating_sub(self.window)..ids.len();
        let known = nearest.rev().find(|&n| states.contains_key(&ids[..n]));
        let parent = known.and_then(|n| {
            let matcher = if self.forks {
                states.get(&ids[..n]).map(|state| state.matcher.clone())
            } else {
                states.remove(&ids[..n]).map(|state| state.matcher)
            };
            Some((matcher?, &ids[n..]))
        });
        let (mut matcher, new) = parent.unwrap_or_else(|| (self.guide.begin(), ids));
        let mask = matcher.consume_tokens(new).and_then(|()| matcher.compute_mask_or_eos());
        match mask {
            Ok(mask) => Ok(State { matcher, mask }),
            Err(error) => Err(why(&error.to_string(), ids.len())),
        }
    }
}

/// Why nothing may follow so many ids.
fn why(error: &str, read: usize) -> String {
    let reason = match error.lines().next().unwrap_or_default() {
        "NoExtensionBias" => "this tokenizer has no token that goes on as the constraint wants",
        reason => reason,
    };
    format!("the constraint cannot be held behind {read} tokens: {reason}")
}

fn allows(mask: &SimpleVob, id: u32) -> bool {
    (id as usize) < mask.len() && mask.is_allowed(id)
}
