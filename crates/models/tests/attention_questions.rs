//! The questions that every reader of "Attention Is All You Need" asks, answered by numbers; `docs/handbook/transformer-2017.md`
//! tells what they mean.
#![expect(clippy::unwrap_used, reason = "tests")]

use std::collections::HashMap;
use std::sync::Arc;

use candle_core::Result;
use phyla_kernels::rng::Rng;
use phyla_nn::{Attention, AttentionSpec, Init, Mask, Memory, Pass, Scope, Source};
use phyla_ops::{Param, Tensor, Visibility, Weight, cpu};

/// Normal numbers with variance 1.
fn normal(seed: u64, count: usize) -> Vec<f32> {
    let mut numbers = vec![0f32; count];
    Rng::new(seed).fill_normal(&mut numbers, 0., 1.);
    numbers
}

fn dot(a: &[f32], b: &[f32]) -> f64 {
    a.iter().zip(b).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum()
}

fn softmax(scores: &[f64]) -> Vec<f64> {
    let most = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let powers: Vec<f64> = scores.iter().map(|score| (score - most).exp()).collect();
    let sum: f64 = powers.iter().sum();
    powers.iter().map(|power| power / sum).collect()
}

fn variance(numbers: &[f64]) -> f64 {
    let mean = numbers.iter().sum::<f64>() / numbers.len() as f64;
    numbers.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / numbers.len() as f64
}

