//! Any number of cases of one file against what a reference made of them; the fixtures hold few of each kind.
#![expect(clippy::unwrap_used, reason = "tests")]

use std::collections::{BTreeMap, HashMap};
use std::path::Path;

use phyla_generate::{GenerationConfig, Generator};
use phyla_models::{LoadOptions, Model, load};
use serde::Deserialize;
use serde_json::{Map, Value};

#[derive(Deserialize)]
struct Case {
    /// A folder.
    model: String,
    kind: String,
    input_ids: Vec<u32>,
    options: Map<String, Value>,
    #[serde(default)]
    sequences: Vec<Vec<u32>>,
    scores: Option<Vec<f32>>,
    beam_indices: Option<Vec<Vec<u32>>>,
    /// What the reference failed with.
    error: Option<String>,
}

/// What differs, in a few words.
fn difference(case: &Case, model: &Model) -> Option<String> {
    let (config, warnings) = GenerationConfig::from_map(&case.options).unwrap();
    assert!(warnings.is_empty(), "{warnings:?}");
    let eos = config.eos_token_id.clone().unwrap_or_default();
    let found = Generator::new(model, None).generate(std::slice::from_ref(&case.input_ids), &config, 0, &mut |_| {});
    let found = match (found, &case.error) {
        (Err(error), None) => return Some(format!("error: {error}")),
        (Err(_), Some(_)) => return None,
        (Ok(_), Some(error)) => return Some(format!("the reference fails: {error}")),
        (Ok(found), None) => found.sequences,
    };
    for (number, sequence) in found.iter().enumerate() {
        let (mut ids, expected) = (sequence.ids.clone(), &case.sequences[number]);
        // Version 4.28.1 writes the first of several ends whichever came.
        if matches!(case.kind.as_str(), "group" | "words") && ids.last().is_some_and(|id| eos.contains(id)) {
            ids.pop();
            ids.push(eos[0]);
        }
        let score = case.scores.as_ref().map(|scores| scores[number]);
        if &ids != expected {
            return Some(format!(
                "ids of {number}: {ids:?} ({:?}), and expected {expected:?} ({score:?})",
                sequence.score
            ));
        }
        let off = score.map_or(0.0, |score| (sequence.score.unwrap() - score).abs() / score.abs().max(1.0));
        if off > 1e-4 || sequence.score.is_some() != score.is_some() {
            return Some(format!("score of {number}: {:?} for {score:?}", sequence.score));
        }
        let beams = case.beam_indices.as_ref().map(|beams| &beams[number]);
        if beams.is_some_and(|beams| Some(beams) != sequence.beam_indices.as_ref()) {
            return Some(format!("beams of {number}: {:?} for {beams:?}", sequence.beam_indices));
        }
    }
    (found.len() != case.sequences.len()).then(|| format!("{} sequences", found.len()))
}

#[test]
#[ignore = "reads the file that PHYLA_CASES names: a list of cases, each with a model's folder"]
fn cases_of_a_file_equal_the_reference() {
    let file = std::env::var("PHYLA_CASES").unwrap();
    let cases: Vec<Case> = serde_json::from_str(&std::fs::read_to_string(file).unwrap()).unwrap();
    let mut models: HashMap<&str, Model> = HashMap::new();
    let mut counts: BTreeMap<(&str, &str), [usize; 2]> = BTreeMap::new();
    for (number, case) in cases.iter().enumerate() {
        let open = || load(Path::new(&case.model), &LoadOptions::default()).unwrap().0;
        let model = models.entry(&case.model).or_insert_with(open);
        let difference = difference(case, model);
        counts.entry((&case.kind, &case.model)).or_default()[usize::from(difference.is_some())] += 1;
        if let Some(difference) = difference {
            println!("case {number}, {}: {}", case.model, serde_json::to_string(&case.options).unwrap());
            println!("    {:?}: {difference}", case.input_ids);
        }
    }
    for ((kind, model), [equal, different]) in &counts {
        println!("{kind} {model}: {equal} equal, {different} different");
    }
    assert!(counts.values().all(|[_, different]| *different == 0));
}
