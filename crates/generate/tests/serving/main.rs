//! Requests to an engine are answered as if each were alone, and whatever becomes of them nothing is left behind.
#![expect(clippy::unwrap_used, reason = "tests")]

mod adapters;
mod memory;
mod requests;

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::{Arc, Mutex};

use candle_core::{DType, Device};
use phyla_generate::{
    Answer, CacheDtype, Engine, EngineConfig, Error, Event, FinishReason, GenerationConfig, Generator, Memory, Moment,
    Request, RequestId, Sequence, Served, Stage, Update,
};
use phyla_kernels::rng::Rng;
use phyla_models::{LoadOptions, Model, fresh, load};
use serde_json::{Value, json};

fn model(more: Value) -> Model {
    let mut config = json!({
        "model_type": "llama", "vocab_size": 331, "hidden_size": 96, "intermediate_size": 200,
        "num_hidden_layers": 2, "num_attention_heads": 6, "num_key_value_heads": 2, "max_position_embeddings": 64,
        "tie_word_embeddings": true, "initializer_range": 0.2
    });
    config.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    fresh(config.as_object().unwrap(), 7, &Device::Cpu).unwrap()
}

/// The same weights, stored otherwise.
fn stored(model: &Model, options: LoadOptions) -> Model {
    let folder = tempfile::tempdir().unwrap();
    phyla_models::save(model, folder.path(), DType::F32).unwrap();
    load(folder.path(), &options).unwrap().0
}

fn bf16(model: &Model) -> Model {
    stored(model, LoadOptions { dtype: Some(DType::BF16), ..Default::default() })
}

fn quantized(model: &Model, kind: &str) -> Model {
    stored(model, LoadOptions { quantize: Some(kind.parse().unwrap()), ..Default::default() })
}

/// Random ids of `len`, of which those with the same `family` begin alike.
fn prompt(family: u32, len: usize, own: u32) -> Vec<u32> {
    let shared = len * 3 / 4;
    (0..len as u32)
        .map(|t| (t * t + 5 * t + if (t as usize) < shared { 31 * family } else { 17 * own }) % 331)
        .collect()
}

fn sampling(new: usize) -> GenerationConfig {
    GenerationConfig { max_new_tokens: Some(new), do_sample: Some(true), top_k: Some(0), ..Default::default() }
}

/// Requests of mixed length, with mixed settings.
fn requests(count: usize, seed: u64, new: u64, deterministic: bool) -> Vec<Request> {
    let mut rng = Rng::new(seed).split("requests");
    let lengths = [1, 2, 5, 30, 33, 63, 64, 65, 96, 100, 128, 160, 200, 300, 512, 530, 560, 700];
    (0..count)
        .map(|i| {
            let len = lengths[rng.below(lengths.len() as u64) as usize];
            let mut config = sampling(1 + rng.below(new) as usize);
            match rng.below(5) {
                0 => config = GenerationConfig { do_sample: None, top_k: None, ..config },
                1 => (config.repetition_penalty, config.logprobs) = (Some(1.3), Some(true)),
                2 => config.temperature = Some(0.7),
                3 => config.num_return_sequences = Some(1 + rng.below(4) as usize),
                _ => config.eos_token_id = Some((0..20).map(|_| rng.below(331) as u32).collect()),
            }
            config.deterministic = deterministic.then_some(true);
            let prompt = prompt(rng.below(3) as u32, len, i as u32);
            Request { prompt, config, seed: rng.below(5), ..Request::default() }
        })
        .collect()
}

/// What a request was told, checked for order.
#[derive(Default)]
struct Heard {
    ids: BTreeMap<usize, Vec<u32>>,
    reasons: BTreeMap<usize, FinishReason>,
    done: Option<Result<Answer, Error>>,
}

impl Heard {
    fn hear(&mut self, update: Update) {
        assert!(self.done.is_none(), "told after the end");
        match update {
            Update::Event(Event::Token { sequence, id, .. }) => {
                assert!(!self.reasons.contains_key(&sequence), "a token after the end");
                self.ids.entry(sequence).or_default().push(id);
            }
            Update::Event(Event::Finished { sequence, reason, .. }) => {
                assert!(self.reasons.insert(sequence, reason).is_none(), "ended twice");
            }
            Update::Done(done) => self.done = Some(done),
        }
    }

    /// The answer, after a look at whether the events said the same.
    fn answer(&self) -> &Answer {
        let answer = self.done.as_ref().unwrap().as_ref().unwrap();
        for (number, sequence) in answer.sequences.iter().enumerate() {
            assert_eq!(self.ids.get(&number).map_or(&[][..], |ids| ids), sequence.ids);
            assert_eq!(self.reasons[&number], sequence.finish_reason);
        }
        answer
    }
}

fn alone(model: &Model, request: &Request) -> Vec<Sequence> {
    let generator = Generator::new(model, None);
    let prompts = std::slice::from_ref(&request.prompt);
    generator.generate(prompts, &request.config, request.seed, &mut |_| {}).unwrap().sequences
}

