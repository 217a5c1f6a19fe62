//! Attention under every mask and layout.

use std::sync::Arc;

use candle_core::Result;
use phyla_kernels::rng::Rng;
use phyla_ops::{AttentionArgs, Data, Dropout, Param, Tensor, Visibility, attention};

use crate::check::{Case, apart, data, wide};

#[derive(Clone, Copy, Debug)]
struct Sizes {
    batch: usize,
    queries: usize,
    keys: usize,
    heads: usize,
    kv_heads: usize,
    dim: usize,
    v_dim: usize,
}

const fn sizes([batch, queries, keys, heads, kv_heads, dim, v_dim]: [usize; 7]) -> Sizes {
    Sizes { batch, queries, keys, heads, kv_heads, dim, v_dim }
}

const SIZES: &[Sizes] = &[
    sizes([1, 1, 1, 1, 1, 1, 1]),
    sizes([2, 3, 3, 2, 2, 8, 8]),
    sizes([2, 1, 17, 6, 2, 3, 5]),
    sizes([1, 17, 17, 3, 1, 17, 17]),
    sizes([1, 65, 65, 4, 2, 33, 7]),
    sizes([2, 3, 65, 5, 5, 9, 16]),
];

fn inputs(s: Sizes) -> Vec<Data> {
    vec![
        data(1, &[s.batch, s.queries, s.heads, s.dim]),
        data(2, &[s.batch, s.keys, s.kv_heads, s.dim]),
        data(3, &[s.batch, s.keys, s.kv_heads, s.v_dim]),
    ]
}

fn ranges(s: Sizes, range: impl Fn(usize) -> (usize, usize)) -> Visibility {
    let one = (0..s.batch * s.queries).map(|row| range(row % s.queries)).map(|(a, b)| (a as u32, b as u32)).collect();
    Visibility { ranges: Arc::new(one), key_valid: None }
}

/// Named masks; query `i` stands at key `keys - queries + i`, as in a cache.
fn masks(s: Sizes) -> Vec<(&'static str, Visibility)> {
    let past = s.keys - s.queries;
    let holes = (0..s.batch * s.keys).map(|i| (i % 3 != 1) as u8).collect();
    vec![
        ("everything", ranges(s, |_| (0, s.keys))),
        ("causal", ranges(s, |i| (0, past + i + 1))),
        ("window of 3", ranges(s, |i| ((past + i).saturating_sub(2), past + i + 1))),
        (
            "two documents",
            ranges(s, |i| if past + i < s.keys / 2 { (0, past + i + 1) } else { (s.keys / 2, past + i + 1) }),
        ),
        ("every other query sees nothing", ranges(s, |i| if i % 2 == 0 { (2, 2) } else { (0, past + i + 1) })),
        ("holes", Visibility { key_valid: Some(Arc::new(holes)), ..ranges(s, |i| (0, past + i + 1)) }),
        (
            "holes only",
            Visibility { key_valid: Some(Arc::new(vec![0; s.batch * s.keys])), ..ranges(s, |_| (0, s.keys)) },
        ),
    ]
}

fn args(s: Sizes) -> AttentionArgs {
    AttentionArgs::scaled(1. / (s.dim as f32).sqrt())
}

#[test]
fn every_mask_on_grouped_heads_of_odd_sizes() {
    for &s in SIZES {
        for (name, visible) in masks(s) {
            let run = |x: &[Tensor], _: &[Arc<Param>]| attention(&x[0], &x[1], &x[2], &visible, &args(s));
            Case::new(format!("{name}, {s:?}"), inputs(s), vec![], &run).check();
        }
    }
}

#[test]
fn capped_scores() {
    for &s in SIZES {
        let args = AttentionArgs { softcap: Some(1.5), ..args(s) };
        let visible = ranges(s, |i| (0, s.keys - s.queries + i + 1));
        let run = |x: &[Tensor], _: &[Arc<Param>]| attention(&x[0], &x[1], &x[2], &visible, &args);
        Case::new(format!("softcap, {s:?}"), inputs(s), vec![], &run).check();
    }
}

