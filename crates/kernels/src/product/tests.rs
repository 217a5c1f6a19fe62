//! Products against plain loops: odd shapes, every instruction set, every kind of weight.

#![expect(clippy::unwrap_used, reason = "tests")]

use super::*;
use crate::quant::{Nf4, Nf4Writer, Quant};
use half::{bf16, f16};

/// Values in -1..1 from a fixed generator.
fn values(n: usize, seed: u64) -> Vec<f32> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    (0..n)
        .map(|_| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 40) as f32 / (1u64 << 23) as f32 - 1.0
        })
        .collect()
}

/// Each addition rounds a partial sum of about sqrt(terms) / 3 by half an epsilon of it; the sign of the roundings is
/// not quite random in these short sums, hence an epsilon a term.
fn close(got: &[f32], want: &[f32], terms: usize, what: &str) {
    let tolerance = (terms as f32 + 16.0) * f32::EPSILON;
    let (i, worst) = got
        .iter()
        .zip(want)
        .map(|(a, b)| (a - b).abs())
        .enumerate()
        .fold((0, 0f32), |m, x| if x.1.is_nan() || x.1 > m.1 { x } else { m });
    assert!(worst <= tolerance, "{what}: at {i} {} for {} (tolerance {tolerance})", got[i], want[i]);
}

const SIZES: [(usize, usize, usize); 16] = [
    (1, 1, 1),
    (1, 129, 65),
    (3, 17, 3),
    (5, 33, 130),
    (7, 3, 17),
    (8, 64, 64),
    (9, 65, 31),
    (32, 7, 100),
    (33, 1, 1),
    (33, 65, 17),
    (65, 129, 3),
    (100, 200, 257),
    (129, 17, 600),
    (40, 449, 16),
    (97, 16, 8),
    (41, 5, 0),
];

#[test]
fn forward_matches_plain_loops() {
    for isa in Isa::all_available() {
        for (m, n, k) in SIZES {
            let (x, w, b) = (values(m * k, 1), values(n * k, 2), values(n, 3));
            let bf: Vec<bf16> = w.iter().map(|&w| bf16::from_f32(w)).collect();
            let hf: Vec<f16> = w.iter().map(|&w| f16::from_f32(w)).collect();
            for w in [MatRef::F32(&w), MatRef::Bf16(&bf), MatRef::F16(&hf)] {
                for bias in [None, Some(&b[..])] {
                    let (mut got, mut want) = (vec![f32::NAN; m * n], vec![0f32; m * n]);
                    linear_on(isa, &mut got, &x, w, bias, [m, n, k], Precision::F32);
                    reference::linear(&mut want, &x, w, bias, m, n, k);
                    close(&got, &want, k, &format!("{isa:?} {m} {n} {k}"));
                }
            }
        }
    }
}

#[test]
fn gradients_match_plain_loops() {
    for isa in Isa::all_available() {
        for (m, n, k) in SIZES {
            let (x, w, dy) = (values(m * k, 1), values(n * k, 2), values(m * n, 3));
            let bf: Vec<bf16> = w.iter().map(|&w| bf16::from_f32(w)).collect();
            for w in [MatRef::F32(&w), MatRef::Bf16(&bf)] {
                for accumulate in [false, true] {
                    let start = if accumulate { values(m * k, 4) } else { vec![f32::NAN; m * k] };
                    let (mut got, mut want) = (start.clone(), start);
                    linear_dx_on(isa, &mut got, &dy, w, [m, n, k], accumulate, Precision::F32);
                    reference::linear_dx(&mut want, &dy, w, m, n, k, accumulate);
                    close(&got, &want, n, &format!("dx {isa:?} {m} {n} {k}"));
                }
            }
            let mut got = values(n * k, 5);
            let mut want = got.clone();
            linear_dw_on(isa, &mut got, &dy, &x, [m, n, k], true, Precision::F32);
            reference::linear_dw(&mut want, &dy, &x, m, n, k);
            close(&got, &want, m, &format!("dw {isa:?} {m} {n} {k}"));
            let (mut got, mut want) = (vec![f32::NAN; n * k], vec![0f32; n * k]);
            linear_dw_on(isa, &mut got, &dy, &x, [m, n, k], false, Precision::F32);
            reference::linear_dw(&mut want, &dy, &x, m, n, k);
            close(&got, &want, m, &format!("dw {isa:?} {m} {n} {k}"));
        }
    }
}