/// Runs requests, each submitted at a step of its own, some cancelled at another; what each was told, and preemptions.
fn run(model: &Model, requests: &[Request], config: EngineConfig, seed: u64, cancels: bool) -> (Vec<Heard>, usize) {
    let mut rng = Rng::new(seed).split("steps");
    let mut engine = Engine::new(Generator::new(model, None), config).unwrap();
    let heard: Vec<Rc<RefCell<Heard>>> = requests.iter().map(|_| Rc::default()).collect();
    let mut ids: Vec<Option<RequestId>> = vec![None; requests.len()];
    let (mut next, mut steps) = (0, 0);
    loop {
        // Bursts, and pauses.
        let burst = if steps % 5 == 0 { rng.below(8) } else { 0 };
        for _ in 0..burst {
            let Some(request) = requests.get(next) else { break };
            let told = heard[next].clone();
            ids[next] = Some(engine.submit(request.clone(), move |update| told.borrow_mut().hear(update)).unwrap());
            next += 1;
        }
        if cancels && rng.below(8) == 0 && next > 0 {
            let victim = rng.below(next as u64) as usize;
            let before = engine.blocks_in_use();
            let ran = heard[victim].borrow().done.is_none();
            assert_eq!(engine.cancel(ids[victim].unwrap()).unwrap(), ran);
            assert!(engine.blocks_in_use() <= before);
        }
        let more = engine.step().unwrap();
        check(&engine, model, &config);
        steps += 1;
        if !more && next == requests.len() {
            break;
        }
    }
    let stats = engine.stats();
    assert_eq!((stats.running, stats.waiting, engine.blocks_in_use(), engine.cache_bytes()), (0, 0, 0, 0));
    assert_eq!(stats.finished + stats.cancelled, requests.len());
    assert_eq!(stats.blocks.free + stats.blocks.kept, stats.blocks.total);
    engine.clear_prefixes();
    assert_eq!(engine.stats().blocks.free, stats.blocks.total);
    drop(engine);
    (heard.into_iter().map(|heard| Rc::try_unwrap(heard).ok().unwrap().into_inner()).collect(), stats.preemptions)
}

/// What is counted is what there is.
fn check(engine: &Engine, model: &Model, config: &EngineConfig) {
    let (stats, bytes) = (engine.stats(), config.block_bytes(model));
    let blocks = stats.blocks;
    assert_eq!(blocks.used + blocks.kept + blocks.free, blocks.total);
    assert!(stats.running <= config.max_num_seqs);
    // Blocks are given before they are filled.
    assert!(engine.cache_bytes() <= blocks.used * bytes, "{} bytes in {blocks:?} of {bytes}", engine.cache_bytes());
}

fn small(blocks: usize) -> EngineConfig {
    EngineConfig { max_num_seqs: 12, max_num_batched_tokens: 128, memory: Memory::Blocks(blocks), ..Default::default() }
}

#[test]
fn each_of_many_requests_is_answered_as_if_alone() {
    let f32s = model(json!({}));
    let wide = json!({ "hidden_size": 256, "intermediate_size": 512, "num_attention_heads": 4 });
    let q4 = quantized(&model(wide), "q4_0");
    let bf16s = bf16(&f32s);
    for (name, model, deterministic) in [("f32", &f32s, false), ("bf16", &bf16s, false), ("q4_0", &q4, true)] {
        let requests = requests(64, 3, 120, deterministic);
        let (heard, preempted) = run(model, &requests, small(16), 11, true);
        let mut cancelled = 0;
        for (i, (heard, request)) in heard.iter().zip(&requests).enumerate() {
            let (answer, alone) = (heard.answer(), alone(model, request));
            let was = answer.sequences.iter().any(|s| s.finish_reason == FinishReason::Cancelled);
            cancelled += usize::from(was);
            if was {
                for (sequence, alone) in answer.sequences.iter().zip(&alone) {
                    assert_eq!(sequence.ids, alone.ids[..sequence.ids.len()], "{name}, request {i}");
                }
            } else {
                assert_eq!(answer.sequences, alone, "{name}, request {i}");
            }
        }
        assert!(
            cancelled > 8 && cancelled < 48 && preempted > 0,
            "{name}: {cancelled} cancelled, {preempted} preempted"
        );
    }
}

/// Logits by sequence, step and bits: how many more were seen alone than together.
#[derive(Default)]
struct Bits(Mutex<BTreeMap<(usize, usize, u64), i64>>);

impl Bits {
    fn note(&self, moment: &Moment, sign: i64) {
        if let Moment::Scores { at, stage: Stage::Logits, scores } = moment {
            // FNV-1a.
            let mix = |hash: u64, x: &f32| (hash ^ u64::from(x.to_bits())).wrapping_mul(0x0100_0000_01B3);
            let hash = scores.iter().fold(0xCBF2_9CE4_8422_2325, mix);
            *self.0.lock().unwrap().entry((at.branch, at.step, hash)).or_default() += sign;
        }
    }