/// `attention` of `x = [q, k, v, bias]`.
fn biased(x: &[Tensor], visible: &Visibility, args: &AttentionArgs) -> Result<Tensor> {
    attention(&x[0], &x[1], &x[2], visible, &AttentionArgs { bias: Some(x[3].clone()), ..args.clone() })
}

fn bias(s: Sizes, batch: usize) -> Data {
    data(4, &[batch, s.heads, s.queries, s.keys])
}

#[test]
fn biases_of_one_sequence_or_all_learn_under_every_mask() {
    for &s in SIZES {
        for (name, visible) in masks(s) {
            for (batch, softcap) in [(1, None), (s.batch, Some(1.5))] {
                let args = AttentionArgs { softcap, ..args(s) };
                let run = |x: &[Tensor], _: &[Arc<Param>]| biased(x, &visible, &args);
                let mut inputs = inputs(s);
                inputs.push(bias(s, batch));
                let name = format!("bias for {batch}, {name}, {s:?}");
                Case::new(name, inputs, vec![], &run).check();
            }
        }
    }
}

#[test]
fn a_fixed_bias_gets_no_gradient_and_a_learning_one_may_be_alone() {
    let s = SIZES[2];
    let visible = ranges(s, |_| (0, s.keys));
    let plain = inputs(s);
    // As scores: a bias of -1e30 hides what a range could hide.
    let hidden: Vec<f32> = (0..s.heads * s.keys).map(|i| if i % s.keys < 4 { -1e30 } else { 0. }).collect();
    let hidden = Data::from_vec(hidden, (1, s.heads, 1, s.keys), &candle_core::Device::Cpu).unwrap();
    let q = Tensor::leaf(plain[0].clone());
    let x = [q.clone(), plain[1].clone().into(), plain[2].clone().into(), hidden.into()];
    let y = biased(&x, &visible, &args(s)).unwrap();
    let want = attention(&x[0], &x[1], &x[2], &ranges(s, |_| (4, s.keys)), &args(s)).unwrap();
    assert!(apart(&wide(y.data()), &wide(want.data())) < 1e-6);
    y.backward_with(data(9, y.dims())).unwrap();
    assert!(q.grad().is_some() && x[3].grad().is_none());
    let learns = Tensor::leaf(bias(s, 2));
    let x = [plain[0].clone().into(), x[1].clone(), x[2].clone(), learns.clone()];
    let y = biased(&x, &visible, &args(s)).unwrap();
    y.backward_with(data(9, y.dims())).unwrap();
    // A softmax's gradient sums to zero over the keys.
    let grad = learns.grad().unwrap();
    assert!(wide(&grad.sum(3).unwrap()).iter().all(|sum| sum.abs() < 1e-5));
    assert!(wide(&grad).iter().any(|dx| dx.abs() > 1e-2));
}

#[test]
fn dropped_weights_under_every_mask() {
    for &s in SIZES {
        for (name, visible) in masks(s) {
            for (p, offset) in [(0.3, 0), (0.9, 11)] {
                let dropout = Dropout { p, rng: Rng::new(5), offset };
                let args = AttentionArgs { dropout: Some(dropout), ..args(s) };
                let run = |x: &[Tensor], _: &[Arc<Param>]| biased(x, &visible, &args);
                let mut inputs = inputs(s);
                inputs.push(bias(s, 1));
                let name = format!("dropout {p}, {name}, {s:?}");
                let mut case = Case::new(name, inputs, vec![], &run);
                // Terms some ten times the inputs, for 1 / (1 - p), cancel in the gradient of a softmax: where a query
                // sees one key nothing but their rounding is left.
                case.floor = 0.1;
                case.tolerance = 5e-5;
                case.check();
            }
        }
    }
}

/// The first `keys` of a cache with room for more, as candle's `narrow` gives them: no copy, a longer batch stride.
fn filled(cache: &Tensor, keys: usize) -> Result<Tensor> {
    let (dims, room) = (cache.dims().to_vec(), cache.dims()[1]);
    Ok(Tensor::record(cache.data().narrow(1, 0, keys)?, &[cache], false, move |grad| {
        Ok(vec![Some(if room == keys { grad } else { grad.pad_with_zeros(1, 0, dims[1] - keys)? })])
    }))
}

