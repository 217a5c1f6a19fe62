//! The book-keeping of rows: lengths of the cache, repetition, removal, grouping.
#![expect(clippy::unwrap_used, reason = "tests")]

use serde_json::json;

use super::*;

fn model() -> Model {
    let config = json!({
        "model_type": "llama", "vocab_size": 40, "hidden_size": 16, "intermediate_size": 24,
        "num_hidden_layers": 1, "num_attention_heads": 2, "max_position_embeddings": 64
    });
    phyla_models::fresh(config.as_object().unwrap(), 1, &Device::Cpu).unwrap()
}

#[test]
fn the_cache_holds_what_each_row_has_read() {
    let model = model();
    phyla_ops::no_grad(|| {
        let mut batch = Batch::new(&model, 3, CacheSpec::default());
        for (row, length) in [(0, 5), (1, 1), (2, CHUNK + 3)] {
            let logits = batch.prefill(row, &vec![7; length], || false).unwrap().unwrap();
            assert_eq!(logits.dims(), [40]);
        }
        assert_eq!(batch.cache.lengths(), [5, 1, CHUNK + 3]);
        batch.repeat(2, false).unwrap();
        assert_eq!(batch.cache.lengths(), [5, 5, 1, 1, CHUNK + 3, CHUNK + 3]);
        let (sequences, logits) = batch.step(2..4, |sequence| sequence as u32).unwrap();
        assert_eq!((sequences, logits.dims()), (vec![2, 3], &[80][..]));
        assert_eq!(batch.cache.lengths(), [5, 5, 2, 2, CHUNK + 3, CHUNK + 3]);
        // One of six waits, emptied; two of six are dropped.
        batch.retain(|sequence| sequence != 4).unwrap();
        assert_eq!(batch.cache.lengths(), [5, 5, 2, 2, 0, CHUNK + 3]);
        batch.retain(|sequence| sequence != 4 && sequence != 0).unwrap();
        assert_eq!(batch.cache.lengths(), [5, 2, 2, CHUNK + 3]);
        assert_eq!(batch.step(0..4, |_| 0).unwrap().0, [1, 2, 3, 5]);
    });
}

#[test]
fn groups_are_even_and_within_the_limit() {
    let model = model();
    let limit = model.invariant_rows();
    for rows in [1, 2, limit, limit + 1, 3 * limit + 5] {
        let groups = Batch::new(&model, rows, CacheSpec::default()).groups();
        assert_eq!(groups.len(), rows.div_ceil(limit));
        assert_eq!(groups.iter().cloned().flatten().collect::<Vec<_>>(), (0..rows).collect::<Vec<_>>());
        let sizes: Vec<usize> = groups.iter().map(Range::len).collect();
        assert!(sizes.iter().all(|&size| size <= limit && size + limit / 2 > sizes[0]), "{sizes:?}");
    }
    assert!(Batch::new(&model, 0, CacheSpec::default()).groups().is_empty());
    let starts = |rows, block, lasting| -> Vec<usize> {
        let mut batch = Batch::new(&model, rows, CacheSpec::default());
        batch.repeat(block, lasting).unwrap();
        let groups = batch.groups();
        assert!(groups.windows(2).all(|pair| pair[0].end == pair[1].start) && groups.iter().all(|g| g.len() <= limit));
        assert_eq!(groups.last().unwrap().end, rows * block);
        groups.iter().map(|group| group.start).collect()
    };
    // Whole blocks; a block too large is cut as it would be alone; rows that end by themselves pass by few.
    assert_eq!((limit, starts(9, 5, true), starts(9, 5, false)), (32, vec![0, 25], vec![0, 25]));
    assert_eq!((starts(1, 40, true), starts(3, 40, true)), (vec![0, 20], vec![0, 20, 40, 60, 80, 100]));
    assert_eq!(starts(2, 12, false), [0, 8, 16]);
}

/// Ids that are drawn hide small differences; bits do not.
#[test]
fn a_row_has_the_same_bits_alone_and_in_company() {
    let config = json!({
        "model_type": "llama", "vocab_size": 331, "hidden_size": 96, "intermediate_size": 200, "initializer_range": 0.2,
        "num_hidden_layers": 2, "num_attention_heads": 6, "num_key_value_heads": 2, "max_position_embeddings": 64
    });
    let model = phyla_models::fresh(config.as_object().unwrap(), 1, &Device::Cpu).unwrap();
    let prompt =
        |row: usize| -> Vec<u32> { (0..[3, 70, 1, 20][row % 4]).map(|t| (t * t + row as u32) % 331).collect() };
    let rows = model.invariant_rows() + 9;
    let bits = |logits: &Data| -> Vec<u32> { logits.to_vec1::<f32>().unwrap().iter().map(|x| x.to_bits()).collect() };
    phyla_ops::no_grad(|| {
        // All rows on two threads, each alone on one. (The first call makes the pool, which bounds later ones.)
        phyla_kernels::threads::set_threads(2);
        let mut together = Batch::new(&model, rows, CacheSpec::default());
        let first: Vec<_> =
            (0..rows).map(|row| together.prefill(row, &prompt(row), || false).unwrap().unwrap()).collect();
        let steps: Vec<Vec<u32>> = (0..3u32)
            .map(|step| {
                let groups = together.groups();
                groups
                    .into_iter()
                    .flat_map(|group| bits(&together.step(group, |row| row as u32 + step).unwrap().1))
                    .collect()
            })
            .collect();
        phyla_kernels::threads::set_threads(1);
        for row in [0, 1, 2, 3, rows - 1] {
            let mut alone = Batch::new(&model, 1, CacheSpec::default());
            // Not `assert_eq`: nobody wants to read both.
            assert!(bits(&alone.prefill(0, &prompt(row), || false).unwrap().unwrap()) == bits(&first[row]), "{row}");
            for (step, together) in steps.iter().enumerate() {
                let (_, logits) = alone.step(0..1, |_| (row + step) as u32).unwrap();
                assert!(bits(&logits) == together[row * 331..][..331], "row {row}, step {step}");
            }
        }
    });
}
