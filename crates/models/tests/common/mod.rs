//! What tests of adapters share: a model's answers with an adapter, and how far answers are apart.

use std::path::Path;
use std::sync::Arc;

use phyla_models::adapter::Adapter;
use phyla_models::{Input, Model};

/// The logits for an input, flat.
pub fn logits_of(model: &Model, input: &Input) -> Vec<f32> {
    let found = phyla_ops::no_grad(|| model.run(input, false)).unwrap();
    let (_, logits) = found.into_iter().find(|(name, _)| name == "logits").unwrap();
    logits.data().flatten_all().unwrap().to_vec1().unwrap()
}

/// The largest difference over the largest number.
pub fn apart(a: &[f32], b: &[f32]) -> f64 {
    assert_eq!(a.len(), b.len());
    let top = b.iter().fold(0f64, |top, &x| top.max(x.abs() as f64));
    a.iter().zip(b).map(|(&a, &b)| (a - b).abs() as f64).fold(0., f64::max) / top
}

/// Puts a folder's adapter to use.
pub fn with(model: &Model, folder: &Path) -> Arc<Adapter> {
    let adapter = Arc::new(Adapter::load(model, folder).unwrap());
    model.use_adapters(std::slice::from_ref(&adapter));
    adapter
}
