//! The least that a step must do (operations of products, bytes from memory) and how long that takes at the limit.

use std::collections::BTreeMap;

use phyla_kernels::roofline::Roofline;
use phyla_models::{Arch, Model};
use phyla_nn::{CacheSpec, Kept, Reads, RelativeSpec, SublayerSpec};
use phyla_ops::{Param, Precision};

/// What a step must do, and nothing that it could leave out.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Work {
    /// Multiplications and additions.
    pub operations: f64,
    /// Bytes from main memory; 0 where they are not counted.
    pub bytes: f64,
    /// How exactly the products take their factors.
    pub precision: Precision,
    /// What the type of their weights is called.
    pub stored: Option<&'static str>,
}

impl Work {
    /// A forward pass over `rows` rows of `time` tokens, the head for all of them or only for each row's last one.
    pub fn forward(model: &Model, rows: usize, time: usize, every_logit: bool) -> Self {
        let products = products(model, rows * time);
        let tokens = (rows * time) as f64;
        let heads = if every_logit { tokens } else { rows as f64 };
        let each = 2. * (products.body * tokens + products.head * heads + products.pooled * rows as f64);
        // Of an encoder every token sees all.
        let past = |at: usize| if model.arch.main().causal { at } else { time.saturating_sub(1) };
        let scores = rows as f64 * (0..time).map(|at| attention(&model.arch, past(at))).sum::<f64>();
        let (precision, stored) = kind(model);
        Self { operations: each + scores + distances(&model.arch, time), bytes: 0., precision, stored }
    }

    /// Forward and backward: a product each for the result and for both gradients.
    pub fn training(model: &Model, rows: usize, time: usize) -> Self {
        let forward = Self::forward(model, rows, time, true);
        Self { operations: 3. * forward.operations, ..forward }
    }

    /// One token more in each of `rows` rows that hold `past` tokens: all weights once (of experts those that are
    /// chosen), and each row's cache, kept as told or as exactly as attention multiplies.
    pub fn decoding(model: &Model, rows: usize, past: usize, kept: Option<Kept>) -> Self {
        let products = products(model, rows);
        let operations = 2. * (products.body + products.head) + attention(&model.arch, past);
        let (precision, stored) = kind(model);
        let kept = kept.unwrap_or(CacheSpec::exactly(precision));
        let cache = seen(&model.arch, past) * kept.bytes(kept.block()) as f64 / kept.block() as f64;
        Self { operations: rows as f64 * operations, bytes: products.bytes + rows as f64 * cache, precision, stored }
    }

    /// Operations a second, in 10⁹, of this work's type. f16 is widened first: its products are f32's.
    fn peak(&self, limits: &Roofline) -> f64 {
        match self.precision {
            Precision::F32 => limits.f32_gflops,
            Precision::Bf16 => limits.bf16_gflops,
            Precision::Int8 => limits.int8_gops,
        }
    }

    /// Seconds at the limit, and whether reading is what takes them.
    pub fn seconds(&self, limits: &Roofline) -> (f64, bool) {
        let (compute, read) = (self.operations * 1e-9 / self.peak(limits), self.bytes * 1e-9 / limits.read_gbps);
        (compute.max(read), read > compute)
    }
}

/// Weights that products read.
#[derive(Default)]
struct Products {
    /// For each token, of the layers; of experts those that it is sent to.
    body: f64,
    /// For each token that is answered: of heads that read tokens.
    head: f64,
    /// For each row: of heads that read one of its tokens.
    pooled: f64,
    /// Bytes of all weights that the tokens read, vectors too.
    bytes: f64,
}

/// What `tokens` tokens read together.
fn products(model: &Model, tokens: usize) -> Products {
    let mut products = Products::default();
    for param in model.params() {
        let (path, count) = (param.path(), param.count() as f64);
        let tied = model.arch.tied() && path == model.arch.table();
        // Of a table a token reads one row; those of distances are counted by themselves.
        const TABLES: [&str; 4] = ["tokens.weight", "positions.weight", "token_types.weight", "relative.weight"];
        if !tied && TABLES.iter().any(|table| path.ends_with(table)) {
            continue;
        }
        let (of_token, of_all) = experts(&model.arch, path, tokens);
        products.bytes += of_all * param.compute().bytes() as f64;
        let head = model.arch.heads.iter().find(|head| path.split('.').next() == Some(head.name));
        match (param.dims().len(), head) {
            (0 | 1, _) => {}
            _ if tied => products.head += count,
            (_, Some(head)) if head.reads == Reads::Tokens => products.head += count,
            (_, Some(_)) => products.pooled += count,
            _ if path.starts_with("pooler.") => products.pooled += count,
            // Maps of distances, not of tokens.
            _ if path.ends_with(".pos_k.weight") || path.ends_with(".pos_q.weight") => {}
            _ => products.body += of_token * count,
        }
    }
    products
}

