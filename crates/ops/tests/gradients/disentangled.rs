//! DeBERTa's disentangled scores.

use std::sync::Arc;

use candle_core::Device;
use phyla_ops::{AttentionArgs, Data, Param, RelativeIndex, Tensor, Visibility, attention, disentangled_bias};

use crate::check::{Case, data, wide};

/// Which of the two tables are given.
const TERMS: [[bool; 2]; 3] = [[true, true], [true, false], [false, true]];

/// `[batch, queries, keys, heads, dim]`.
fn inputs([batch, queries, keys, heads, dim]: [usize; 5], span: usize) -> Vec<Data> {
    vec![
        data(1, &[batch, queries, heads, dim]),
        data(2, &[batch, keys, heads, dim]),
        data(3, &[2 * span, heads, dim]),
        data(4, &[2 * span, heads, dim]),
    ]
}

fn bias(x: &[Tensor], terms: [bool; 2], index: &RelativeIndex) -> candle_core::Result<Tensor> {
    disentangled_bias(&x[0], &x[1], terms[0].then(|| &x[2]), terms[1].then(|| &x[3]), index, 0.4)
}

#[test]
fn values_and_gradients_at_odd_sizes() {
    for sizes in [[1, 1, 1, 1, 1], [2, 17, 17, 3, 5], [1, 65, 65, 2, 16], [2, 3, 70, 1, 7], [3, 9, 4, 5, 8]] {
        let [_, queries, keys, ..] = sizes;
        let indices = [
            RelativeIndex::linear(4, queries, keys),
            RelativeIndex::linear(80, queries, keys),
            RelativeIndex::log_buckets(6, 20, queries, keys),
        ];
        for index in indices {
            let index = index.unwrap();
            for terms in TERMS {
                // Only what takes part: a case wants a gradient for each of its inputs.
                let takes = [terms[0], terms[1], terms[0], terms[1]];
                let all = inputs(sizes, index.span());
                let some = all.iter().zip(takes).filter(|(_, takes)| *takes).map(|(x, _)| x.clone()).collect();
                let run = |x: &[Tensor], _: &[Arc<Param>]| {
                    let mut given = x.iter();
                    let x: Vec<Tensor> = all
                        .iter()
                        .zip(takes)
                        .map(|(fixed, takes)| match takes {
                            true => given.next().unwrap().clone(),
                            false => fixed.to_dtype(x[0].data().dtype()).unwrap().into(),
                        })
                        .collect();
                    bias(&x, terms, &index)
                };
                Case::new(format!("{sizes:?}, {terms:?}, span {}", index.span()), some, vec![], &run).check();
            }
        }
    }
}

#[test]
fn all_learn_through_attention_with_padding_and_holes() {
    let (batch, time) = (2, 9);
    let ranges = (0..batch * time).map(|row| if row < time { (0, 6) } else { (2, 9) }).collect();
    let valid = (0..batch * time).map(|i| u8::from(i % 4 != 3)).collect();
    let visible = Visibility { ranges: Arc::new(ranges), key_valid: Some(Arc::new(valid)) };
    let index = RelativeIndex::log_buckets(6, 20, time, time).unwrap();
    let run = |x: &[Tensor], _: &[Arc<Param>]| {
        let bias = bias(x, [true, true], &index)?;
        attention(&x[0], &x[1], &x[4], &visible, &AttentionArgs { bias: Some(bias), ..AttentionArgs::scaled(0.4) })
    };
    let mut inputs = inputs([batch, time, time, 2, 5], 6);
    inputs.push(data(5, &[batch, time, 2, 5]));
    let mut case = Case::new("disentangled attention", inputs, vec![], &run);
    // Scores of some tens go through an exponential, which makes a relative error of an absolute one.
    case.tolerance = 1e-4;
    case.check();
}

