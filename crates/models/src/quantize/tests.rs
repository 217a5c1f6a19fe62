//! Which kind each matrix gets, and what becomes of those that do not fit.
#![expect(clippy::unwrap_used, reason = "tests")]

use super::*;

#[test]
fn names_are_read_back_and_others_are_refused() {
    for mix in Mix::ALL {
        assert_eq!(mix.name().parse(), Ok(Quantize::Gguf(mix)));
        assert_eq!(mix.name().to_uppercase().parse(), Ok(Quantize::Gguf(mix)));
        assert_eq!(Quantize::Gguf(mix).to_string(), mix.name());
    }
    assert_eq!("INT8".parse(), Ok(Quantize::Int8));
    assert_eq!("q4_k".parse(), Ok(Quantize::Gguf(Mix::Q4_K_M)));
    let message = "q4_k_n".parse::<Quantize>().unwrap_err();
    assert!(message.contains("iq4_xs") && message.contains("did you mean q4_k_"), "{message}");
}

#[test]
fn linear_maps_and_the_token_table_are_quantised_and_nothing_else() {
    let role = |path: &str| Role::of(path);
    for path in ["decoder.layers.3.attn.v.weight", "decoder.layers.3.cross.v.weight"] {
        assert_eq!(role(path), Some(Role::Values(3)));
    }
    for path in ["decoder.layers.12.mlp.down.weight", "decoder.layers.12.mlp.experts.7.down.weight"] {
        assert_eq!(role(path), Some(Role::Down(12)));
    }
    assert_eq!(role("decoder.layers.1.mlp.shared.gate.weight"), Some(Role::Other));
    assert_eq!(role("decoder.layers.2.attn.kv_up.weight"), Some(Role::Values(2)));
    assert_eq!(role("decoder.tokens.weight"), Some(Role::Tokens));
    assert_eq!(role("pooler.dense.weight"), Some(Role::Other));
    for path in [
        "decoder.layers.0.attn.q.bias",
        "decoder.layers.0.attn_norm.weight",
        "decoder.layers.0.mlp.router.weight",
        "decoder.layers.0.mlp.shared_gate.weight",
        "encoder.positions.weight",
        "encoder.token_types.weight",
        "encoder.relative.weight",
        "encoder.layers.0.attn.relative.weight",
        "classifier.weight",
        "score.weight",
        "head.transform.norm.weight",
    ] {
        assert_eq!(role(path), None, "{path}");
    }
}

#[test]
fn rows_that_no_block_divides_fall_back_and_are_counted() {
    let mut tally = Tally::default();
    assert_eq!(tally.choose(Quant::Q4_K, 512), Some(Quant::Q4_K));
    assert_eq!(tally.choose(Quant::Q4_K, 96), Some(Quant::Q5_0));
    assert_eq!(tally.choose(Quant::Q6_K, 96), Some(Quant::Q8_0));
    assert_eq!(tally.choose(Quant::Q4_0, 48), None);
    assert_eq!(fitting(Quant::Q3_K, 96), Some(Quant::Q4_0));
    assert_eq!(fitting(Quant::IQ4_XS, 96), Some(Quant::IQ4_NL));
    let how = Quantize::Gguf(Mix::Q4_K_M);
    assert_eq!(
        tally.sentence(&how, "stay as they are").unwrap(),
        "q4_k_m: of 4 matrices 2 have rows that are no multiple of 256 and are in blocks of 32: 1 in q5_0, 1 in q8_0; \
         1 have rows that are no multiple of 32 and stay as they are"
    );
    let mut tally = Tally::default();
    tally.choose(Quant::Q8_0, 64);
    assert_eq!(tally.sentence(&how, ""), None);
    tally.choose(Quant::Q8_0, 63);
    tally.again();
    let said = tally.sentence(&how, "are f16").unwrap();
    assert!(
        said.starts_with("q4_k_m: of 2 matrices 1 have rows that are no multiple of 32 and are f16; 1 were"),
        "{said}"
    );
}

/// The layers of a model of 32 that get more bits, as llama.cpp's rule has them.
#[test]
fn the_middle_mixtures_give_more_bits_to_half_of_the_layers() {
    let facts = Facts { layers: 32, group: 4, ..Facts::default() };
    let better: Vec<usize> =
        (0..32).filter(|&layer| Mix::Q4_K_M.kind(Role::Values(layer), &facts) == Quant::Q6_K).collect();
    assert_eq!(better, [0, 1, 2, 3, 6, 9, 12, 15, 18, 21, 24, 27, 28, 29, 30, 31]);
    let same = |layer: &usize| Mix::Q5_K_M.kind(Role::Down(*layer), &facts) == Quant::Q6_K;
    assert!(better.iter().all(same));
}

/// What llama.cpp's own tool makes of files with one matrix of queries, keys and values, and of eight experts.
#[test]
fn matrices_that_hold_values_are_as_values() {
    let fused = Facts { layers: 4, group: 1, fused: true, ..Facts::default() };
    let kinds = |mix: Mix| [0, 1, 2, 3].map(|layer| mix.kind(Role::Queries(layer), &fused));
    use Quant::*;
    assert_eq!(kinds(Mix::Q4_K_M), [Q4_K, Q4_K, Q6_K, Q6_K]);
    assert_eq!(kinds(Mix::Q3_K_M), [Q5_K, Q5_K, Q4_K, Q4_K]);
    assert_eq!((kinds(Mix::Q2_K)[0], kinds(Mix::Q4_K_S)[3]), (Q3_K, Q5_K));
    let experts = Facts { layers: 3, group: 1, experts: 8, ..Facts::default() };
    for mix in Mix::ALL {
        assert_eq!((mix.kind(Role::Values(1), &experts), mix.kind(Role::Keys(1), &experts)), (Q8_0, Q8_0), "{mix:?}");
    }
    assert_eq!(Mix::Q4_K_M.kind(Role::Output, &experts), Q5_K);
}

#[test]
fn a_number_that_is_not_finite_is_named() {
    let mut rows = vec![0.5f32; 3 * 32];
    rows[2 * 32 + 5] = f32::NAN;
    let mut written = 0;
    let read = |range: Range<usize>| Ok(rows[range.start * 32..range.end * 32].to_vec());
    let error = in_blocks("a.weight", &[3, 32], Quant::Q8_0, 32, read, |piece| {
        written += piece.len();
        Ok(())
    });
    let message = error.unwrap_err().to_string();
    assert!(message.starts_with("a.weight: row 2, column 5 is NaN"), "{message}");
    assert_eq!(written, 2 * Quant::Q8_0.bytes(), "what came before it");
}
