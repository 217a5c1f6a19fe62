//! T5's relative biases.

use std::sync::Arc;

use phyla_ops::{AttentionArgs, Param, RelativeBuckets, Tensor, Visibility, attention, relative_bias};

use crate::check::{Case, data, param, wide};

const fn rule(buckets: usize, max_distance: usize, both_ways: bool) -> RelativeBuckets {
    RelativeBuckets { buckets, max_distance, both_ways }
}

/// The smallest distance of every bucket but the first, by torch 2.15 and transformers 5.23's T5 on all distances up to
/// 100,000: these decide the bucket of every one, since buckets never fall as distances grow.
const GOLDEN: &[(RelativeBuckets, &[u64])] = &[
    (rule(32, 128, true), &[1, 2, 3, 4, 5, 6, 7, 8, 12, 16, 23, 32, 46, 64, 91]),
    (
        rule(32, 128, false),
        &[
            1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 19, 21, 24, 27, 31, 35, 40, 46, 52, 59, 67, 77, 87,
            99, 113,
        ],
    ),
    (rule(8, 20, true), &[1, 2, 7]),
    (
        rule(33, 127, false),
        &[
            1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 19, 21, 24, 27, 30, 34, 38, 43, 48, 55, 62, 70, 79,
            89, 100, 113,
        ],
    ),
    (rule(7, 100, false), &[1, 2, 3, 8, 18, 42]),
    (rule(6, 2, true), &[1, 2]),
    (
        rule(64, 1000, true),
        &[
            1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 21, 27, 35, 45, 59, 76, 98, 127, 164, 213, 275, 356,
            461, 597, 773,
        ],
    ),
    (rule(13, 77, false), &[1, 2, 3, 4, 5, 6, 9, 13, 18, 26, 38, 54]),
    (
        rule(32, 20_000, false),
        &[
            1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 25, 40, 61, 96, 149, 232, 363, 566, 884, 1380, 2154,
            3364, 5253, 8202, 12808,
        ],
    ),
    (rule(10, 1_000_000, true), &[1, 2, 159, 12600]),
];

#[test]
fn buckets_begin_where_torch_lets_them_begin() {
    for (rule, starts) in GOLDEN {
        for distance in 0..=100_000u64 {
            let want = starts.iter().take_while(|&&start| start <= distance).count();
            let behind = if rule.both_ways && distance > 0 { rule.buckets / 2 + want } else { 0 };
            let got = [-(distance as i64), distance as i64].map(|distance| rule.bucket(distance));
            assert_eq!(got, [want, behind], "{rule:?} at {distance}");
        }
    }
}

#[test]
fn values_and_gradients_at_odd_sizes_and_offsets() {
    for (rule, heads) in [(rule(32, 128, true), 3), (rule(7, 100, false), 1), (rule(6, 2, true), 6)] {
        let places: &[(&[u32], usize, usize)] = &[
            (&[0], 1, 1),
            (&[0], 17, 17),
            (&[0], 65, 130),
            (&[12], 1, 13),
            (&[5, 5], 3, 9),
            (&[0, 200, 31], 2, 202),
            (&[7, 0], 5, 12),
        ];
        for &(past, queries, keys) in places {
            let run = |_: &[Tensor], p: &[Arc<Param>]| relative_bias(&p[0], rule, past, queries, keys);
            let name = format!("{rule:?}, {heads} heads, {queries} after {past:?} of {keys}");
            Case::new(name, vec![], vec![param(2, &[rule.buckets, heads])], &run).check();
        }
    }
}

#[test]
fn equal_offsets_share_one_bias_and_a_cached_query_has_its_row_of_the_whole() {
    let (rule, table) = (rule(32, 128, false), param(2, &[32, 3]));
    let bias = |past: &[u32], queries: usize, keys: usize| relative_bias(&table, rule, past, queries, keys).unwrap();
    let whole = bias(&[0], 40, 40);
    assert_eq!(bias(&[4, 4, 4], 2, 6).dims(), [1, 3, 2, 6]);
    let rows = bias(&[38, 11], 2, 40);
    assert_eq!(rows.dims(), [2, 3, 2, 40]);
    for (b, past) in [38, 11].into_iter().enumerate() {
        let want = whole.data().narrow(2, past, 2).unwrap();
        assert_eq!(wide(&rows.data().narrow(0, b, 1).unwrap()), wide(&want));
    }
}

#[test]
fn a_table_learns_through_attention() {
    let (queries, rule) = (9, rule(8, 20, true));
    let visible = Visibility { ranges: Arc::new(vec![(0, 9); 2 * queries]), key_valid: None };
    let run = |x: &[Tensor], p: &[Arc<Param>]| {
        let bias = relative_bias(&p[0], rule, &[0], queries, queries)?;
        attention(&x[0], &x[1], &x[2], &visible, &AttentionArgs { bias: Some(bias), ..AttentionArgs::scaled(0.3) })
    };
    let inputs = (1..4).map(|seed| data(seed, &[2, queries, 4, 5])).collect();
    let mut case = Case::new("attention under a learned bias", inputs, vec![param(4, &[8, 4])], &run);
    // The plain table's gradient comes from f32: its differences would have to as well.
    case.numeric = false;
    case.check();
}

#[test]
fn what_cannot_be_is_an_error() {
    let table = param(2, &[32, 3]);
    let message =
        |rule, past: &[u32], queries, keys| relative_bias(&table, rule, past, queries, keys).unwrap_err().to_string();
    let good = rule(32, 128, true);
    assert!(message(good, &[3], 2, 4).contains("2 queries after [3] do not fit 4 keys"));
    assert!(message(good, &[], 2, 4).contains("do not fit"));
    assert!(message(good, &[u32::MAX, 0], 2, 4).contains("do not fit"));
    assert!(message(rule(31, 128, true), &[0], 2, 4).contains("expected [31 buckets, heads], found [32, 3]"));
    for bad in [rule(2, 128, true), rule(1, 128, false), rule(0, 128, true), rule(32, 8, true), rule(32, 16, false)] {
        assert!(message(bad, &[0], 2, 4).contains("relative buckets: expected"));
    }
}
