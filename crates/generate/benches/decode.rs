//! Decoding speed: `cargo bench -p phyla-generate --bench decode -- FOLDER [NEW_TOKENS] [BATCH] [PROMPT_TOKENS]`.
//!
//! A folder that does not exist is first filled with fresh bf16 weights of Qwen2-0.5B's shape. Printed beside
//! the time of a step is that of the products with all weights alone, the floor of decoding.
#![expect(clippy::unwrap_used, reason = "a program for developers")]

use std::path::Path;
use std::time::{Duration, Instant};

use candle_core::{DType, Device};
use phyla_generate::{Event, GenerationConfig, Generator};
use phyla_kernels::product::{MatRef, Precision, linear};
use phyla_models::{LoadOptions, Model, fresh, load, save};

fn make(folder: &Path) {
    let config = serde_json::json!({
        "model_type": "qwen2", "hidden_size": 896, "num_hidden_layers": 24, "num_attention_heads": 14,
        "num_key_value_heads": 2, "intermediate_size": 4864, "vocab_size": 151936, "tie_word_embeddings": true,
        "max_position_embeddings": 32768, "rope_theta": 1000000.0
    });
    let model = fresh(config.as_object().unwrap(), 1, &Device::Cpu).unwrap();
    std::fs::create_dir_all(folder).unwrap();
    save(&model, folder, DType::BF16).unwrap();
}

/// `VmHWM`, the most memory that the process has held so far, in MB. (Linux; 0 elsewhere.)
fn peak_mb() -> f64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find(|line| line.starts_with("VmHWM"));
    line.and_then(|line| line.split_whitespace().nth(1)?.parse::<f64>().ok()).map_or(0., |kb| kb / 1e3)
}

fn main() {
    let args: Vec<String> = std::env::args().skip(1).filter(|arg| !arg.starts_with("--")).collect();
    let Some(folder) = args.first().map(Path::new) else {
        println!("decode: no folder given, nothing measured");
        return;
    };
    let number = |i: usize, default| args.get(i).map_or(default, |arg| arg.parse().unwrap());
    let (new, batch, prompt) = (number(1, 64usize), number(2, 1), number(3, 16));
    if !folder.join("config.json").exists() {
        make(folder);
        println!("made {}; run again to measure", folder.display());
        return;
    }
    let start = Instant::now();
    let (model, _) = load(folder, &LoadOptions::default()).unwrap();
    let loaded = start.elapsed();
    let bytes: usize = model.params().iter().map(|p| p.count() * p.weight().dtype().size_in_bytes()).sum();
    let prompts: Vec<Vec<u32>> =
        (0..batch as u32).map(|i| (0..prompt as u32).map(|t| 100 + 7 * t + i).collect()).collect();
    let config = GenerationConfig { max_new_tokens: Some(new), ..Default::default() };
    let mut times = vec![];
    let generator = Generator::new(&model, None);
    let generation = generator.generate(&prompts, &config, 0, &mut |event| {
        if let Event::Token { sequence: 0, .. } = event {
            times.push(Instant::now());
        }
    });
    let first = generation.unwrap().timings.first_token;
    println!("load {:.0} ms, first token {:.0} ms after that", ms(loaded), ms(first));
    let steps = times.windows(2).map(|pair| ms(pair[1] - pair[0])).collect();
    let (step, fastest) = median_and_least(steps);
    println!("step {step:.2} ms (fastest {fastest:.2}): {:.1} tokens/s", 1e3 * batch as f64 / step);
    let (step, fastest) = median_and_least((0..new.min(50)).map(|_| ms(products(&model, batch))).collect());
    println!("products alone {step:.2} ms (fastest {fastest:.2}): {:.1} GB/s", bytes as f64 / fastest / 1e6);
    println!("weights {:.0} MB, peak memory {:.0} MB", bytes as f64 / 1e6, peak_mb());
}

fn ms(time: Duration) -> f64 {
    1e3 * time.as_secs_f64()
}

/// Other work on the machine only ever adds: the least is the nearest to what the code costs.
fn median_and_least(mut times: Vec<f64>) -> (f64, f64) {
    times.sort_by(f64::total_cmp);
    (times.get(times.len() / 2).copied().unwrap_or(0.), times.first().copied().unwrap_or(0.))
}

/// Time of a product of `rows` rows with every matrix of the model, which is all that decoding cannot do without.
fn products(model: &Model, rows: usize) -> Duration {
    let start = Instant::now();
    for param in model.params() {
        if let &[n, k] = param.dims() {
            let (x, mut y) = (vec![1f32; rows * k], vec![0f32; rows * n]);
            let product = |w: MatRef| {
                linear(&mut y, &x, w, None, [rows, n, k], Precision::F32);
                Ok(())
            };
            param.weight().with(product).unwrap();
        }
    }
    start.elapsed()
}
