//! Prompts and decoding: passes with a cache, nothing recorded, only the last token's logits.

use std::time::Instant;

use phyla_generate::{CacheSettings, GenerationConfig, Generator};
use phyla_kernels::roofline::Roofline;
use phyla_models::{Dropouts, Input, Model};
use phyla_nn::{Cache, Pass};
use phyla_ops::cpu;

use super::limit::Work;
use super::machine;
use super::report::Measured;
use super::{Decode, Prefill};
use crate::cli::error::usage;

/// Passes before the clock counts, when decoding.
const WARM_UP: usize = 2;

pub fn prefill(args: &Prefill) -> anyhow::Result<()> {
    let (subject, rows, time) = (&args.subject, args.subject.rows(), args.prompt_tokens as usize);
    let before = machine::measure();
    let model = subject.open(subject.dtype.wanted(), Dropouts::default())?;
    check(&model, time)?;
    let ids = subject.ids(&model, rows * time);
    let reads = !model.arch.main().causal;
    let mut steps = vec![];
    for _ in 0..args.steps + 1 {
        let start = Instant::now();
        if reads {
            let input = Input { ids: ids.clone(), batch: rows, time, ..Input::default() };
            phyla_ops::no_grad(|| model.run(&input, false))?;
        } else {
            last_ids(&model, &mut Cache::new(rows), &ids)?;
        }
        steps.push(start.elapsed().as_secs_f64());
    }
    // The first one paged the weights in.
    steps.remove(0);
    let settings = vec![("batch", rows), ("prompt_tokens", time)];
    // An encoder has no cache, and its heads answer for every token that they read.
    let work = Work::forward(&model, rows, time, reads);
    Measured { name: "prefill", settings, steps, tokens: rows * time, work, before }.show(subject, &model)
}

pub fn decode(args: &Decode) -> anyhow::Result<()> {
    let (subject, rows) = (&args.subject, args.subject.rows());
    let (prompt, new) = (args.prompt_tokens as usize, args.new_tokens as usize);
    let before = machine::measure();
    let model = subject.open(subject.dtype.wanted(), Dropouts::default())?;
    if !model.arch.main().causal {
        let message = format!("{} reads texts, and writes none", model.family.model_type);
        return Err(usage(message, "`phyla bench prefill` measures how fast an encoder reads"));
    }
    check(&model, prompt + WARM_UP + new)?;
    let ids = subject.ids(&model, rows * prompt);
    let spec = args.cache.settings(&model)?.spec(prompt + WARM_UP + new);
    // As whoever writes long texts finds them.
    model.settle()?;
    if args.beams > 1 {
        return search(args, &model, &ids, before);
    }
    let (mut steps, mut most, mut held) = (vec![], 0, 0);
    for _ in 0..args.steps {
        let mut cache = Cache::with(rows, spec);
        let mut next = last_ids(&model, &mut cache, &ids)?;
        for step in 0..WARM_UP + new {
            let start = Instant::now();
            next = last_ids(&model, &mut cache, &next)?;
            if step >= WARM_UP {
                steps.push(start.elapsed().as_secs_f64());
            }
            held = cache.bytes();
            most = held.max(most);
        }
    }
    let settings = vec![
        ("batch", rows),
        ("prompt_tokens", prompt),
        ("new_tokens", new),
        ("cache_bytes", held),
        ("cache_bytes_most", most),
    ];
    let work = Work::decoding(&model, rows, prompt + WARM_UP + new / 2, spec.kept);
    Measured { name: "decode", settings, steps, tokens: rows, work, before }.show(subject, &model)
}

/// As `phyla generate` searches, up to the limit.
fn search(args: &Decode, model: &Model, ids: &[u32], before: Roofline) -> anyhow::Result<()> {
    let (rows, beams) = (args.subject.rows(), args.beams as usize);
    let (prompt, new) = (args.prompt_tokens as usize, args.new_tokens as usize);
    let prompts: Vec<Vec<u32>> = ids.chunks(prompt).map(<[u32]>::to_vec).collect();
    let cache = args.cache.config()?;
    let search = |new| {
        let config = GenerationConfig { num_beams: Some(beams), max_new_tokens: Some(new), ..cache.clone() };
        Generator::new(model, None).generate(&prompts, &config, args.subject.seed, &mut |_| {})
    };
    search(WARM_UP)?;
    let (mut steps, mut copied) = (vec![], 0);
    for _ in 0..args.steps {
        let timings = search(new)?.timings;
        steps.push(timings.per_token().as_secs_f64());
        copied = timings.copied;
    }
    let (sizes, search) = ([("batch", rows), ("beams", beams)], [("copied_bytes", copied)]);
    let settings = [&sizes[..], &[("prompt_tokens", prompt), ("new_tokens", new)], &search].concat();
    let work = Work::decoding(model, rows * beams, prompt + new / 2, CacheSettings::of(&cache, &model.arch)?.kept);
    Measured { name: "decode", settings, steps, tokens: rows, work, before }.show(&args.subject, model)
}

/// Puts new ids, `[rows, time]`, behind those in the cache and gives each row's most probable next id.
fn last_ids(model: &Model, cache: &mut Cache, ids: &[u32]) -> anyhow::Result<Vec<u32>> {
    let rows = cache.lengths().len();
    let mut time = ids.len() / rows;
    let mut ids = ids.to_vec();
    // A cache that keeps the last tokens only takes few at a time.
    if let Some(piece) = cache.spec().sink.map(|sink| sink.together()) {
        while time > piece {
            let part: Vec<u32> = ids.chunks(time).flat_map(|row| &row[..piece]).copied().collect();
            model.forward(&part, None, &mut Pass::cached(cache.all(), piece))?;
            ids = ids.chunks(time).flat_map(|row| &row[piece..]).copied().collect();
            time -= piece;
        }
    }
    let hidden = model.forward(&ids, None, &mut Pass::cached(cache.all(), time))?;
    let last = hidden.narrow(1, time - 1, 1)?; // [rows, 1, hidden]
    let logits = model.logits(&last)?.data().to_device(&candle_core::Device::Cpu)?.contiguous()?;
    let logits = cpu::view::<f32>(&logits)?;
    let best = |row: &[f32]| row.iter().enumerate().max_by(|a, b| a.1.total_cmp(b.1)).map_or(0, |(id, _)| id as u32);
    Ok(logits.chunks(model.arch.vocab()).map(best).collect())
}

/// An error if the model has no positions for so many tokens, or two towers, which read and write each their own.
pub fn check(model: &Model, tokens: usize) -> anyhow::Result<()> {
    if model.arch.source().is_some() {
        let message = format!("{} is an encoder-decoder: how fast it is depends on two texts", model.family.model_type);
        return Err(usage(message, "`phyla translate -v` tells sentences and tokens a second on real ones"));
    }
    let context = model.arch.context;
    if model.arch.context_is_hard && tokens > context {
        return Err(usage(
            format!("{tokens} tokens a row are asked for, and the model has positions for {context}"),
            "give less of --prompt-tokens, --new-tokens or --seq",
        ));
    }
    Ok(())
}