#[test]
fn keys_and_values_that_lie_in_a_longer_cache() {
    for s in [sizes([3, 1, 17, 6, 2, 3, 5]), sizes([2, 5, 9, 3, 3, 17, 4])] {
        let room = s.keys + 6;
        let caches = vec![
            data(1, &[s.batch, s.queries, s.heads, s.dim]),
            data(2, &[s.batch, room, s.kv_heads, s.dim]),
            data(3, &[s.batch, room, s.kv_heads, s.v_dim]),
        ];
        let visible = ranges(s, |i| (0, s.keys - s.queries + i + 1));
        let run = |x: &[Tensor], _: &[Arc<Param>]| {
            let (k, v) = (filled(&x[1], s.keys)?, filled(&x[2], s.keys)?);
            assert!(!k.data().is_contiguous());
            attention(&x[0], &k, &v, &visible, &args(s))
        };
        Case::new(format!("cache, {s:?}"), caches, vec![], &run).check();
    }
}

#[test]
fn layouts_that_no_kernel_reads_are_copied() {
    let s = sizes([2, 5, 5, 3, 3, 4, 4]);
    let visible = ranges(s, |_| (0, s.keys));
    let [q, k, v] = [1, 2, 3].map(|seed| data(seed, &[s.batch, s.queries, s.heads, s.dim]));
    let plain = attention(&q.clone().into(), &k.clone().into(), &v.clone().into(), &visible, &args(s)).unwrap();
    // The same numbers behind strides of [b, h, t, d].
    let turned =
        |x: &Data| -> Tensor { x.transpose(1, 2).unwrap().contiguous().unwrap().transpose(1, 2).unwrap().into() };
    let other = attention(&turned(&q), &turned(&k), &turned(&v), &visible, &args(s)).unwrap();
    assert_eq!(wide(plain.data()), wide(other.data()));
    // One key, broadcast over time: a stride of 0.
    let one = k.narrow(1, 0, 1).unwrap();
    let (spread, copied) = (one.broadcast_as(k.dims()).unwrap(), one.repeat((1, s.keys, 1, 1)).unwrap());
    let run =
        |k: Data| wide(attention(&q.clone().into(), &k.into(), &v.clone().into(), &visible, &args(s)).unwrap().data());
    assert_eq!(run(spread), run(copied));
}

#[test]
fn shapes_and_masks_that_do_not_fit_are_errors() {
    let s = sizes([2, 5, 7, 4, 2, 3, 3]);
    let good = ranges(s, |_| (0, s.keys));
    let fails = |change: &dyn Fn(&mut Vec<Data>), visible: &Visibility| {
        let mut x = inputs(s);
        change(&mut x);
        let x: Vec<Tensor> = x.into_iter().map(Tensor::from).collect();
        attention(&x[0], &x[1], &x[2], visible, &args(s)).is_err()
    };
    assert!(!fails(&|_| {}, &good));
    assert!(fails(&|x| x[0] = data(1, &[2, 5, 3, 3]), &good), "3 heads over 2");
    assert!(fails(&|x| x[1] = data(1, &[2, 7, 2, 4]), &good), "keys of another size");
    assert!(fails(&|x| x[2] = data(1, &[2, 6, 2, 3]), &good), "fewer values than keys");
    assert!(fails(&|x| x[2] = data(1, &[2, 7, 6]), &good), "three dimensions");
    assert!(fails(&|_| {}, &ranges(s, |_| (0, s.keys + 1))), "a range beyond the keys");
    assert!(fails(&|_| {}, &Visibility { ranges: Arc::new(vec![(0, 1)]), key_valid: None }), "too few ranges");
    assert!(fails(&|_| {}, &Visibility { key_valid: Some(Arc::new(vec![1; 3])), ..good.clone() }), "too few flags");
    for dims in [&[3, 4, 5, 7][..], &[1, 2, 5, 7], &[1, 4, 1, 7], &[2, 4, 5, 1], &[4, 5, 7]] {
        let mut x: Vec<Tensor> = inputs(s).into_iter().map(Tensor::from).collect();
        x.push(data(4, dims).into());
        let message = biased(&x, &good, &args(s)).unwrap_err().to_string();
        assert!(message.contains("[1 or 2, 4, 5, 7]"), "{message}");
    }
}