#[test]
fn gradients_flow_to_what_is_tracked_alone() {
    let index = RelativeIndex::linear(4, 5, 5).unwrap();
    for tracked in 0..4 {
        let x: Vec<Tensor> = inputs([2, 5, 5, 3, 4], 4)
            .into_iter()
            .enumerate()
            .map(|(i, x)| if i == tracked { Tensor::leaf(x) } else { x.into() })
            .collect();
        let y = bias(&x, [true, true], &index).unwrap();
        y.backward_with(data(9, y.dims())).unwrap();
        assert!(x.iter().enumerate().all(|(i, x)| x.grad().is_some() == (i == tracked)));
    }
}

/// The first distance of each bucket above half of all, by torch 2.15 and transformers 5.23 on all distances up to 100,000
/// (`make_log_bucket_position`); those up to half are buckets of their own.
const GOLDEN: &[(usize, usize, &[usize])] = &[
    (
        256,
        512,
        &[
            129, 130, 131, 133, 134, 136, 137, 139, 140, 142, 143, 145, 146, 148, 150, 151, 153, 155, 156, 158, 160,
            161, 163, 165, 167, 169, 170, 172, 174, 176, 178, 180, 182, 184, 186, 188, 190, 192, 194, 196, 198, 201,
            203, 205, 207, 210, 212, 214, 216, 219, 221, 224, 226, 229, 231, 234, 236, 239, 241, 244, 247, 249, 252,
            255, 258, 260, 263, 266, 269, 272, 275, 278, 281, 284, 287, 290, 294, 297, 300, 303, 307, 310, 313, 317,
            320, 324, 327, 331, 335, 338, 342, 346, 349, 353, 357, 361, 365, 369, 373, 377, 381, 385, 390, 394, 398,
            403, 407, 411, 416, 420, 425, 430, 434, 439, 444, 449, 454, 459, 464, 469, 474, 479, 484, 490, 495, 500,
            506, 512,
        ],
    ),
    (8, 20, &[5, 7, 12, 20]),
    (9, 33, &[5, 9, 17, 33, 65]),
    (7, 100, &[4, 18, 100, 569]),
    (32, 20_000, &[17, 26, 42, 67, 108, 173, 278, 446, 718, 1155, 1857, 2987, 4805, 7729, 12433, 20000]),
    (33, 50, &[17, 18, 19, 21, 22, 24, 26, 27, 30, 32, 34, 37, 40, 43, 46, 50, 53]),
];

#[test]
fn buckets_begin_where_torch_lets_them_begin() {
    const FAR: usize = 100_000;
    for &(buckets, max_distance, starts) in GOLDEN {
        let index = RelativeIndex::log_buckets(buckets, max_distance, FAR + 1, FAR + 1).unwrap();
        for distance in 0..=FAR {
            let beyond = starts.iter().take_while(|&&start| start <= distance).count();
            let bucket = if beyond == 0 { distance } else { buckets / 2 + beyond };
            let want = [(buckets + bucket).min(2 * buckets - 1), buckets.saturating_sub(bucket)];
            assert_eq!([index.row(distance, 0), index.row(0, distance)], want, "{buckets} {max_distance} {distance}");
        }
    }
    let linear = RelativeIndex::linear(3, 9, 9).unwrap();
    assert_eq!((0..9).map(|j| linear.row(4, j)).collect::<Vec<_>>(), [5, 5, 5, 4, 3, 2, 1, 0, 0]);
}

/// The numbers given to the original, exact in f32.
fn numbers(seed: usize, dims: &[usize]) -> Data {
    let count = dims.iter().product();
    let values =
        (0..count).map(|i: usize| ((i * 37 + 11 * seed + i / 7 * 5) % 64) as f32 / 32. - 1.).collect::<Vec<_>>();
    Data::from_vec(values, dims, &Device::Cpu).unwrap()
}

