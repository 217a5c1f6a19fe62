//! What decoding tells of itself: it adds up to what comes out, and listening changes nothing.
#![expect(clippy::unwrap_used, reason = "tests")]

use std::collections::{HashMap, HashSet};
use std::sync::Mutex;

use candle_core::Device;
use phyla_generate::{At, Fate, Generation, GenerationConfig, Generator, Moment, Stage, Why};
use phyla_models::{Model, fresh};
use serde_json::{Value, json};

fn decoder() -> Model {
    let config = json!({
        "model_type": "llama", "vocab_size": 61, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2,
        "num_attention_heads": 2, "max_position_embeddings": 256, "initializer_range": 0.3
    });
    fresh(config.as_object().unwrap(), 5, &Device::Cpu).unwrap()
}

fn encoder_decoder() -> Model {
    let config = json!({
        "model_type": "t5", "vocab_size": 61, "d_model": 32, "d_kv": 16, "d_ff": 48, "num_layers": 2, "num_heads": 2,
        "decoder_start_token_id": 0, "eos_token_id": 1, "initializer_factor": 4.0, "tie_word_embeddings": false
    });
    fresh(config.as_object().unwrap(), 6, &Device::Cpu).unwrap()
}

fn settings(value: Value) -> GenerationConfig {
    let (config, warnings) = GenerationConfig::of_user(value.as_object().unwrap()).unwrap();
    assert!(warnings.is_empty(), "{warnings:?}");
    config.merge(GenerationConfig { max_new_tokens: Some(24), ..Default::default() })
}

fn prompts() -> Vec<Vec<u32>> {
    vec![(0..70).map(|i| [5, 9, 11, 40, 2][i % 5]).collect(), vec![8, 3, 8]]
}

/// Where, which id, by which draw, and the scores of what was weighed for it.
type Pick = (At, u32, Option<f64>, Vec<(u32, f32)>);

/// A candidate's parent, id, score and fate.
type Candidate = (usize, u32, f32, Fate);

/// What was told, in order.
#[derive(Default)]
struct Told {
    stages: Vec<(At, Stage)>,
    choices: HashMap<At, Vec<f32>>,
    picks: Vec<Pick>,
    guesses: Vec<(At, Vec<u32>, usize)>,
    /// Prompt, step, candidates.
    beams: Vec<(usize, usize, Vec<Candidate>)>,
    reads: Vec<(usize, usize, usize)>,
}

impl Told {
    fn hear(&mut self, moment: &Moment) {
        match *moment {
            Moment::Scores { at, stage, scores } => {
                self.stages.push((at, stage));
                if stage == Stage::Choice {
                    self.choices.insert(at, scores.to_vec());
                }
            }
            Moment::Picked { at, id, why } => {
                let (mut uniform, mut weighed) = (None, vec![]);
                match why {
                    Why::Likeliest => {}
                    Why::Drawn { uniform: drawn } => uniform = Some(drawn),
                    Why::Contrast { weighed: all } => weighed = all.iter().map(|w| (w.id, w.score)).collect(),
                }
                self.picks.push((at, id, uniform, weighed));
            }
            Moment::Guessed { at, ids, right } => self.guesses.push((at, ids.to_vec(), right)),
            Moment::Beams { prompt, step, candidates } => {
                let candidates = candidates.iter().map(|c| (c.parent, c.id, c.score, c.fate)).collect();
                self.beams.push((prompt, step, candidates));
            }
            Moment::Read { ids, positions, bytes } => self.reads.push((ids, positions, bytes)),
            Moment::Layers { .. } | Moment::Encoded { .. } => unreachable!("nobody asks for them"),
        }
    }

