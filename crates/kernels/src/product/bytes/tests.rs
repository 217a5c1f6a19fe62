//! Products of bytes against plain loops over the same whole numbers: to the bit, on every path.

#![expect(clippy::unwrap_used, reason = "tests")]

use super::*;
use crate::product::{Precision, linear_on};
use crate::rng::Rng;

fn values(n: usize, seed: u64) -> Vec<f32> {
    let mut values = vec![0.0; n];
    Rng::new(seed).fill_normal(&mut values, 0.0, 1.0);
    values
}

/// A row's codes and its scale, by the definition.
fn rounded(row: &[f32]) -> (Vec<i32>, f32) {
    let largest = row.iter().fold(0f32, |most, x| if x.is_nan() || x.abs() > most { x.abs() } else { most });
    if row.iter().any(|x| !x.is_finite()) {
        return (vec![0; row.len()], f32::NAN);
    }
    if largest < 1e-36 {
        return (vec![0; row.len()], 0.0);
    }
    (row.iter().map(|x| (x * (127.0 / largest)).round_ties_even() as i32).collect(), largest / 127.0)
}

fn plain(x: &[f32], w: &[f32], bias: Option<&[f32]>, [m, n, k]: [usize; 3]) -> Vec<f32> {
    let rows = |a: &[f32], count: usize| (0..count).map(|i| rounded(&a[i * k..(i + 1) * k])).collect::<Vec<_>>();
    let (x, w) = (rows(x, m), rows(w, n));
    let mut y = vec![];
    for (x, sx) in &x {
        for (j, (w, sw)) in w.iter().enumerate() {
            let sum: i64 = x.iter().zip(w).map(|(x, w)| i64::from(x * w)).sum();
            y.push(i32::try_from(sum).unwrap() as f32 * (sx * sw) + bias.map_or(0.0, |bias| bias[j]));
        }
    }
    y
}

fn same_bits(got: &[f32], want: &[f32], what: &str) {
    let differ = got.iter().zip(want).position(|(a, b)| a.to_bits() != b.to_bits() && !(a.is_nan() && b.is_nan()));
    assert!(differ.is_none(), "{what}: at {differ:?} {:?} for {:?}", differ.map(|i| got[i]), differ.map(|i| want[i]));
}

fn check(x: &[f32], w: &[f32], bias: Option<&[f32]>, sizes: [usize; 3], what: &str) {
    let [m, n, k] = sizes;
    let matrix = ByteMatrix::quantize(MatRef::F32(w), n, k).unwrap();
    let want = plain(x, w, bias, sizes);
    for threads in [1, 2] {
        crate::threads::tests::with_threads(threads, || {
            for path in Path::all_available() {
                let mut y = vec![7.0; m * n];
                run_on(path, &mut y, &Product { m, x, w: matrix.view(), bias, act: None });
                same_bits(&y, &want, &format!("{what} {sizes:?} {path:?} {threads} threads"));
            }
        });
    }
}

#[test]
fn every_path_gives_the_bits_of_plain_loops() {
    let sizes = [
        [1, 1, 1],
        [1, 40, 64],
        [1, 129, 300],
        [2, 16, 63],
        [3, 17, 65],
        [7, 33, 128],
        [8, 50, 70],
        [9, 48, 192],
        [16, 16, 64],
        [17, 31, 66],
        [33, 65, 1],
        [40, 32, 384],
        [70, 100, 130],
        [530, 34, 70],
        [2100, 18, 9],
        [5, 3, 0],
        [0, 4, 4],
    ];
    for [m, n, k] in sizes {
        let (x, w, b) = (values(m * k, 1), values(n * k, 2), values(n, 3));
        check(&x, &w, None, [m, n, k], "without bias");
        check(&x, &w, Some(&b), [m, n, k], "with bias");
    }
}

#[test]
fn extreme_rows_follow_the_definition() {
    let [m, n, k] = [24, 20, 70];
    let (mut x, mut w) = (values(m * k, 1), values(n * k, 2));
    for (row, value) in [(0, 0.0), (1, f32::MAX), (2, -f32::MAX), (3, 1e-38), (4, f32::MIN_POSITIVE), (5, 1e-36)] {
        x[row * k..(row + 1) * k].fill(value);
        w[row * k..(row + 1) * k].fill(value);
    }
    (x[6 * k + 3], x[7 * k + 69], x[8 * k]) = (f32::NAN, f32::INFINITY, f32::NEG_INFINITY);
    (w[9 * k + 5], x[9 * k + 1]) = (f32::NAN, 1e30);
    // Half-way cases, and all codes at their ends.
    for (i, x) in x[10 * k..11 * k].iter_mut().enumerate() {
        *x = if i == 0 { 127.0 } else { i as f32 - 34.5 };
    }
    x[11 * k..12 * k].fill(-3.0);
    check(&x, &w, None, [m, n, k], "extremes");
    let matrix = ByteMatrix::quantize(MatRef::F32(&w), n, k).unwrap();
    let mut y = vec![0.0; m * n];
    linear_on(crate::isa::isa(), &mut y, &x, MatRef::Bytes(matrix.view()), None, [m, n, k], Precision::Int8);
    assert!(y[6 * n..9 * n].iter().all(|y| y.is_nan()) && y[9 * n + 9].is_nan());
    assert!(y[..n].iter().enumerate().all(|(j, y)| if j == 9 { y.is_nan() } else { *y == 0.0 }));
}