#[test]
fn a_row_has_the_same_bits_alone_and_in_company() {
    let (n, k) = (133, 197);
    let m = rows_invariant_limit(Precision::F32);
    let (x, w) = (values(m * k, 1), values(n * k, 2));
    let bf: Vec<bf16> = w.iter().map(|&w| bf16::from_f32(w)).collect();
    let hf: Vec<f16> = w.iter().map(|&w| f16::from_f32(w)).collect();
    for isa in Isa::all_available() {
        for w in [MatRef::F32(&w), MatRef::Bf16(&bf), MatRef::F16(&hf)] {
            let alone: Vec<f32> = (0..m)
                .flat_map(|i| {
                    let mut y = vec![0f32; n];
                    linear_on(isa, &mut y, &x[i * k..][..k], w, None, [1, n, k], Precision::F32);
                    y
                })
                .collect();
            for m in 2..=m {
                let mut y = vec![0f32; m * n];
                linear_on(isa, &mut y, &x[..m * k], w, None, [m, n, k], Precision::F32);
                assert!(y == alone[..m * n], "{isa:?}, {m} rows");
            }
        }
    }
}

#[test]
fn one_thread_and_many_give_the_same_bits() {
    let (m, n, k) = (150, 700, 300);
    let (x, w, dy) = (values(m * k, 1), values(n * k, 2), values(m * n, 3));
    for precision in [Precision::F32, Precision::Bf16] {
        let all = |threads: usize| {
            crate::threads::tests::with_threads(threads, || {
                let (mut y, mut few) = (vec![0f32; m * n], vec![0f32; 8 * n]);
                let (mut dx, mut dw, mut db) = (vec![0f32; m * k], vec![0f32; n * k], vec![0f32; n]);
                linear(&mut y, &x, MatRef::F32(&w), None, [m, n, k], precision);
                linear(&mut few, &x[..8 * k], MatRef::F32(&w), None, [8, n, k], precision);
                linear_dx(&mut dx, &dy, MatRef::F32(&w), [m, n, k], false, precision);
                linear_dw(&mut dw, &dy, &x, [m, n, k], true, precision);
                sum_rows(&mut db, &dy, m, n);
                (y, few, dx, dw, db)
            })
        };
        assert!(all(1) == all(2), "{precision:?}");
    }
}

/// As bf16 would hold them.
fn rounded(x: &[f32]) -> Vec<f32> {
    x.iter().map(|&x| bf16::from_f32(x).to_f32()).collect()
}

#[test]
fn products_in_bf16_are_those_of_rounded_factors() {
    // Columns of more than one task, depths of more than one block, edges in all directions.
    let sizes = SIZES.into_iter().chain([(17, 600, 900), (47, 32, 384), (64, 289, 385), (1100, 20, 33)]);
    for isa in Isa::all_available().into_iter().filter(|isa| isa.has_bf16()) {
        for (m, n, k) in sizes.clone() {
            let (x, w, dy, b) = (values(m * k, 1), values(n * k, 2), values(m * n, 3), values(n, 4));
            let (x16, w16, dy16) = (rounded(&x), rounded(&w), rounded(&dy));
            let bf: Vec<bf16> = w.iter().map(|&w| bf16::from_f32(w)).collect();
            let hf: Vec<f16> = w16.iter().map(|&w| f16::from_f32(w)).collect();
            let (few, bf_w) = (m <= rows_invariant_limit(Precision::Bf16), MatRef::Bf16(&bf));
            for w in [MatRef::F32(&w), bf_w, MatRef::F16(&hf)] {
                for bias in [None, Some(&b[..])] {
                    let (mut got, mut want) = (vec![f32::NAN; m * n], vec![0f32; m * n]);
                    linear_on(isa, &mut got, &x, w, bias, [m, n, k], Precision::Bf16);
                    let tiles = isa == Isa::Amx && matches!(w, MatRef::Bf16(_)) && k > 0 && k.is_multiple_of(32);
                    match (few && !tiles, w) {
                        (true, w) => reference::linear(&mut want, &x, w, bias, m, n, k),
                        // Halves that bf16 cannot hold are few: below 2^-14 f16 has fewer digits than bf16.
                        (false, MatRef::F16(hf)) => {
                            let w = rounded(&hf.iter().map(|w| w.to_f32()).collect::<Vec<_>>());
                            reference::linear(&mut want, &x16, MatRef::F32(&w), bias, m, n, k);
                        }
                        (false, _) => reference::linear(&mut want, &x16, MatRef::F32(&w16), bias, m, n, k),
                    }
                    close(&got, &want, k, &format!("{isa:?} {m} {n} {k}"));
                }
            }
            for accumulate in [false, true] {
                let start = if accumulate { values(m * k, 5) } else { vec![f32::NAN; m * k] };
                let (mut got, mut want) = (start.clone(), start);
                linear_dx_on(isa, &mut got, &dy, bf_w, [m, n, k], accumulate, Precision::Bf16);
                reference::linear_dx(&mut want, &dy16, bf_w, m, n, k, accumulate);
                close(&got, &want, n, &format!("dx {isa:?} {m} {n} {k}"));
            }
            let mut got = values(n * k, 6);
            let mut want = got.clone();
            linear_dw_on(isa, &mut got, &dy, &x, [m, n, k], true, Precision::Bf16);
            reference::linear_dw(&mut want, &dy16, &x16, m, n, k);
            close(&got, &want, m, &format!("dw {isa:?} {m} {n} {k}"));
        }
    }
}