    /// Every step of every branch begins with logits, goes through the processors in one order, and ends with a choice.
    fn chain(&self) -> Vec<&'static str> {
        let (mut steps, mut chains) = (HashMap::<At, Vec<Stage>>::new(), HashSet::new());
        self.stages.iter().for_each(|(at, stage)| steps.entry(*at).or_default().push(*stage));
        for stages in steps.values() {
            assert_eq!((stages[0], stages[stages.len() - 1]), (Stage::Logits, Stage::Choice));
            let name = |stage: &Stage| match stage {
                Stage::Processor(name) => Some(*name),
                _ => None,
            };
            chains.insert(stages.iter().filter_map(name).collect::<Vec<_>>());
        }
        assert_eq!(chains.len(), 1, "{chains:?}");
        chains.into_iter().next().unwrap()
    }

    /// The ids that were picked for a branch.
    fn ids(&self, prompt: usize, branch: usize) -> Vec<u32> {
        let picks = self.picks.iter().filter(|(at, ..)| (at.prompt, at.branch) == (prompt, branch));
        let picks: Vec<(usize, u32)> = picks.map(|(at, id, ..)| (at.step, *id)).collect();
        assert!(picks.iter().enumerate().all(|(i, (step, _))| i == *step), "{picks:?}");
        picks.into_iter().map(|(_, id)| id).collect()
    }
}

/// An answer that was watched and is as if it had not been, and what was told.
fn watched(generator: Generator, config: &GenerationConfig) -> (Generation, Told) {
    let alone = generator.generate(&prompts(), config, 3, &mut |_| {}).unwrap();
    let told = Mutex::new(Told::default());
    let watch = |moment: &Moment| told.lock().unwrap().hear(moment);
    let answer = generator.watched_by(&watch).generate(&prompts(), config, 3, &mut |_| {}).unwrap();
    assert_eq!(answer.sequences, alone.sequences);
    (answer, told.into_inner().unwrap())
}

#[test]
fn what_is_picked_is_told_with_its_reasons() {
    for model in [decoder(), encoder_decoder()] {
        let generator = Generator::new(&model, None);
        for (config, chain) in [
            (json!({}), vec![]),
            (
                json!({ "repetition_penalty": 1.2, "no_repeat_ngram_size": 3 }),
                vec!["repetition_penalty", "no_repeat_ngram_size"],
            ),
            (
                json!({
                    "do_sample": true, "num_return_sequences": 3, "temperature": 0.8, "top_p": 0.9, "min_length": 4
                }),
                vec!["min_length", "temperature", "top_k", "top_p"],
            ),
        ] {
            let returns = config["num_return_sequences"].as_u64().unwrap_or(1) as usize;
            let drawn = config["do_sample"] == true;
            let (answer, told) = watched(generator, &settings(config));
            assert_eq!(told.chain(), chain);
            for (i, sequence) in answer.sequences.iter().enumerate() {
                assert_eq!(told.ids(sequence.prompt, i % returns), sequence.ids);
            }
            for (at, id, uniform, _) in &told.picks {
                let scores = &told.choices[at];
                let most = scores.iter().copied().fold(f32::NEG_INFINITY, f32::max);
                let weights: Vec<f64> = scores.iter().map(|x| f64::from((x - most).exp())).collect();
                let total: f64 = weights.iter().sum();
                let below: f64 = weights[..*id as usize].iter().sum::<f64>() / total;
                assert_eq!(uniform.is_some(), drawn);
                match uniform {
                    None => assert_eq!(scores[*id as usize], most),
                    Some(u) => assert!(below - 1e-9 <= *u && *u <= below + weights[*id as usize] / total + 1e-9),
                }
            }
        }
    }
}