/// The share of a weight that one token reads, and the share that so many tokens read together: 1 but for experts,
/// which for want of anything better are taken to be chosen evenly.
fn experts(arch: &Arch, path: &str, tokens: usize) -> (f64, f64) {
    let parts: Vec<&str> = path.split('.').collect();
    let [tower, "layers", layer, name, "experts", ..] = parts.as_slice() else { return (1., 1.) };
    let tower = arch.towers().into_iter().find(|(known, _)| known == tower);
    let layer = tower.zip(layer.parse().ok()).and_then(|((_, tower), at): (_, usize)| tower.layers.get(at));
    let spec = layer.and_then(|layer| layer.sublayers.iter().find(|spec| spec.name() == *name));
    let Some(SublayerSpec::Moe(moe)) = spec else { return (1., 1.) };
    let chosen = (moe.routing.top_k as f64 / moe.experts.max(1) as f64).min(1.);
    (chosen, 1. - (1. - chosen).powf(tokens as f64))
}

/// Operations of mapping the vectors of distances, once in a pass of `time` tokens (DeBERTa).
fn distances(arch: &Arch, time: usize) -> f64 {
    let Some(RelativeSpec::Table { distances, .. }) = arch.main().relative else { return 0. };
    let vectors = distances.rows().min(2 * time) as f64;
    let sublayers = arch.main().layers.iter().flat_map(|layer| &layer.sublayers);
    let maps = sublayers.map(|sublayer| match sublayer {
        SublayerSpec::Disentangled(spec) => {
            (usize::from(spec.pos_k.is_some()) + usize::from(spec.pos_q.is_some())) * spec.hidden * spec.hidden
        }
        _ => 0,
    });
    2. * vectors * maps.sum::<usize>() as f64
}

/// The matrix that stands for those of the products: of the type in which most numbers of the layers are (of all
/// matrices where no layer has any), the largest.
pub fn weights(model: &Model) -> Option<&Param> {
    let matrices = || model.params().iter().filter(|param| param.dims().len() > 1);
    let key = |param: &Param| (param.path().contains(".layers."), param.compute().stored());
    let mut numbers = BTreeMap::new();
    for param in matrices() {
        *numbers.entry(key(param)).or_insert(0) += param.count();
    }
    matrices().max_by_key(|param| (key(param).0, numbers.get(&key(param)), param.count())).map(AsRef::as_ref)
}

fn kind(model: &Model) -> (Precision, Option<&'static str>) {
    let weight = weights(model).map(|param| (param.precision(), param.compute().stored()));
    weight.map_or((Precision::F32, None), |(precision, stored)| (precision, Some(stored)))
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
    use candle_core::{DType, Device};
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
        let step = Work::decoding(&model, 1, 4, None);
        assert_eq!(step.bytes, 4. * (2 * BODY + 80 + 40) as f64 + 4. * 2. * 5. * 8.);
    }

    fn fresh(config: serde_json::Value) -> Model {
        phyla_models::fresh_as(config.as_object().unwrap(), 0, DType::F32, &Device::Cpu).unwrap()
    }

    #[test]
    fn an_encoders_tokens_see_all_and_its_pooled_heads_one() {
        let model = fresh(json!({
            "model_type": "bert", "vocab_size": 10, "hidden_size": 8, "intermediate_size": 16, "num_hidden_layers": 2,
            "num_attention_heads": 2, "max_position_embeddings": 12, "num_labels": 3,
            "architectures": ["BertForSequenceClassification"],
        }));
        let body = 2 * (4 * 64 + 2 * 128);
        // Three tokens in each of two rows: each sees three keys of 8 numbers, twice, in 2 layers.
        let scores = 2. * 2. * 3. * 3. * 4. * 8.;
        // Pooler 64 and classifier 24, once a row.
        let expected = 2. * (6 * body + 2 * (64 + 24)) as f64 + scores;
        assert_eq!(Work::forward(&model, 2, 3, true).operations, expected);
    }

    #[test]
    fn of_experts_those_count_that_are_chosen() {
        let model = fresh(json!({
            "model_type": "mixtral", "vocab_size": 10, "hidden_size": 8, "intermediate_size": 16, "num_hidden_layers": 1,
            "num_attention_heads": 2, "num_key_value_heads": 2, "num_local_experts": 4, "num_experts_per_tok": 2,
            "tie_word_embeddings": false, "sliding_window": null,
        }));
        let (attention, router, expert) = (4 * 64, 4 * 8, 3 * 128);
        let step = Work::decoding(&model, 1, 0, None);
        assert_eq!(step.operations, 2. * (attention + router + 2 * expert + 80) as f64 + 4. * 8.);
        assert_eq!(step.bytes, 4. * (attention + router + 2 * expert + 80 + 3 * 8) as f64 + 4. * 2. * 8.);
        // Two tokens leave an expert out with a chance of a half each.
        let both = Work::decoding(&model, 2, 0, None).bytes - step.bytes;
        assert_eq!(both, 4. * expert as f64 + 4. * 2. * 8.);
    }

    #[test]
    fn the_slower_limit_counts() {
        let limits = Roofline { f32_gflops: 100., bf16_gflops: 200., int8_gops: 400., read_gbps: 10. };
        let work = Work { operations: 1e9, bytes: 1e9, ..Work::default() };
        assert_eq!(work.seconds(&limits), (0.1, true));
        let work = Work { bytes: 0., ..work };
        assert_eq!(work.seconds(&limits), (0.01, false));
        assert_eq!(Work { precision: Precision::Bf16, ..work }.seconds(&limits), (0.005, false));
        assert_eq!(Work { precision: Precision::Int8, ..work }.seconds(&limits), (0.0025, false));
    }
}