/// Those of few rows are multiplied another way than those of many.
#[test]
fn with_tiles_any_number_of_rows_has_the_bits_of_each_alone() {
    if !Isa::all_available().contains(&Isa::Amx) {
        println!("skipped: this machine has no AMX");
        return;
    }
    for (n, k) in [(1, 32), (15, 64), (16, 32), (31, 160), (33, 96), (48, 896), (300, 1600)] {
        let most = 130;
        let (x, b) = (values(most * k, 1), values(n, 3));
        let w: Vec<bf16> = values(n * k, 2).iter().map(|&w| bf16::from_f32(w)).collect();
        let product = |m: usize, x: &[f32], bias: Option<&[f32]>| {
            let mut y = vec![f32::NAN; m * n];
            linear_on(Isa::Amx, &mut y, x, MatRef::Bf16(&w), bias, [m, n, k], Precision::Bf16);
            y
        };
        for bias in [None, Some(&b[..])] {
            let alone: Vec<f32> = x.chunks_exact(k).flat_map(|x| product(1, x, bias)).collect();
            for m in [2, 15, 16, 17, 32, 33, 64, 65, most] {
                assert!(product(m, &x[..m * k], bias) == alone[..m * n], "{m} rows, {n} by {k}");
            }
        }
    }
}

#[test]
fn bias_gradient_is_the_sum_of_the_rows() {
    for (m, n) in [(0, 3), (1, 1), (17, 129), (65, 600)] {
        let dy = values(m * n, 1);
        let mut db = vec![1f32; n];
        sum_rows(&mut db, &dy, m, n);
        let want: Vec<f32> = (0..n).map(|j| 1.0 + (0..m).map(|i| dy[i * n + j]).sum::<f32>()).collect();
        close(&db, &want, m, "db");
    }
}

/// A weight in blocks, and the values that they stand for.
struct Kept {
    kind: Option<Quant>,
    blocks: Vec<u8>,
    nf4: Nf4,
    wide: Vec<f32>,
}

impl Kept {
    /// Of `[n, k]` numbers, in a kind of GGUF's or in NF4.
    fn new(kind: Option<Quant>, n: usize, k: usize) -> Kept {
        let (w, mut nf4) = (values(n * k, 7), Nf4Writer::default());
        let mut blocks = vec![];
        match kind {
            Some(kind) => {
                blocks.resize(n * k / kind.block() * kind.bytes(), 0);
                kind.quantize(&w, &mut blocks);
            }
            // In two pieces, as they come on loading.
            None => {
                let (first, second) = w.split_at(n / 2 * k);
                nf4.push(first);
                nf4.push(second);
            }
        }
        let mut made = Kept { kind, blocks, nf4: nf4.finish(), wide: vec![0f32; n * k] };
        let mut wide = std::mem::take(&mut made.wide);
        made.blocks().widen(&mut wide);
        Kept { wide, ..made }
    }

    fn blocks(&self) -> Blocks<'_> {
        match self.kind {
            Some(kind) => Blocks::new(kind, &self.blocks).unwrap(),
            None => Blocks::Nf4(self.nf4.view()),
        }
    }

    fn mat(&self) -> MatRef<'_> {
        MatRef::Blocks(self.blocks())
    }
}

/// All kinds of blocks with the length of one.
fn kinds() -> impl Iterator<Item = (Option<Quant>, usize)> {
    Quant::ALL.into_iter().map(|kind| (Some(kind), kind.block())).chain([(None, Nf4::BLOCK)])
}

