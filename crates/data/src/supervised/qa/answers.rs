//! From a model's start and end scores back to spans of the text, as transformers' `postprocess_qa_predictions` does.

use std::collections::HashMap;
use std::ops::Range;

use serde::{Deserialize, Serialize};

use super::Window;
use crate::error::{Error, Result};

/// How answers are chosen.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct AnswerSettings {
    /// Answers given back at most, and starts and ends tried in each window.
    pub n_best: usize,
    /// Tokens of an answer at most.
    pub max_answer_len: usize,
    /// "No answer" is the answer when its score is higher than the best span's by more than this; without it a span is
    /// always given.
    pub null_threshold: Option<f32>,
}

impl Default for AnswerSettings {
    fn default() -> Self {
        Self { n_best: 20, max_answer_len: 30, null_threshold: None }
    }
}

/// A possible answer.
#[derive(Debug, Clone, PartialEq)]
pub struct Span {
    /// Its text, empty for "no answer".
    pub text: String,
    /// Where it stands, in characters of the context.
    pub characters: Range<usize>,
    /// Sum of the scores of its first and last token.
    pub score: f32,
    /// Its share among the answers given back (softmax of their scores).
    pub probability: f32,
}

/// Answers, the best first.
#[derive(Debug, Clone, PartialEq)]
pub struct Ranked {
    /// At most `n_best`; "no answer" is one of them where a threshold for it was given.
    pub spans: Vec<Span>,
    /// The score of "no answer": the lowest over the windows of the sum at token 0.
    pub null_score: f32,
    /// "No answer" is the answer.
    pub impossible: bool,
}

impl Ranked {
    /// The answer's text, empty for "no answer".
    pub fn best(&self) -> &str {
        if self.impossible {
            return "";
        }
        self.spans.iter().find(|span| !span.text.is_empty()).map_or("", |span| &span.text)
    }
}

/// The places of the highest scores, the highest first.
fn highest(scores: &[f32], count: usize) -> Vec<usize> {
    let mut places: Vec<usize> = (0..scores.len()).collect();
    places.sort_by(|&a, &b| scores[b].total_cmp(&scores[a]));
    places.truncate(count);
    places
}

/// Ranks the spans of one question. `start` and `end` are `[windows, time]`, where `time` is the width of the model's
/// rows, filling included. The same span in two windows counts once, with its higher score.
///
/// # Errors
/// Scores that do not belong to these windows.
pub fn answers(
    start: &[f32],
    end: &[f32],
    windows: &[Window],
    context: &str,
    settings: &AnswerSettings,
) -> Result<Ranked> {
    let time = start.len() / windows.len().max(1);
    let needed = windows.iter().map(|window| window.context_start + window.spans.len()).max().unwrap_or(0);
    if windows.is_empty() || start.len() != end.len() || !start.len().is_multiple_of(windows.len()) || time < needed {
        return Err(Error::Settings(format!(
            "expected scores of {} windows of at least {needed} tokens, found {} starts and {} ends",
            windows.len(),
            start.len(),
            end.len()
        )));
    }
    let mut null_score = f32::INFINITY;
    let mut found: HashMap<(usize, usize), f32> = HashMap::new();
    for (index, window) in windows.iter().enumerate() {
        let (start, end) = (&start[index * time..][..time], &end[index * time..][..time]);
        null_score = null_score.min(start[0] + end[0]);
        let ends = highest(end, settings.n_best);
        for first in highest(start, settings.n_best) {
            for &last in ends.iter().filter(|&&last| last >= first && last - first < settings.max_answer_len) {
                let Some(bytes) = window.bytes(first, last) else { continue };
                let score = start[first] + end[last];
                let best = found.entry((bytes.start, bytes.end)).or_insert(score);
                *best = best.max(score);
            }
        }
    }
    let mut ranked: Vec<((usize, usize), f32)> = found.into_iter().collect();
    // Equal scores in the order of the text, so that the result does not depend on a map's order.
    ranked.sort_by(|a, b| b.1.total_cmp(&a.1).then(a.0.cmp(&b.0)));
    ranked.truncate(settings.n_best);
    let mut spans: Vec<Span> = ranked
        .into_iter()
        .filter_map(|((from, to), score)| {
            let text = context.get(from..to)?.to_owned();
            let first = context.get(..from)?.chars().count();
            let characters = first..first + text.chars().count();
            Some(Span { text, characters, score, probability: 0.0 })
        })
        .collect();
    let best = spans.iter().find(|span| !span.text.is_empty()).map(|span| span.score);
    let impossible =
        settings.null_threshold.is_some_and(|threshold| best.is_none_or(|best| null_score - best > threshold));
    if settings.null_threshold.is_some() {
        let null = Span { text: String::new(), characters: 0..0, score: null_score, probability: 0.0 };
        let place = spans.partition_point(|span| span.score >= null_score);
        // It stays among the answers even when others are better.
        spans.insert(place, null);
        if spans.len() > settings.n_best.max(1) {
            let worst = spans.len() - if place == spans.len() - 1 { 2 } else { 1 };
            spans.remove(worst);
        }
    }
    let highest = spans.first().map_or(0.0, |span| span.score);
    let sum: f32 = spans.iter().map(|span| (span.score - highest).exp()).sum();
    spans.iter_mut().for_each(|span| span.probability = (span.score - highest).exp() / sum);
    Ok(Ranked { spans, null_score, impossible })
}