#[test]
fn the_largest_sums_do_not_overflow() {
    let k = MAX_DEPTH;
    let (x, w) = (vec![1.0; k], vec![-2.0; k]);
    check(&x, &w, None, [1, 1, k], "largest");
    assert!(ByteMatrix::quantize(MatRef::F32(&vec![0.0; k + 1]), 1, k + 1).is_none());
    assert!(ByteMatrix::quantize(MatRef::F32(&w), 1, k - 1).is_none());
}

#[test]
fn a_row_has_the_same_bits_alone_and_in_company_and_close_to_f32() {
    let [m, n, k] = [300, 100, 200];
    let (x, w) = (values(m * k, 1), values(n * k, 2));
    let matrix = ByteMatrix::quantize(MatRef::F32(&w), n, k).unwrap();
    let w8 = MatRef::Bytes(matrix.view());
    for isa in Isa::all_available() {
        let mut all = vec![0.0; m * n];
        linear_on(isa, &mut all, &x, w8, None, [m, n, k], Precision::Int8);
        for i in (0..m).step_by(37) {
            let mut alone = vec![0.0; n];
            linear_on(isa, &mut alone, &x[i * k..][..k], w8, None, [1, n, k], Precision::Int8);
            assert!(alone == all[i * n..][..n], "{isa:?} row {i}");
        }
        let mut exact = vec![0.0; m * n];
        linear_on(isa, &mut exact, &x, MatRef::F32(&w), None, [m, n, k], Precision::F32);
        let error: f32 = all.iter().zip(&exact).map(|(a, b)| (a - b).powi(2)).sum::<f32>() / (m * n) as f32;
        // A step is the largest of 200 normal numbers, about 2.8, over 127; uniform errors of either factor.
        let step = 2.8f32 / 127.0;
        let expected = 2.0 * k as f32 * step * step / 12.0;
        assert!((0.5..2.0).contains(&(error / expected)), "{isa:?}: {error} for {expected}");
    }
}

#[test]
fn elements_rows_and_activations_are_those_of_the_matrix() {
    let [m, n, k] = [40, 50, 70];
    let (x, w, b) = (values(m * k, 1), values(n * k, 2), values(n, 3));
    let matrix = ByteMatrix::quantize(MatRef::F32(&w), n, k).unwrap();
    let all = MatRef::Bytes(matrix.view());
    let part = all.slice(32 * k..n * k);
    assert_eq!(Some(all.bytes()), ByteMatrix::room(n, k));
    assert_eq!(ByteMatrix::room(usize::MAX, 1), None);
    assert_eq!((all.len(), part.len(), part.get(5)), (n * k, 18 * k, all.get(32 * k + 5)));
    for j in 0..n {
        let (codes, scale) = rounded(&w[j * k..(j + 1) * k]);
        for (l, code) in codes.into_iter().enumerate() {
            assert_eq!(all.get(j * k + l), code as f32 * scale);
        }
    }
    let mut y = [vec![0.0; m * n], vec![0.0; m * n]];
    let mut part_y = vec![0.0; m * 18];
    linear_on(crate::isa::isa(), &mut y[0], &x, all, Some(&b), [m, n, k], Precision::Int8);
    linear_on(crate::isa::isa(), &mut part_y, &x, part, Some(&b[32..]), [m, 18, k], Precision::Int8);
    for i in 0..m {
        assert_eq!(part_y[i * 18..(i + 1) * 18], y[0][i * n + 32..(i + 1) * n]);
    }
    for act in [Act::Gelu, Act::Relu] {
        for path in Path::all_available() {
            let mut acted = vec![0.0; m * n];
            let p = Product { m, x: &x, w: matrix.view(), bias: Some(&b), act: Some(act) };
            run_on(path, &mut acted, &p);
            let [y, want] = &mut y;
            crate::activation::activate(want, y, act);
            assert!(acted == *want, "{act:?} {path:?}");
        }
    }
}
