//! Batches as the data crate makes them, with positions from 0 and with token types, given to models that count or type
//! their tokens otherwise.
#![expect(clippy::unwrap_used, reason = "tests")]

use candle_core::Device;
use phyla_data::batch::{Batch, IGNORE};
use phyla_models::{Model, fresh};
use phyla_train::objective::{Counts, Mode};
use phyla_train::recipe::{Lm, Objective};
use serde_json::json;

fn model(config: serde_json::Value) -> Model {
    fresh(config.as_object().unwrap(), 3, &Device::Cpu).unwrap()
}

fn loss(model: &Model, batch: &Batch) -> f64 {
    let objective = Objective::Lm(Lm::default());
    objective.losses(model, batch, Counts::of(batch), &Mode::default()).unwrap().total().unwrap().0
}

/// Two rows, one filled up with token 1.
fn batch() -> Batch {
    Batch {
        ids: vec![0, 7, 8, 4, 9, 2, 0, 6, 4, 2, 1, 1],
        targets: [[IGNORE; 3].as_slice(), &[5, IGNORE, IGNORE, IGNORE, IGNORE, 11, IGNORE, IGNORE, IGNORE]].concat(),
        positions: [0, 1, 2, 3, 4, 5, 0, 1, 2, 3, 0, 1].to_vec(),
        lengths: vec![6, 4],
        batch: 2,
        time: 6,
        tokens: 2,
        ..Batch::default()
    }
}

#[test]
fn robertas_positions_begin_behind_the_padding() {
    let model = model(json!({
        "model_type": "roberta", "architectures": ["RobertaForMaskedLM"], "vocab_size": 20, "hidden_size": 8,
        "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16, "max_position_embeddings": 12,
        "pad_token_id": 1, "type_vocab_size": 1
    }));
    // Without positions in the batch the model counts for itself, as transformers does.
    let counted = loss(&model, &Batch { positions: vec![], ..batch() });
    assert_eq!(loss(&model, &batch()), counted);
    let shifted = Batch { positions: batch().positions.iter().map(|position| position + 1).collect(), ..batch() };
    assert_ne!(loss(&model, &shifted), counted);
}

#[test]
fn types_are_dropped_where_a_model_has_none() {
    let model = model(json!({
        "model_type": "distilbert", "architectures": ["DistilBertForMaskedLM"], "vocab_size": 20, "dim": 8,
        "hidden_dim": 16, "n_layers": 1, "n_heads": 2, "max_position_embeddings": 12
    }));
    let typed = Batch { token_types: Some(vec![1; 12]), ..batch() };
    assert_eq!(loss(&model, &typed), loss(&model, &batch()));
}