#[test]
fn biases_are_those_of_the_original() {
    // A weighted sum of all scores and every seventh of them, by transformers 5.23: `disentangled_att_bias` of DeBERTa,
    // `disentangled_attention_bias` of DeBERTa-v2, on the tables below in place of their projections.
    let golden = [
        (RelativeIndex::linear(4, 7, 7), [true, true], -1.485677, [-0.35026, -0.019857, 0.268229, 0.082357]),
        (RelativeIndex::linear(16, 7, 7), [true, true], 1.281331, [0.515299, 0.521159, -0.466797, -0.000977]),
        (RelativeIndex::linear(4, 7, 7), [true, false], -1.060165, [-0.267116, 0.293428, -0.083324, -0.263527]),
        (RelativeIndex::linear(16, 7, 7), [false, true], -0.115617, [0.269508, 0.350838, -0.22964, -0.324525]),
        (RelativeIndex::log_buckets(6, 20, 23, 23), [true, true], -8.386546, [-0.348307, 0.09082, 0.135742, 0.132161]),
        (
            RelativeIndex::log_buckets(6, 20, 23, 23),
            [true, false],
            -0.279512,
            [-0.305389, 0.215686, -0.101265, 0.269508],
        ),
        (
            RelativeIndex::log_buckets(6, 20, 23, 23),
            [false, true],
            -9.991867,
            [-0.121199, -0.104454, 0.267514, -0.107644],
        ),
    ];
    for (index, terms, sum, some) in golden {
        let index = index.unwrap();
        let (heads, dim, time) = (2, 3, if index.span() == 6 { 23 } else { 7 });
        let content = |seed| Tensor::from(numbers(seed, &[2, time, heads, dim]));
        let table = |seed| Tensor::from(numbers(seed, &[2 * index.span(), heads, dim]));
        let (pos_k, pos_q) = (terms[0].then(|| table(3)), terms[1].then(|| table(4)));
        let scale = ((dim * (1 + pos_k.iter().count() + pos_q.iter().count())) as f32).sqrt().recip();
        let y = disentangled_bias(&content(1), &content(2), pos_k.as_ref(), pos_q.as_ref(), &index, scale).unwrap();
        let y = wide(y.data());
        let got: f64 = y.iter().zip(wide(&numbers(5, &[y.len()]))).map(|(y, w)| y * w).sum();
        // Two thousand terms of f32 at most, written with six digits.
        assert!((got - sum).abs() < 1e-4, "{terms:?}, span {}: {got} for {sum}", index.span());
        for (n, want) in some.into_iter().enumerate() {
            assert!((y[n * (y.len() / 7)] - want).abs() < 2e-6, "{terms:?}, span {}: score {n}", index.span());
        }
    }
}

#[test]
fn what_cannot_be_is_an_error() {
    let index = RelativeIndex::linear(4, 5, 7).unwrap();
    let message = |change: &dyn Fn(&mut Vec<Data>), terms| {
        let mut x = inputs([2, 5, 7, 3, 4], 4);
        change(&mut x);
        let x: Vec<Tensor> = x.into_iter().map(Tensor::from).collect();
        bias(&x, terms, &index).map(|_| ()).map_err(|error| error.to_string())
    };
    assert!(message(&|_| {}, [true, true]).is_ok());
    let error = |change: &dyn Fn(&mut Vec<Data>), terms| message(change, terms).unwrap_err();
    assert!(error(&|x| x[0] = data(1, &[2, 5, 12]), [true, true]).contains("expect q [batch, queries, heads, dim]"));
    assert!(error(&|x| x[0] = data(1, &[2, 6, 3, 4]), [true, true]).contains("positions of 5 queries and 7 keys"));
    assert!(error(&|x| x[1] = data(1, &[2, 7, 1, 4]), [true, true]).contains("do not fit"));
    assert!(
        error(&|x| x[2] = data(1, &[9, 3, 4]), [true, false]).contains("expected pos_k [8, 3, 4], found [9, 3, 4]")
    );
    assert!(error(&|x| x[3] = data(1, &[8, 12]), [true, true]).contains("expected pos_q [8, 3, 4]"));
    assert!(error(&|_| {}, [false, false]).contains("found neither"));
    for bad in [
        RelativeIndex::linear(0, 5, 7),
        RelativeIndex::log_buckets(1, 20, 5, 7),
        RelativeIndex::log_buckets(8, 5, 5, 7),
    ] {
        assert!(bad.unwrap_err().to_string().contains("relative positions: expected"));
    }
}
