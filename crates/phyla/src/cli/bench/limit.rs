//! The least that a step must do (operations of products, bytes from memory) and how long that takes at the limit.

use candle_core::DType;
use phyla_kernels::roofline::Roofline;
use phyla_models::{Arch, Model};
use phyla_nn::SublayerSpec;

/// What a step must do, and nothing that it could leave out.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Work {
    /// Multiplications and additions.
    pub operations: f64,
    /// Bytes from main memory; 0 where they are not counted.
    pub bytes: f64,
    /// Type of the products' weights.
    pub dtype: Option<DType>,
}

impl Work {
    /// A forward pass over `rows` rows of `time` tokens, the head for all of them or only for each row's last one.
    pub fn forward(model: &Model, rows: usize, time: usize, every_logit: bool) -> Self {
        let products = products(model);
        let tokens = (rows * time) as f64;
        let heads = if every_logit { tokens } else { rows as f64 };
        let body = 2. * products.body as f64 * tokens + 2. * products.head as f64 * heads;
        let scores = rows as f64 * (0..time).map(|past| attention(&model.arch, past)).sum::<f64>();
        Self { operations: body + scores, bytes: 0., dtype: dtype(model) }
    }

    /// Forward and backward: a product each for the result and for both gradients.
    pub fn training(model: &Model, rows: usize, time: usize) -> Self {
        let forward = Self::forward(model, rows, time, true);
        Self { operations: 3. * forward.operations, ..forward }
    }

    /// One token more in each of `rows` rows that hold `past` tokens: all weights once, and each row's cache.
    pub fn decoding(model: &Model, rows: usize, past: usize) -> Self {
        let products = products(model);
        let operations = 2. * (products.body + products.head) as f64 + attention(&model.arch, past);
        let cache = seen(&model.arch, past) * size_of::<f32>() as f64;
        Self {
            operations: rows as f64 * operations,
            bytes: products.bytes as f64 + rows as f64 * cache,
            dtype: dtype(model),
        }
    }

    /// Operations a second, in 10⁹, of this work's type. f16 is widened first: its products are f32's.
    fn peak(&self, limits: &Roofline) -> f64 {
        if self.dtype == Some(DType::BF16) { limits.bf16_gflops } else { limits.f32_gflops }
    }

    /// Seconds at the limit, and whether reading is what takes them.
    pub fn seconds(&self, limits: &Roofline) -> (f64, bool) {
        let (compute, read) = (self.operations * 1e-9 / self.peak(limits), self.bytes * 1e-9 / limits.read_gbps);
        (compute.max(read), read > compute)
    }
}

/// Weights that products read.
struct Products {
    /// Of the layers.
    body: usize,
    /// Of the head.
    head: usize,
    /// Bytes of all weights that every token reads, vectors too.
    bytes: usize,
}

fn products(model: &Model) -> Products {
    let mut products = Products { body: 0, head: 0, bytes: 0 };
    for param in model.params() {
        let tied = model.arch.tied() && param.path() == model.arch.table();
        // Of a table a token reads one row.
        if !tied && (param.path().ends_with("tokens.weight") || param.path().ends_with("positions.weight")) {
            continue;
        }
        products.bytes += param.count() * param.compute().dtype().size_in_bytes();
        match param.dims().len() {
            0 | 1 => {}
            _ if tied || param.path() == "head.weight" => products.head += param.count(),
            _ => products.body += param.count(),
        }
    }
    products
}

/// The type in which most of the products' weights are.
fn dtype(model: &Model) -> Option<DType> {
    let largest = model.params().iter().filter(|param| param.dims().len() > 1).max_by_key(|param| param.count());
    largest.map(|param| param.compute().dtype())
}

/// For each sublayer of the model, how many keys a token after `past` others sees in it.
fn attentions(arch: &Arch, past: usize) -> impl Iterator<Item = (&SublayerSpec, f64)> {
    let sublayers = arch.main().layers.iter().flat_map(|layer| &layer.sublayers);
    sublayers.map(move |sublayer| (sublayer, sublayer.keys_seen(past) as f64))
}

/// Operations of `q kᵀ` and of its product with `v`, for a token after `past` others.
fn attention(arch: &Arch, past: usize) -> f64 {
    attentions(arch, past).map(|(spec, keys)| keys * spec.score_operations() as f64).sum()
}

/// Numbers of the cache that a token after `past` others reads.
fn seen(arch: &Arch, past: usize) -> f64 {
    attentions(arch, past).map(|(spec, keys)| keys * spec.cache_numbers() as f64).sum()
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]

    use super::*;
    use candle_core::Device;
    use serde_json::json;

    /// Any family whose head is its own: 2 layers of width 8, 2 heads of 4, 1 of keys, 16 inside, 10 tokens.
    fn model(dtype: DType) -> Model {
        let config = phyla_models::registry::FAMILIES.iter().find_map(|family| {
            let config = json!({
                "model_type": family.model_type, "vocab_size": 10, "hidden_size": 8, "intermediate_size": 16,
                "num_hidden_layers": 2, "num_attention_heads": 2, "num_key_value_heads": 1, "head_dim": 4,
                "tie_word_embeddings": false,
            });
            let config = config.as_object()?.clone();
            let model = phyla_models::fresh_as(&config, 0, dtype, &Device::Cpu).ok()?;
            (model.arch.main().embed.positions == phyla_nn::Positions::None
                && model.count() == 2 * BODY + 2 * 80 + 5 * 8)
                .then_some(model)
        });
        config.unwrap()
    }

    /// q 64, k and v 32 each, o 64; gate, up and down 128 each.
    const BODY: usize = 64 + 32 + 32 + 64 + 3 * 128;

    #[test]
    fn work_is_counted_as_by_hand() {
        let model = model(DType::F32);
        // Two tokens in each of three rows: keys 1 + 2, of 8 numbers, twice, in 2 layers.
        let scores = 3. * 2. * 4. * 8. * (1. + 2.);
        let forward = Work::forward(&model, 3, 2, true);
        assert_eq!(forward.operations, 2. * 6. * (2 * BODY + 80) as f64 + scores);
        let last = Work::forward(&model, 3, 2, false);
        assert_eq!(last.operations, 2. * (6 * 2 * BODY + 3 * 80) as f64 + scores);
        assert_eq!(Work::training(&model, 3, 2).operations, 3. * forward.operations);
        let step = Work::decoding(&model, 1, 4);
        assert_eq!(step.bytes, 4. * (2 * BODY + 80 + 40) as f64 + 4. * 2. * 5. * 8.);
    }

    #[test]
    fn the_slower_limit_counts() {
        let limits = Roofline { f32_gflops: 100., bf16_gflops: 200., int8_gops: 400., read_gbps: 10. };
        let work = Work { operations: 1e9, bytes: 1e9, dtype: Some(DType::F32) };
        assert_eq!(work.seconds(&limits), (0.1, true));
        let work = Work { bytes: 0., ..work };
        assert_eq!(work.seconds(&limits), (0.01, false));
        assert_eq!(Work { dtype: Some(DType::BF16), ..work }.seconds(&limits), (0.005, false));
    }
}