/// Hands out matrices by path.
struct Given(HashMap<&'static str, Vec<f32>>);

impl Source for Given {
    fn param(&mut self, path: &str, shape: &[usize], _: Init) -> Result<Arc<Param>> {
        Ok(Arc::new(Param::new(path, Weight::Dense(cpu::tensor(self.0[path].clone(), shape)?))))
    }
}

const HIDDEN: usize = 12;
const HEADS: usize = 3;
const HEAD: usize = HIDDEN / HEADS;
const TIME: usize = 5;

/// Rows of head `head` of a matrix `[HEADS · HEAD, HIDDEN]`.
fn of_head(matrix: &[f32], head: usize) -> &[f32] {
    &matrix[head * HEAD * HIDDEN..][..HEAD * HIDDEN]
}

/// `x[rows, width] matrixᵀ`.
fn product(x: &[f32], matrix: &[f32], width: usize) -> Vec<f32> {
    let rows = x.chunks(width);
    rows.flat_map(|x| matrix.chunks(width).map(|m| dot(x, m) as f32).collect::<Vec<_>>()).collect()
}

/// Section 3.2.2 as it is written: a projection for each head, then attention in each, then all side by side.
fn heads_apart([q, k, v, o]: [&[f32]; 4], x: &[f32]) -> Vec<f32> {
    let mut side_by_side = vec![0f32; TIME * HIDDEN];
    for head in 0..HEADS {
        let [q, k, v] = [q, k, v].map(|matrix| product(x, of_head(matrix, head), HIDDEN)); // [TIME, HEAD]
        for (t, q) in q.chunks(HEAD).enumerate() {
            let scores: Vec<f64> = k.chunks(HEAD).map(|k| dot(q, k) / (HEAD as f64).sqrt()).collect();
            for (weight, v) in softmax(&scores).iter().zip(v.chunks(HEAD)) {
                for (i, v) in v.iter().enumerate() {
                    side_by_side[t * HIDDEN + head * HEAD + i] += (weight * f64::from(*v)) as f32;
                }
            }
        }
    }
    product(&side_by_side, o, HIDDEN)
}

#[test]
fn splitting_before_or_after_the_projection_is_the_same() {
    let matrices: Vec<Vec<f32>> = (1..=4)
        .map(|seed| normal(seed, HIDDEN * HIDDEN).iter().map(|x| x / (HIDDEN as f32).sqrt()).collect())
        .collect();
    let x = normal(5, TIME * HIDDEN);
    // Ours projects once, with the heads' matrices stacked, and cuts the result.
    let names = ["q.weight", "k.weight", "v.weight", "o.weight"];
    let mut given = Given(names.into_iter().zip(matrices.iter().cloned()).collect());
    let spec = AttentionSpec::grouped(HIDDEN, HEADS, HEADS, HEAD, 0.);
    let block = Attention::new(&spec, &mut Scope::root(&mut given)).unwrap();
    let mut pass = Pass::new(1, TIME, (0..TIME as u32).collect(), Mask::new(1, TIME, false, None, None));
    let input = Tensor::from(cpu::tensor(x.clone(), (1, TIME, HIDDEN)).unwrap());
    let once = block.forward(&input, &mut pass).unwrap();
    let once: Vec<f32> = once.data().flatten_all().unwrap().to_vec1().unwrap();
    let apart = heads_apart([&matrices[0], &matrices[1], &matrices[2], &matrices[3]], &x);
    for (once, apart) in once.iter().zip(&apart) {
        // Two orders of summation in f32, over a dozen terms of size 1.
        assert!((once - apart).abs() < 1e-5, "{once} and {apart}");
    }
}

/// Over pairs of q and k with `d` components of variance 1: the variance of their products.
fn variance_of_products(d: usize) -> f64 {
    const PAIRS: usize = 4000;
    let (q, k) = (normal(6, PAIRS * d), normal(7, PAIRS * d));
    let products: Vec<f64> = q.chunks(d).zip(k.chunks(d)).map(|(q, k)| dot(q, k)).collect();
    variance(&products)
}

/// Means over queries, each before 64 keys, whose scores are `scale · q·k`: of the largest weight, and of the size of the
/// gradient that reaches the scores from a random gradient of the weights.
fn softmax_of(d: usize, scale: f64) -> (f64, f64) {
    const KEYS: usize = 64;
    const QUERIES: usize = 200;
    let (queries, keys, above) = (normal(8, QUERIES * d), normal(9, KEYS * d), normal(10, KEYS));
    let (mut largest, mut gradient) = (0., 0.);
    for q in queries.chunks(d) {
        let scores: Vec<f64> = keys.chunks(d).map(|k| scale * dot(q, k)).collect();
        let weights = softmax(&scores);
        let mean: f64 = weights.iter().zip(&above).map(|(p, g)| p * f64::from(*g)).sum();
        let squares = weights.iter().zip(&above).map(|(p, g)| (p * (f64::from(*g) - mean)).powi(2));
        gradient += squares.sum::<f64>().sqrt() / QUERIES as f64;
        largest += weights.iter().copied().fold(0., f64::max) / QUERIES as f64;
    }
    (largest, gradient)
}

#[test]
fn dividing_by_the_root_of_d_keeps_the_softmax_trainable() {
    println!("   d   var(q·k)   largest weight: as is, scaled   gradient: as is, scaled");
    let mut plain_gradients = vec![];
    for d in [4, 16, 64, 256, 1024] {
        let measured = variance_of_products(d);
        let (plain, scaled) = (softmax_of(d, 1.), softmax_of(d, (d as f64).powf(-0.5)));
        println!("{d:>4} {measured:>10.1} {:>23.3} {:>7.3} {:>16.4} {:>7.4}", plain.0, scaled.0, plain.1, scaled.1);
        // The variance of a sample variance over 4000 pairs is about (2 + 6/d)/4000 of its square: 3 % one deviation at
        // d = 4; five of them are allowed.
        assert!((measured / d as f64 - 1.).abs() < 0.15, "variance {measured} at d = {d}");
        assert!(scaled.0 < 0.35, "scaled scores spread over keys at any d: {}", scaled.0);
        plain_gradients.push(plain.1);
    }
    let (most, gradient) = softmax_of(1024, 1.);
    let (_, scaled) = softmax_of(1024, 1. / 32.);
    assert!(most > 0.9, "unscaled scores leave one key: {most}");
    // What reaches the scores without the scale is a fraction of what does with it, and falls with d.
    assert!(gradient < 0.5 * scaled, "gradient {gradient} and {scaled}");
    assert!(plain_gradients[4] < 0.5 * plain_gradients[1], "{plain_gradients:?}");
}

/// The rank of a matrix, by elimination with pivots.
fn rank(mut rows: Vec<Vec<f64>>) -> usize {
    let mut rank = 0;
    for column in 0..rows[0].len() {
        let pivot = (rank..rows.len()).max_by(|&a, &b| rows[a][column].abs().total_cmp(&rows[b][column].abs()));
        // Entries here are of size 1, and elimination in f64 leaves some 1e-13 where there is nothing.
        let Some(pivot) = pivot.filter(|&row| rows[row][column].abs() > 1e-9) else { continue };
        rows.swap(rank, pivot);
        let top = rows[rank].clone();
        for row in &mut rows[rank + 1..] {
            let factor = row[column] / top[column];
            row.iter_mut().zip(&top).for_each(|(x, top)| *x -= factor * top);
        }
        rank += 1;
    }
    rank
}

#[test]
fn the_product_of_wq_and_wk_has_the_rank_of_a_head() {
    let (q, k) = (normal(11, HEAD * HIDDEN), normal(12, HEAD * HIDDEN)); // of one head, [HEAD, HIDDEN]
    let folded: Vec<Vec<f64>> = (0..HIDDEN)
        .map(|i| {
            (0..HIDDEN)
                .map(|j| (0..HEAD).map(|r| f64::from(q[r * HIDDEN + i]) * f64::from(k[r * HIDDEN + j])).sum())
                .collect()
        })
        .collect();
    // The folded matrix gives the same scores …
    let (x, y) = (normal(13, HIDDEN), normal(14, HIDDEN));
    let two_steps = dot(&product(&x, &q, HIDDEN), &product(&y, &k, HIDDEN));
    let one_step: f64 = folded
        .iter()
        .zip(&x)
        .map(|(row, x)| f64::from(*x) * row.iter().zip(&y).map(|(m, y)| m * f64::from(*y)).sum::<f64>())
        .sum();
    assert!((two_steps - one_step).abs() < 1e-4, "{two_steps} and {one_step}");
    // … and is no more than a head's size in rank, with more numbers: d_model² where two factors have 2 · d_model · d.
    assert_eq!(rank(folded), HEAD);
    const { assert!(HIDDEN * HIDDEN > 2 * HIDDEN * HEAD) };
    let base = (512 * 512, 2 * 512 * 64);
    assert_eq!(base, (262_144, 65_536), "the paper's base model: four times as many, for each of 8 heads");
    // A matrix that no two such factors make.
    let any =
        normal(15, HIDDEN * HIDDEN).chunks(HIDDEN).map(|row| row.iter().map(|&x| f64::from(x)).collect()).collect();
    assert_eq!(rank(any), HIDDEN);
}

/// One line for each query, `x` where it sees a key.
fn drawn(visible: &Visibility, keys: usize) -> Vec<String> {
    let sees = |&(start, end): &(u32, u32), key: usize| {
        (start as usize..end as usize).contains(&key) && visible.key_valid.as_ref().is_none_or(|valid| valid[key] != 0)
    };
    visible.ranges.iter().map(|range| (0..keys).map(|key| if sees(range, key) { 'x' } else { '.' }).collect()).collect()
}

#[test]
fn the_three_masks_of_an_encoder_decoder() {
    // A source of three tokens and one of padding; a target of three tokens.
    let source = [1, 1, 1, 0];
    // The encoder sees all of the source, in either direction, but no padding.
    let encoder = Mask::new(1, 4, false, Some(&source), None).window(None);
    assert_eq!(drawn(&encoder, 4), ["xxx.", "xxx.", "xxx.", "xxx."]);
    // The decoder sees what it has written up to each token, itself counted.
    let decoder = Mask::new(1, 3, true, None, None).window(None);
    assert_eq!(drawn(&decoder, 3), ["x..", "xx.", "xxx"]);
    // Between them there is no order: each target token sees the whole source, but no padding.
    let states = Tensor::from(cpu::tensor(vec![0f32; 4 * HIDDEN], (1, 4, HIDDEN)).unwrap());
    let cross = Memory::new(states, Some(source.to_vec())).visibility(0..1, 3);
    assert_eq!(drawn(&cross, 4), ["xxx.", "xxx.", "xxx."]);
}
