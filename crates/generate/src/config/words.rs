//! Words that a beam search must write: each a run of ids, or several of which one is enough.

use serde_json::Value;

use super::read::{run, short, wrong};
use super::{GenerationConfig, Settings};
use crate::{Error, Result};

/// Runs of ids of which one must be written: one run is transformers' `PhrasalConstraint`, several are its
/// `DisjunctiveConstraint`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ForcedWords(pub Vec<Vec<u32>>);

impl ForcedWords {
    /// Ids of the shortest run.
    pub fn shortest(&self) -> usize {
        self.0.iter().map(Vec::len).min().unwrap_or(0)
    }

    /// Ids of the longest run.
    pub fn longest(&self) -> usize {
        self.0.iter().map(Vec::len).max().unwrap_or(0)
    }
}

/// `force_words_ids`: runs of ids, or lists of them.
pub(super) fn of_ids(key: &str, value: &Value) -> Result<Vec<ForcedWords>> {
    let words = value.as_array().ok_or_else(|| wrong(key, "lists of token ids, or lists of such lists", value))?;
    let nested = |value: &Value| value.as_array().and_then(|runs| runs.first()).is_some_and(Value::is_array);
    words
        .iter()
        .map(|value| if nested(value) { any_of(key, value) } else { Ok(ForcedWords(vec![run(key, value)?])) })
        .collect()
}

/// `constraints`: objects with what the constructors of transformers' two classes are given.
pub(super) fn of_objects(key: &str, value: &Value) -> Result<Vec<ForcedWords>> {
    let not = |value: &Value| wrong(key, "objects with token_ids (a list) or nested_token_ids (lists)", value);
    let word = |value: &Value| {
        let fields: Vec<(&String, &Value)> = value.as_object().into_iter().flatten().collect();
        match fields[..] {
            [(name, ids)] if name == "token_ids" => Ok(ForcedWords(vec![run(key, ids)?])),
            [(name, runs)] if name == "nested_token_ids" => any_of(key, runs),
            _ => Err(not(value)),
        }
    };
    value.as_array().ok_or_else(|| not(value))?.iter().map(word).collect()
}

fn any_of(key: &str, value: &Value) -> Result<ForcedWords> {
    let runs = value.as_array().ok_or_else(|| wrong(key, "lists of token ids", value))?;
    Ok(ForcedWords(runs.iter().map(|value| run(key, value)).collect::<Result<_>>()?))
}

/// All words that are to be forced, in the order in which transformers takes them.
///
/// # Errors
/// Where there is nothing to force, or nothing that can be.
pub(super) fn forced(config: &GenerationConfig) -> Result<Vec<ForcedWords>> {
    let named = [("constraints", &config.constraints), ("force_words_ids", &config.force_words_ids)];
    let mut all = vec![];
    for (name, words) in named {
        let Some(words) = words else { continue };
        if words.is_empty() {
            return Err(Error::Settings(format!("{name}: expected at least one run of ids, found none")));
        }
        for ForcedWords(runs) in words {
            check(name, runs, config)?;
        }
        all.extend(words.iter().cloned());
    }
    Ok(all)
}

/// Whether one of the runs can be written, and each of them means something.
fn check(name: &str, runs: &[Vec<u32>], config: &GenerationConfig) -> Result<()> {
    let wrong = |expected: &str, found: String| {
        let found = short(&Value::from(found));
        Err(Error::Settings(format!("{name}: expected {expected}, found {}", found.trim_matches('"'))))
    };
    if runs.is_empty() || runs.iter().any(Vec::is_empty) {
        return wrong("runs of at least one id", format!("{runs:?}"));
    }
    for (i, a) in runs.iter().enumerate() {
        if let Some((_, b)) = runs.iter().enumerate().find(|(j, b)| i != *j && b.starts_with(a)) {
            return wrong("runs of which none begins another", format!("{a:?} and {b:?}"));
        }
    }
    let of =
        |run: &[u32], ids: &Option<Vec<u32>>| run.iter().find(|id| ids.iter().flatten().any(|i| i == *id)).copied();
    if let Some(id) = runs.iter().find_map(|run| of(run, &config.eos_token_id)) {
        return wrong("ids that do not end a sequence", format!("{id} of eos_token_id"));
    }
    match runs.iter().map(|run| of(run, &config.suppress_tokens)).collect::<Option<Vec<u32>>>() {
        Some(ids) => wrong("ids that may be written", format!("{} of suppress_tokens", ids[0])),
        None => Ok(()),
    }
}

/// What beams are cut into, and what they are forced to write, beside the settings that these go with.
///
/// # Errors
/// As transformers refuses them: groups that do not divide the beams or differ in nothing; either of the two with draws or
/// without beams; both of them.
pub(super) fn searched(settings: &Settings) -> Result<()> {
    let (beams, groups) = (settings.beams, settings.groups);
    let wrong = |reason: String| Err(Error::Settings(reason));
    if groups > beams || !beams.is_multiple_of(groups) {
        let expected = format!("expected a divisor of the {beams} of num_beams, found {groups}");
        return wrong(format!("num_beam_groups: {expected}"));
    }
    let forces = !settings.forced_words.is_empty();
    let what = match (groups > 1, forces) {
        (true, true) => {
            return wrong(format!(
                "force_words_ids: words are forced on beams of one group, expected num_beam_groups 1, found {groups}"
            ));
        }
        (true, false) => "num_beam_groups: groups of beams",
        (false, true) => "force_words_ids: beams with words to write",
        (false, false) => "",
    };
    if !what.is_empty() && settings.sampling.is_some() {
        return wrong(format!("{what} are not drawn, expected do_sample false, found true"));
    }
    if forces && beams == 1 {
        return wrong("force_words_ids: words are forced by a search, expected num_beams above 1, found 1".into());
    }
    match (groups > 1, settings.diversity) {
        (true, 0.) => {
            wrong("diversity_penalty: expected a number above 0, without which groups are alike, found 0".into())
        }
        (false, found) if found != 0. => wrong(format!(
            "diversity_penalty: expected num_beam_groups above 1, which are to differ, found 1 (and a penalty of {found})"
        )),
        _ => Ok(()),
    }
}