#[test]
fn beams_can_be_followed_to_what_comes_out() {
    for model in [decoder(), encoder_decoder()] {
        for config in [
            json!({ "num_beams": 3, "eos_token_id": [1, 7, 9, 30], "num_return_sequences": 2 }),
            json!({ "num_beams": 4, "do_sample": true, "eos_token_id": 1, "repetition_penalty": 1.1 }),
        ] {
            let (answer, told) = watched(Generator::new(&model, None), &settings(config));
            told.chain();
            // Prompt and rank to ids, of those that run; and finished ones with their scores.
            let mut running = HashMap::from([((0, 0), vec![]), ((1, 0), vec![])]);
            let mut finished = vec![];
            for (prompt, step, candidates) in &told.beams {
                let before = running.clone();
                running.retain(|(of, _), _| of != prompt);
                for (parent, id, score, fate) in candidates {
                    let at = At { prompt: *prompt, branch: *parent, step: *step };
                    assert!(told.choices[&at][*id as usize] <= 0. && score.is_finite());
                    let ids: Vec<u32> = [&before[&(*prompt, *parent)][..], &[*id]].concat();
                    match fate {
                        Fate::Runs(rank) => assert!(running.insert((*prompt, *rank), ids).is_none()),
                        Fate::Finished(score) => finished.push((*prompt, ids, *score)),
                        Fate::Dropped => {}
                    }
                }
            }
            for sequence in &answer.sequences {
                let found = finished.iter().find(|(prompt, ids, _)| (prompt, ids) == (&sequence.prompt, &sequence.ids));
                assert_eq!(found.map(|(_, _, score)| *score), sequence.score);
            }
            assert!(finished.len() >= answer.sequences.len());
        }
    }
}

#[test]
fn guesses_are_told_with_how_many_were_right() {
    let (model, assistant) = (decoder(), decoder());
    let generator = Generator::new(&model, None);
    for (generator, config) in [
        (generator, json!({ "prompt_lookup_num_tokens": 5 })),
        (generator.assisted_by(&assistant), json!({ "do_sample": true })),
    ] {
        let (answer, told) = watched(generator, &settings(config));
        let all = |f: fn(&(At, Vec<u32>, usize)) -> usize| told.guesses.iter().map(f).sum::<usize>();
        let counted = (answer.timings.drafted, answer.timings.accepted);
        assert_eq!((all(|(_, ids, _)| ids.len()), all(|(_, _, right)| *right)), counted);
        assert!(counted.1 > 0);
        for (at, ids, right) in &told.guesses {
            let picked = &answer.sequences[at.prompt].ids[at.step..];
            assert_eq!(picked[..*right], ids[..*right]);
        }
        for sequence in &answer.sequences {
            assert_eq!(told.ids(sequence.prompt, 0), sequence.ids);
        }
    }
}

#[test]
fn contrastive_search_tells_what_it_weighs() {
    let model = decoder();
    let (answer, told) = watched(Generator::new(&model, None), &settings(json!({ "penalty_alpha": 0.5, "top_k": 4 })));
    for sequence in &answer.sequences {
        assert_eq!(told.ids(sequence.prompt, 0), sequence.ids);
    }
    for (_, id, _, weighed) in &told.picks {
        let best = weighed.iter().map(|(_, score)| *score).fold(f32::NEG_INFINITY, f32::max);
        assert_eq!((weighed.len(), weighed.iter().find(|(_, score)| *score == best).unwrap().0), (4, *id));
    }
}

#[test]
fn the_cache_is_told_after_every_pass() {
    let model = decoder();
    let (answer, told) = watched(Generator::new(&model, None), &settings(json!({ "cache_dtype": "f32" })));
    let read: usize = told.reads.iter().map(|(ids, ..)| ids).sum();
    // Both answers are 24 ids long, and the last one is not read.
    assert_eq!(read, answer.timings.read + 2 * 23);
    assert_eq!(told.reads.last().unwrap().1, read);
    // Two layers with keys and values of 32 numbers, in pages of 64 positions: 70 and 24 ids, and 3 and 24.
    assert_eq!(told.reads[0].2, 2 * 2 * 2 * 64 * 32 * 4);
    assert_eq!(told.reads.last().unwrap().2, 3 * 2 * 2 * 64 * 32 * 4);
}
