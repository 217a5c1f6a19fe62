//! Translation speed: `cargo bench -p phyla-generate --bench translate -- run [BEAMS] [SENTENCES] [NEW_TOKENS]`.
//!
//! A small fresh Marian (3 + 3 layers of 256, 8,000 ids), whose beams hardly ever end before the limit of tokens. Printed
//! beside the time is that of the decoder's products alone, which nothing can do without.
#![expect(clippy::unwrap_used, reason = "a program for developers")]

use std::time::Instant;

use candle_core::Device;
use phyla_generate::{GenerationConfig, Generator};
use phyla_kernels::product::{MatRef, Precision, linear};
use phyla_kernels::rng::Rng;
use phyla_models::fresh;

const HIDDEN: usize = 256;
const VOCAB: usize = 8000;

fn main() {
    let args: Vec<String> = std::env::args().skip(1).filter(|arg| !arg.starts_with("--")).collect();
    if args.first().is_none_or(|arg| arg != "run") {
        println!("translate: nothing asked for, nothing measured");
        return;
    }
    let number = |i: usize, default| args.get(i).map_or(default, |arg| arg.parse().unwrap());
    let (beams, sentences, new) = (number(1, 4usize), number(2, 1000usize), number(3, 20usize));
    let config = serde_json::json!({
        "model_type": "marian", "vocab_size": VOCAB, "decoder_vocab_size": VOCAB, "d_model": HIDDEN,
        "encoder_layers": 3, "decoder_layers": 3, "encoder_attention_heads": 4, "decoder_attention_heads": 4,
        "encoder_ffn_dim": 1024, "decoder_ffn_dim": 1024, "max_position_embeddings": 512, "scale_embedding": true,
        "activation_function": "swish", "pad_token_id": 7999, "eos_token_id": 0, "decoder_start_token_id": 7999,
        "forced_eos_token_id": 0, "init_std": 0.02, "tie_word_embeddings": true, "is_encoder_decoder": true,
        "architectures": ["MarianMTModel"]
    });
    let model = fresh(config.as_object().unwrap(), 1, &Device::Cpu).unwrap();
    let mut rng = Rng::new(5);
    let prompts: Vec<Vec<u32>> =
        (0..sentences).map(|_| (0..6 + rng.below(25)).map(|_| rng.below(VOCAB as u64 - 1) as u32).collect()).collect();
    let config = GenerationConfig {
        num_beams: Some(beams),
        max_new_tokens: Some(new),
        eos_token_id: Some(vec![0]),
        ..Default::default()
    };
    let start = Instant::now();
    let generation = Generator::new(&model, None).generate(&prompts, &config, 0, &mut |_| {}).unwrap();
    let (seconds, timings) = (start.elapsed().as_secs_f64(), generation.timings);
    let ids: usize = generation.sequences.iter().map(|sequence| sequence.ids.len()).sum();
    println!(
        "{sentences} sentences, {beams} beams: {seconds:.2} s, {:.0} tokens/s; encoding and first ids {:.2} s, {} steps {:.2} s",
        ids as f64 / seconds,
        timings.prefill.as_secs_f64(),
        timings.steps,
        timings.decode.as_secs_f64()
    );
    let rows = 32 / beams * beams;
    let passes = (ids - generation.sequences.len()) * beams / rows;
    println!("products of {passes} passes of {rows} rows alone: {:.2} s", passes as f64 * products(rows));
}

/// Seconds for the products of one pass through the decoder.
fn products(rows: usize) -> f64 {
    let square = (HIDDEN, HIDDEN);
    let layer = [square, square, square, square, square, square, (1024, HIDDEN), (HIDDEN, 1024)];
    let shapes: Vec<(usize, usize)> = layer.iter().cycle().take(24).copied().chain([(VOCAB, HIDDEN)]).collect();
    let weights: Vec<Vec<f32>> = shapes.iter().map(|(n, k)| vec![0.25; n * k]).collect();
    let (x, mut y) = (vec![0.5f32; rows * 1024], vec![0f32; rows * VOCAB]);
    let mut best = f64::MAX;
    for _ in 0..30 {
        let start = Instant::now();
        for (&(n, k), w) in shapes.iter().zip(&weights) {
            linear(&mut y[..rows * n], &x[..rows * k], MatRef::F32(w), None, [rows, n, k], Precision::F32);
        }
        best = best.min(start.elapsed().as_secs_f64());
    }
    best
}
