//! Many requests: one after the other, each a call of its own, against an engine that answers several at a time.

use std::cell::RefCell;
use std::rc::Rc;
use std::time::{Duration, Instant};

use phyla_generate::{
    Answer, Engine, EngineConfig, GenerationConfig, Generator, Memory, Request, Sequence, Stats, Update,
};
use phyla_kernels::rng::Rng;
use phyla_kernels::threads::threads;
use phyla_models::{Dropouts, Model};
use serde_json::json;

use super::infer::check;
use super::report::{median, peak_rss};
use super::{Serve, limit};
use crate::cli::error::usage;
use crate::cli::output::{self, bytes, count};

/// What answering all requests took.
struct Round {
    /// One after the other, in seconds.
    apart: f64,
    /// Many at a time.
    together: f64,
    stats: Stats,
    /// Blocks that are not free at the end, when what was kept for other requests is forgotten: 0.
    left: usize,
    /// From submission to the first token, of each request.
    first: Vec<f64>,
    /// Answers that are the same either way.
    same: usize,
}

pub fn run(args: &Serve) -> anyhow::Result<()> {
    let subject = &args.subject;
    if subject.rows() != 1 {
        return Err(usage("--batch is for rows of one length", "say with --concurrency how many run at a time"));
    }
    let model = subject.open(subject.dtype.wanted(), Dropouts::default())?;
    if !model.arch.main().causal {
        let message = format!("{} reads texts, and writes none", model.family.model_type);
        return Err(usage(message, "`phyla bench prefill` measures how fast an encoder reads"));
    }
    let most = |mean: u64| (mean + mean / 2) as usize;
    check(&model, most(args.prompt_tokens) + most(args.new_tokens))?;
    // As whoever answers many finds them.
    model.settle()?;
    let (requests, default) = (requests(args, &model), EngineConfig::default());
    let config = EngineConfig {
        max_num_seqs: args.concurrency as usize,
        memory: args.cache_blocks.map_or(default.memory, |blocks| Memory::Blocks(blocks as usize)),
        ..default
    };
    // Two to warm up.
    measure(&model, &requests[..requests.len().min(2)], config)?;
    let rounds = (0..args.steps).map(|_| measure(&model, &requests, config));
    let rounds = rounds.collect::<anyhow::Result<Vec<Round>>>()?;
    show(args, &model, &config, &rounds)
}

/// Random prompts, of lengths from a half to one and a half times the mean.
fn requests(args: &Serve, model: &Model) -> Vec<Request> {
    let mut rng = Rng::new(args.subject.seed).split("requests");
    let mut around = |mean: u64| (mean - mean / 2 + rng.below(mean / 2 * 2 + 1)) as usize;
    let lengths: Vec<(usize, usize)> =
        (0..args.requests).map(|_| (around(args.prompt_tokens), around(args.new_tokens))).collect();
    let mut ids = args.subject.ids(model, lengths.iter().map(|(prompt, _)| prompt).sum()).into_iter();
    let request = |(prompt, new): (usize, usize)| {
        let config = GenerationConfig {
            max_new_tokens: Some(new),
            deterministic: args.deterministic.then_some(true),
            ..GenerationConfig::default()
        };
        Request { prompt: ids.by_ref().take(prompt).collect(), config, seed: 0, ..Request::default() }
    };
    lengths.into_iter().map(request).collect()
}