    /// Notes what requests see alone.
    fn alone(&self, model: &Model, requests: &[Request]) {
        let watch = |moment: &Moment| self.note(moment, 1);
        let generator = Generator::new(model, None).watched_by(&watch);
        for request in requests {
            let prompts = std::slice::from_ref(&request.prompt);
            generator.generate(prompts, &request.config, request.seed, &mut |_| {}).unwrap();
        }
    }

    /// How many were seen in one way only, and how many at all.
    fn differ(&self) -> (usize, usize) {
        let counts = self.0.lock().unwrap();
        (counts.values().filter(|&&count| count != 0).count(), counts.len())
    }
}

/// Ids that are drawn hide small differences; bits do not.
#[test]
fn every_logit_has_the_bits_that_it_has_alone() {
    let f32s = model(json!({}));
    let bf16s = bf16(&f32s);
    let wide = json!({ "hidden_size": 256, "intermediate_size": 512, "num_attention_heads": 4 });
    let q8 = quantized(&model(wide.clone()), "q8_0");
    let q4k = quantized(&model(wide), "q4_k_m");
    let experts = model(json!({ "model_type": "mixtral", "num_local_experts": 4, "num_experts_per_tok": 2 }));
    let latent = model(json!({
        "model_type": "deepseek_v2", "num_key_value_heads": 6, "kv_lora_rank": 40, "q_lora_rank": null,
        "qk_nope_head_dim": 16, "qk_rope_head_dim": 8, "v_head_dim": 16, "first_k_dense_replace": 1,
        "n_routed_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 64, "n_shared_experts": 1
    }));
    let rotated = model(json!({ "rope_scaling": { "rope_type": "dynamic", "factor": 4.0 } }));
    let windowed = model(json!({ "model_type": "mistral", "sliding_window": 70 }));
    for (name, model, deterministic) in [
        ("f32", &f32s, false),
        ("bf16", &bf16s, false),
        ("q8_0", &q8, true),
        ("q4_k_m", &q4k, true),
        ("experts", &experts, false),
        ("latent", &latent, false),
        ("dynamic rope", &rotated, false),
        ("window", &windowed, false),
    ] {
        let requests = requests(24, 5, 120, deterministic);
        let bits = Bits::default();
        bits.alone(model, &requests);
        let together = |moment: &Moment| bits.note(moment, -1);
        let generator = Generator::new(model, None).watched_by(&together);
        // Few blocks, so that much is read again.
        let mut engine = Engine::new(generator, small(14)).unwrap();
        for chunk in requests.chunks(6) {
            for request in chunk {
                engine.submit(request.clone(), |_| {}).unwrap();
            }
            for _ in 0..7 {
                engine.step().unwrap();
            }
        }
        engine.run().unwrap();
        let stats = engine.stats();
        assert!(stats.preemptions > 0, "{name}: {stats:?}");
        if !["dynamic rope"].contains(&name) {
            assert!(stats.shared_tokens > 0, "{name}: {stats:?}");
        }
        let (differ, all) = bits.differ();
        assert!(all > 300 && differ == 0, "{name}: {differ} of {all} logits differ");
    }
}

#[test]
fn what_was_written_is_no_prompt_to_others() {
    let model = model(json!({}));
    let bits = Bits::default();
    let together = |moment: &Moment| bits.note(moment, -1);
    let heard: [Rc<RefCell<Heard>>; 2] = Default::default();
    let mut engine = Engine::new(Generator::new(&model, None).watched_by(&together), small(12)).unwrap();
    let request = |i: u32| Request { prompt: prompt(i, 70, i), config: sampling(500), seed: 1, ..Request::default() };
    for (i, heard) in heard.iter().cloned().enumerate() {
        engine.submit(request(i as u32), move |update| heard.borrow_mut().hear(update)).unwrap();
    }
    // Until the second gives its blocks back, which are kept: the first of them is all prompt, the others are not.
    while engine.stats().preemptions == 0 {
        engine.step().unwrap();
    }
    let written = heard[1].borrow().ids[&0].clone();
    assert!(written.len() > 200 && engine.stats().blocks.kept >= 3, "{:?}", engine.stats());
    assert!(engine.cancel(0).unwrap());
    // A prompt that goes on with the answer, and one with the first of its ids.
    let follow = |len: usize| {
        let prompt = [&request(1).prompt[..], &written[..len], &[5; 40]].concat();
        Request { prompt, config: sampling(20), seed: 3, ..Request::default() }
    };
    let more = [follow(200), follow(1)];
    for request in &more {
        engine.submit(request.clone(), |_| {}).unwrap();
    }
    let before = engine.stats().shared_tokens;
    engine.run().unwrap();
    // The second finds its own again; the others only its prompt, a block.
    let found = engine.stats().shared_tokens - before;
    assert!(found >= 3 * 64 && found.is_multiple_of(64), "{found}");
    bits.alone(&model, &[request(1)]);
    bits.alone(&model, &more);
    let (first, steps) = (&heard[0].borrow().ids[&0], bits.differ().0);
    // What differs is the cancelled one's, which was not noted alone.
    assert_eq!(steps, first.len());
}