/// Largest difference, in parts of what a sum of so many products of values in -1..1 is like.
fn apart(got: &[f32], want: &[f32], terms: usize) -> f32 {
    let worst =
        got.iter().zip(want).fold(0f32, |m, (a, b)| if (a - b).is_nan() { f32::NAN } else { m.max((a - b).abs()) });
    worst / ((terms as f32).sqrt() / 3.0)
}

#[test]
fn products_with_quantised_weights_are_those_of_their_values() {
    for (kind, block) in kinds() {
        for (m, n, blocks) in [(1, 1, 1), (1, 70, 3), (3, 17, 2), (8, 33, 5), (9, 40, 3), (33, 300, 4), (70, 19, 1)] {
            let k = blocks * block;
            let (x, dy, b, kept) = (values(m * k, 1), values(m * n, 2), values(n, 3), Kept::new(kind, n, k));
            let (w, wide, name) = (kept.mat(), MatRef::F32(&kept.wide), kept.blocks().name());
            assert_eq!((w.len(), w.get(n * k - 1)), (n * k, w.slice((n * k - block)..n * k).get(block - 1)));
            let (mut want, mut want_dx) = (vec![0f32; m * n], vec![0f32; m * k]);
            reference::linear(&mut want, &x, wide, Some(&b), m, n, k);
            reference::linear_dx(&mut want_dx, &dy, wide, m, n, k, false);
            for isa in Isa::all_available() {
                for precision in [Precision::F32, Precision::Bf16] {
                    let (mut got, mut dx) = (vec![f32::NAN; m * n], vec![f32::NAN; m * k]);
                    linear_on(isa, &mut got, &x, w, Some(&b), [m, n, k], precision);
                    linear_dx_on(isa, &mut dx, &dy, w, [m, n, k], false, precision);
                    // Few rows are multiplied in bytes (a step is 1/127 of the largest in 32, half of it the error), but not
                    // with NF4; many in bf16 (2^-9 of either factor). Errors of a sum grow with its root, as the sum does.
                    let bytes = kind.is_some() && (isa.has_int8() || isa == Isa::Avx2);
                    let most = |rounds: bool| if rounds { 2e-2 } else { 2e-5 };
                    let bf16 = precision == Precision::Bf16;
                    let few = m <= rows_invariant_limit(precision);
                    let what = format!("{name} {isa:?} {precision:?} {m} {n} {k}");
                    let (y_apart, dx_apart) = (apart(&got, &want, k), apart(&dx, &want_dx, n));
                    assert!(y_apart < most(if few { bytes } else { bf16 }), "{what}: {y_apart}");
                    assert!(dx_apart < most(bf16), "dx {what}: {dx_apart}");
                }
            }
        }
    }
}

#[test]
fn a_row_has_the_same_bits_alone_and_in_company_over_quantised_weights() {
    for (kind, block) in kinds() {
        let (n, k) = (37, 3 * block);
        let kept = Kept::new(kind, n, k);
        let (w, name) = (kept.mat(), kept.blocks().name());
        for precision in [Precision::F32, Precision::Bf16] {
            let m = rows_invariant_limit(precision);
            let x = values(m * k, 1);
            for isa in Isa::all_available() {
                let mut together = vec![0f32; m * n];
                linear_on(isa, &mut together, &x, w, None, [m, n, k], precision);
                for (x, together) in x.chunks_exact(k).zip(together.chunks_exact(n)) {
                    let mut alone = vec![0f32; n];
                    linear_on(isa, &mut alone, x, w, None, [1, n, k], precision);
                    assert!(alone == together, "{name} {isa:?}");
                }
            }
        }
    }
}

/// Where a row need not have the bits that it has alone, it has those that it has among many.
#[test]
fn a_few_rows_over_quantised_weights_have_the_bits_of_many() {
    for (kind, block) in kinds() {
        for (n, blocks) in [(70, 3), (16, 1), (5, 33), (33, 600 / block)] {
            let k = blocks * block;
            let kept = Kept::new(kind, n, k);
            let (w, name) = (kept.mat(), kept.blocks().name());
            let (x, b) = (values(40 * k, 1), values(n, 2));
            for isa in Isa::all_available().into_iter().filter(|isa| *isa == Isa::Amx) {
                let mut many = vec![0f32; 40 * n];
                linear_on(isa, &mut many, &x, w, Some(&b), [40, n, k], Precision::Bf16);
                for m in [5, 16, 17, 32] {
                    let mut few = vec![f32::NAN; m * n];
                    linear_free(isa, &mut few, &x[..m * k], w, Some(&b), [m, n, k], Precision::Bf16);
                    assert!(few == many[..m * n], "{name} {m} {n} {k}");
                }
            }
        }
    }
}