fn measure(model: &Model, requests: &[Request], config: EngineConfig) -> anyhow::Result<Round> {
    let generator = Generator::new(model, None);
    let start = Instant::now();
    let mut alone: Vec<Sequence> = vec![];
    for request in requests {
        let prompt = std::slice::from_ref(&request.prompt);
        alone.extend(generator.generate(prompt, &request.config, request.seed, &mut |_| {})?.sequences);
    }
    let apart = start.elapsed().as_secs_f64();
    let answers: Rc<RefCell<Vec<Option<phyla_generate::Result<Answer>>>>> = Rc::default();
    answers.borrow_mut().resize_with(requests.len(), || None);
    let mut engine = Engine::new(generator, config)?;
    let start = Instant::now();
    for (number, request) in requests.iter().enumerate() {
        let answers = answers.clone();
        let tell = move |update: Update| {
            if let Update::Done(done) = update {
                answers.borrow_mut()[number] = Some(done);
            }
        };
        engine.submit(request.clone(), tell)?;
    }
    engine.run()?;
    let together = start.elapsed().as_secs_f64();
    let stats = engine.stats();
    engine.clear_prefixes();
    let left = stats.blocks.total - engine.stats().blocks.free;
    let (mut first, mut same) = (vec![], 0);
    for (answer, alone) in answers.take().into_iter().flatten().zip(&alone) {
        let answer = answer?;
        first.push(answer.timings.first_token.as_secs_f64());
        same += usize::from(answer.sequences.iter().all(|sequence| sequence.ids == alone.ids));
    }
    Ok(Round { apart, together, stats, left, first, same })
}

fn show(args: &Serve, model: &Model, config: &EngineConfig, rounds: &[Round]) -> anyhow::Result<()> {
    let Some(last) = rounds.last() else { return Ok(()) };
    let of = |part: fn(&Round) -> f64| median(&rounds.iter().map(part).collect::<Vec<_>>());
    let (apart, together) = (of(|round| round.apart), of(|round| round.together));
    let ratio = of(|round| round.apart / round.together);
    let (stats, first) = (last.stats, median(&last.first));
    let (tokens, read) = (stats.new_tokens as f64, stats.prompt_tokens);
    let longest = last.first.iter().copied().fold(0., f64::max);
    let dtype = limit::weights(model).map_or("f32", |param| param.compute().stored());
    let same = rounds.iter().map(|round| round.same).min().unwrap_or(0);
    let left: usize = rounds.iter().map(|round| round.left).sum();
    let block = config.block_bytes(model);
    if args.subject.json {
        return output::json(&json!({
            "bench": "serve",
            "requests": args.requests,
            "concurrency": args.concurrency,
            "prompt_tokens": read,
            "new_tokens": stats.new_tokens,
            "model_type": model.family.model_type,
            "parameters": model.count(),
            "dtype": dtype,
            "threads": threads(),
            "seconds_apart": apart,
            "seconds": together,
            "tokens_per_second_apart": tokens / apart,
            "tokens_per_second": tokens / together,
            "ratio": ratio,
            "ratio_all": rounds.iter().map(|round| round.apart / round.together).collect::<Vec<_>>(),
            "same_answers": same,
            "first_token_ms": first * 1e3,
            "first_token_ms_longest": longest * 1e3,
            "steps": stats.steps,
            "preemptions": stats.preemptions,
            "blocks": stats.blocks.total,
            "block_bytes": block,
            "blocks_left": left,
            "peak_rss_mb": peak_rss().map(|peak| peak as f64 * 1e-6),
        }));
    }
    output::stdout(|out| {
        let (requests, at_once) = (args.requests, args.concurrency);
        writeln!(out, "serve    {requests} requests, {read} tokens read, {} written, {dtype}", stats.new_tokens)?;
        writeln!(out, "model    {}, {} parameters", model.family.model_type, count(model.count() as u64))?;
        writeln!(out, "apart    {:.1} tokens/s, {apart:.2} s one after the other", tokens / apart)?;
        writeln!(out, "together {:.1} tokens/s, {together:.2} s with {at_once} at a time", tokens / together)?;
        writeln!(out, "ratio    {ratio:.2} times as fast; {same} of {requests} answers the same")?;
        let took = |seconds: f64| format!("{:.2?}", Duration::from_secs_f64(seconds));
        writeln!(out, "first    token after {}, at the latest after {}", took(first), took(longest))?;
        let (total, size) = (stats.blocks.total, bytes(block as u64));
        writeln!(out, "blocks   {total} of {size}, {} preemptions, {left} left in use at the end", stats.preemptions)?;
        if let Some(peak) = peak_rss() {
            writeln!(out, "memory   {} at most", bytes(peak))?;
        }
        Ok(())
    })
}
