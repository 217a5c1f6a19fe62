//! What is green, and what the detector finds, against PyTorch and transformers.
#![expect(clippy::unwrap_used, reason = "tests")]

use std::path::Path;

use serde::Deserialize;
use serde_json::{Map, Value};

use super::*;
use crate::GenerationConfig;

#[derive(Deserialize)]
struct Golden {
    /// Seed, size, first numbers.
    permutations: Vec<(u64, usize, Vec<u32>)>,
    texts: Vec<Text>,
}

#[derive(Deserialize)]
struct Text {
    settings: Map<String, Value>,
    vocab: usize,
    ids: Vec<u32>,
    once: bool,
    scored: usize,
    green: usize,
    z: f64,
    p: f64,
    watermarked: bool,
}

fn golden() -> Golden {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/golden/watermark.json");
    serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap()
}

#[test]
fn permutations_are_pytorchs() {
    for (seed, size, first) in golden().permutations {
        assert_eq!(Mersenne::new(seed as u32).permutation(size, first.len()), first, "{seed} {size}");
    }
}

#[test]
fn the_detector_finds_what_the_reference_finds() {
    let texts = golden().texts;
    assert!(texts.len() >= 30);
    for (number, text) in texts.iter().enumerate() {
        let config = GenerationConfig::from_map(&text.settings).unwrap().0.watermarking_config.unwrap();
        let detector = WatermarkDetector::new(config, text.vocab).unwrap().after(Some(1)).counting_once(text.once);
        let found = detector.detect(&text.ids, 3.).unwrap();
        assert_eq!(
            (found.scored, found.green, found.watermarked),
            (text.scored, text.green, text.watermarked),
            "{number}"
        );
        assert!((found.z_score - text.z).abs() <= 1e-12 * text.z.abs().max(1.), "{number}: {}", found.z_score);
        assert!((found.p_value - text.p).abs() <= 1e-12 * text.p, "{number}: {} for {}", found.p_value, text.p);
    }
}

#[test]
fn what_cannot_be_judged_is_an_error() {
    let detector = WatermarkDetector::new(WatermarkingConfig::default(), 10).unwrap().after(Some(1));
    let error = |ids: &[u32]| detector.detect(ids, 3.).unwrap_err().to_string();
    assert!(error(&[]).contains("0 ids"));
    assert!(error(&[1, 2]).contains("1 ids"));
    assert!(error(&[2, 3, 10]).contains("10 is outside the vocabulary of 10"));
    assert_eq!(detector.detect(&[2, 3], 3.).unwrap().scored, 1);
    for wrong in [
        WatermarkingConfig { greenlist_ratio: 0., ..WatermarkingConfig::default() },
        WatermarkingConfig { greenlist_ratio: f64::NAN, ..WatermarkingConfig::default() },
        WatermarkingConfig { bias: f32::INFINITY, ..WatermarkingConfig::default() },
        WatermarkingConfig { context_width: 0, ..WatermarkingConfig::default() },
    ] {
        assert!(WatermarkDetector::new(wrong, 10).is_err());
    }
}
