//! Attention against plain loops: odd shapes, masks, caps, biases, every instruction set; bits that must not move.
#![expect(clippy::unwrap_used, reason = "tests")]

use super::*;
use crate::page::{Kept, NAMES, POSITIONS, Page};
use crate::product::MatRef;
use crate::rng::Rng;
use crate::threads::tests::with_threads;

fn values(n: usize, seed: u64) -> Vec<f32> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    (0..n)
        .map(|_| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 40) as f32 / (1u64 << 23) as f32 - 1.0
        })
        .collect()
}

/// Sums of some hundred terms below 2: about 1e-6 of rounding, and the exponent's own 1e-7 on scores up to 10.
fn close(got: &[f32], want: &[f32], what: &str) {
    for (i, (got, want)) in got.iter().zip(want).enumerate() {
        let ok = got == want || (got - want).abs() <= 2e-5 * (1.0 + want.abs());
        assert!(ok, "{what}: at {i} {got} for {want}");
    }
}

/// One call's inputs.
struct Case {
    shape: AttentionShape,
    k: Strided,
    v: Strided,
    ranges: Vec<(u32, u32)>,
    valid: Option<Vec<u8>>,
    bias: Option<Vec<f32>>,
    softcap: Option<f32>,
    dropped: Option<(f32, Rng, u64)>,
    precision: Precision,
    tensors: [Vec<f32>; 3],
}

impl Case {
    fn attention(&self) -> Attention<'_> {
        Attention {
            shape: self.shape,
            k: self.k,
            v: self.v,
            visible: Visible { ranges: &self.ranges, key_valid: self.valid.as_deref() },
            scale: 1.5 / (self.shape.dim as f32).sqrt(),
            softcap: self.softcap,
            bias: self.bias.as_ref().map(|values| Bias { values }),
            dropped: self.dropped.as_ref().map(|(p, rng, offset)| Dropped { p: *p, rng, offset: *offset }),
            precision: self.precision,
        }
    }

    /// `sizes`: batch, queries, keys, heads, key heads, head, value head. Kind 0 sees all; 1 is causal (the last query
    /// sees the last key); 2 has ranges of all sorts, empty ones too, and hidden keys; 3 adds a bias for the batch and a
    /// cap; 4 a bias for each sequence.
    fn new([batch, time_q, keys, heads, kv_heads, dim, v_dim]: [usize; 7], kind: usize, spare: usize) -> Case {
        let shape = AttentionShape { batch, time_q, keys, heads, kv_heads, dim, v_dim };
        let (mut k, mut v) = (shape.k_contiguous(), shape.v_contiguous());
        k.time += spare;
        k.batch = (keys + spare) * k.time;
        v.batch = (keys + spare) * v.time;
        let ranges = (0..batch * time_q)
            .map(|i| {
                let (b, t) = (i / time_q, i % time_q);
                let causal = (keys + t + 1).saturating_sub(time_q).min(keys) as u32;
                match kind {
                    0 => (0, keys as u32),
                    1 => (0, causal),
                    _ if (t + b) % 7 == 3 => (5, 5),
                    _ => (causal.saturating_sub(20 + b as u32), causal),
                }
            })
            .collect();
        let valid = (kind >= 2).then(|| (0..batch * keys).map(|i| u8::from(i % 5 != 1)).collect());
        let plane = heads * time_q * keys;
        let bias = match kind {
            3 => Some(values(plane, 9)),
            4 => Some(values(batch * plane, 9)),
            _ => None,
        };
        let softcap = (kind == 3).then_some(2.0);
        let tensors = [values(shape.q_len(), 1), values(batch * k.batch, 2), values(batch * v.batch, 3)];
        Case { shape, k, v, ranges, valid, bias, softcap, dropped: None, precision: Precision::F32, tensors }
    }

    fn forward(&self, isa: Option<Isa>) -> (Vec<f32>, Vec<f32>) {
        let [q, k, v] = &self.tensors;
        let (mut out, mut lse) = (vec![f32::NAN; self.shape.out_len()], vec![f32::NAN; self.shape.lse_len()]);
        let a = self.attention();
        a.check(q, k, v, &out);
        match isa {
            Some(isa) => forward_on(isa, &mut out, Some(&mut lse), q, k, v, &a),
            None => reference::forward(&mut out, Some(&mut lse), q, k, v, &a),
        }
        (out, lse)
    }

    fn backward(&self, isa: Option<Isa>, out: &[f32], lse: &[f32]) -> [Vec<f32>; 4] {
        let (s, a) = (&self.shape, self.attention());
        let [q, k, v] = &self.tensors;
        let dout = values(s.out_len(), 4);
        let [mut dq, mut dk, mut dv] = [s.q_len(), s.k_len(), s.v_len()].map(|n| vec![f32::NAN; n]);
        let mut dbias = vec![0.5f32; self.bias.as_ref().map_or(0, Vec::len)];
        let some = self.bias.is_some().then_some(&mut dbias[..]);
        let g = Gradients { dq: &mut dq, dk: &mut dk, dv: &mut dv, dbias: some };
        match isa {
            Some(isa) => backward_on(isa, g, &dout, [q, k, v, out, lse], &a),
            None => reference::backward(g, &dout, q, k, v, out, lse, &a),
        }
        [dq, dk, dv, dbias]
    }
}

const SIZES: [[usize; 7]; 11] = [
    [1, 1, 1, 1, 1, 1, 1],
    [2, 1, 700, 6, 2, 64, 64],
    [1, 3, 65, 7, 1, 17, 33],
    [2, 8, 129, 4, 4, 80, 16],
    // Eighty rows on one key head: more than are multiplied at once.
    [1, 8, 70, 10, 1, 16, 19],
    [1, 9, 9, 2, 1, 3, 5],
    [2, 17, 65, 4, 2, 16, 17],
    [1, 65, 129, 3, 3, 64, 64],
    [1, 129, 129, 2, 1, 31, 65],
    [2, 70, 70, 2, 2, 128, 96],
    [1, 20, 0, 2, 2, 8, 8],
];

#[test]
fn forward_and_backward_match_plain_loops() {
    for sizes in SIZES {
        for kind in 0..5 {
            for spare in [0, 3] {
                let case = Case::new(sizes, kind, spare);
                let (out, lse) = case.forward(None);
                let want = case.backward(None, &out, &lse);
                for isa in Isa::all_available() {
                    let what = format!("{isa:?} {sizes:?} kind {kind} spare {spare}");
                    let (got_out, got_lse) = case.forward(Some(isa));
                    close(&got_out, &out, &format!("out {what}"));
                    close(&got_lse, &lse, &format!("lse {what}"));
                    let got = case.backward(Some(isa), &out, &lse);
                    for (name, (got, want)) in ["dq", "dk", "dv", "dbias"].iter().zip(got.iter().zip(&want)) {
                        close(got, want, &format!("{name} {what}"));
                    }
                }
            }
        }
    }
}

/// Factors that are rounded at 2^-9, scores of some units: weights are off by a percent at most, and so are all sums of
/// them. Measured: 0.4 percent.
fn near(got: &[f32], want: &[f32], what: &str) {
    let norm = |x: &mut dyn Iterator<Item = f32>| x.map(|x| f64::from(x).powi(2)).sum::<f64>().sqrt();
    let (off, size) = (norm(&mut got.iter().zip(want).map(|(x, y)| x - y)), norm(&mut want.iter().copied()));
    // Gradients of scores are differences, whose own size may be nothing.
    assert!(off <= 0.01 * size + 1e-4 * (got.len() as f64).sqrt(), "{what}: off by {off} of {size}");
}

#[test]
fn rounded_products_come_near() {
    for sizes in SIZES {
        for (kind, p) in [(0, 0.0), (1, 0.0), (1, 0.3), (2, 0.0), (3, 0.2), (4, 0.0)] {
            let mut case = Case::new(sizes, kind, 3);
            if p > 0.0 {
                case = dropping(case, p, 2);
            }
            let (out, lse) = case.forward(None);
            let want = case.backward(None, &out, &lse);
            case.precision = Precision::Bf16;
            for isa in Isa::all_available() {
                let what = format!("{isa:?} {sizes:?} kind {kind}");
                let (got_out, got_lse) = case.forward(Some(isa));
                near(&got_out, &out, &format!("out {what}"));
                for (got, want) in got_lse.iter().zip(&lse) {
                    assert!(got == want || (got - want).abs() < 0.02, "lse {what}: {got} for {want}");
                }
                let got = case.backward(Some(isa), &out, &lse);
                for (name, (got, want)) in ["dq", "dk", "dv", "dbias"].iter().zip(got.iter().zip(&want)) {
                    near(got, want, &format!("{name} {what}"));
                }
            }
        }
    }
}

#[test]
fn a_nan_is_not_lost() {
    for precision in [Precision::F32, Precision::Bf16] {
        let mut case = Case::new([1, 20, 20, 2, 1, 16, 16], 0, 0);
        case.precision = precision;
        case.tensors[0][5 * 32] = f32::NAN;
        for isa in Isa::all_available() {
            let (out, _) = case.forward(Some(isa));
            assert!(out[5 * 32..5 * 32 + 16].iter().all(|x| x.is_nan()), "{isa:?} {precision:?}");
            assert!(out[..5 * 32].iter().all(|x| x.is_finite()), "{isa:?} {precision:?}");
        }
    }
}

/// The case with some of its weights dropped.
fn dropping(case: Case, p: f32, offset: u64) -> Case {
    Case { dropped: Some((p, Rng::new(5).split("dropout"), offset)), ..case }
}

#[test]
fn dropped_weights_match_plain_loops() {
    for sizes in SIZES {
        for (kind, p, offset) in [(0, 0.5, 0), (2, 0.1, 5), (3, 0.9, 1 << 40), (4, 1.0, 0), (1, 0.0, 3)] {
            let case = dropping(Case::new(sizes, kind, 1), p, offset);
            let (out, lse) = case.forward(None);
            assert!(p < 1.0 || out.iter().all(|x| *x == 0.0));
            let want = case.backward(None, &out, &lse);
            for isa in Isa::all_available() {
                let what = format!("{isa:?} {sizes:?} kind {kind} dropping {p}");
                let (got_out, got_lse) = case.forward(Some(isa));
                close(&got_out, &out, &format!("out {what}"));
                close(&got_lse, &lse, &format!("lse {what}"));
                let got = case.backward(Some(isa), &out, &lse);
                for (name, (got, want)) in ["dq", "dk", "dv", "dbias"].iter().zip(got.iter().zip(&want)) {
                    close(got, want, &format!("{name} {what}"));
                }
            }
        }
    }
}

#[test]
fn each_weight_has_a_toss_of_its_own() {
    // Equal scores and values that are a unit vector for each key: the output is the mask.
    let (batch, time, keys, heads) = (2, 37, 41, 3);
    let shape = AttentionShape { batch, time_q: time, keys, heads, kv_heads: heads, dim: 1, v_dim: keys };
    let mut case = Case::new([batch, time, keys, heads, heads, 1, keys], 0, 0);
    case.tensors[0].fill(0.0);
    case.tensors[2] = (0..shape.v_len()).map(|i| f32::from(u8::from(i % keys == i / keys / heads % keys))).collect();
    let case = dropping(case, 0.25, 8);
    let (out, _) = case.forward(Some(isa()));
    let rng = Rng::new(5).split("dropout");
    let mut count = 0;
    for (i, got) in out.iter().enumerate() {
        let (row, key) = (i / keys, i % keys);
        let (b, t, h) = (row / heads / time, row / heads % time, row % heads);
        // Rows of 41 keys take 44 words; a quarter of the words is below 2^30.
        let dropped = rng.word_at(8 + (((b * heads + h) * time + t) * 44 + key) as u64) < 1 << 30;
        let want = if dropped { 0.0 } else { 1.0 / 0.75 / keys as f32 };
        assert!((got - want).abs() < 1e-6, "{b} {t} {h} {key}: {got} for {want}");
        count += usize::from(dropped);
    }
    // Five standard deviations of a share.
    let share = count as f64 / out.len() as f64;
    assert!((share - 0.25).abs() < 5.0 * (0.1875 / out.len() as f64).sqrt(), "{share}");
}

#[test]
fn gradients_agree_with_differences() {
    differences(Case::new([1, 10, 12, 2, 1, 5, 4], 3, 0));
    differences(dropping(Case::new([1, 10, 12, 2, 1, 5, 4], 3, 0), 0.4, 0));
}

fn differences(case: Case) {
    let (out, lse) = case.forward(None);
    let grads = case.backward(None, &out, &lse);
    let dout = values(case.shape.out_len(), 4);
    let loss = |case: &Case| -> f64 {
        case.forward(None).0.iter().zip(&dout).map(|(x, y)| f64::from(*x) * f64::from(*y)).sum()
    };
    let mut case = case;
    for (which, grad) in grads.iter().enumerate().take(3) {
        for i in (0..grad.len()).step_by(7) {
            let x = case.tensors[which][i];
            case.tensors[which][i] = x + 1e-2;
            let up = loss(&case);
            case.tensors[which][i] = x - 1e-2;
            let down = loss(&case);
            case.tensors[which][i] = x;
            let want = (up - down) / 2e-2;
            // The difference quotient's own error is of order h² = 1e-4.
            assert!((f64::from(grad[i]) - want).abs() < 1e-3, "{which} {i}: {} for {want}", grad[i]);
        }
    }
}

#[test]
fn a_decoded_query_has_the_same_bits_alone_and_in_company() {
    // Sixteen hundred keys: several cuts. The queries of the big case are asked again one at a time.
    for isa in Isa::all_available() {
        let big = Case::new([2, 8, 1600, 6, 2, 33, 40], 2, 2);
        let (out, _) = big.forward(Some(isa));
        let (q_row, out_row) = (6 * 33, 6 * 40);
        for b in 0..2 {
            for t in 0..8 {
                let mut one = Case::new([1, 1, 1600, 6, 2, 33, 40], 2, 2);
                one.ranges = vec![big.ranges[b * 8 + t]];
                one.valid = Some(big.valid.as_ref().unwrap()[b * 1600..][..1600].to_vec());
                one.tensors = [
                    big.tensors[0][(b * 8 + t) * q_row..][..q_row].to_vec(),
                    big.tensors[1][b * big.k.batch..][..big.k.batch].to_vec(),
                    big.tensors[2][b * big.v.batch..][..big.v.batch].to_vec(),
                ];
                let alone = one.forward(Some(isa)).0;
                assert!(alone == out[(b * 8 + t) * out_row..][..out_row], "{isa:?} sequence {b} query {t}");
            }
        }
    }
}

/// Rows of `[batch, keys, heads, dim]` in pages, `spare` numbers behind each head; and the same rows as they are read there.
fn paged(values: &[f32], [batch, keys, heads, dim]: [usize; 4], spare: usize, kept: Kept) -> (Vec<Page>, Vec<f32>) {
    let (each, row) = (keys.div_ceil(POSITIONS), heads * (dim + spare));
    let mut back = vec![];
    let mut pages = vec![];
    for values in values.chunks_exact(keys * heads * dim).take(batch) {
        for page in 0..each {
            let (first, last) = (page * POSITIONS, keys.min((page + 1) * POSITIONS));
            pages.push(Page::new(kept, row));
            let page = pages.last_mut().unwrap();
            for at in first..last {
                let heads = values[at * heads * dim..][..heads * dim].chunks_exact(dim);
                let numbers: Vec<f32> = heads.flat_map(|h| h.iter().copied().chain(vec![7.0; spare])).collect();
                page.write(at - first, &numbers);
                let mut read = vec![0.0; row];
                page.read(at - first, &mut read);
                back.extend(read.chunks_exact(dim + spare).flat_map(|head| &head[..dim]));
            }
        }
    }
    (pages, back)
}

#[test]
fn pages_have_the_bits_of_the_same_numbers_in_one_piece() {
    // Queries: one, a few, and more than are decoded; the last sizes have heads of whole blocks.
    for sizes in
        [[2, 1, 700, 6, 2, 64, 32], [1, 3, 65, 4, 2, 32, 32], [2, 40, 130, 4, 2, 32, 64], [1, 70, 70, 2, 1, 96, 32]]
    {
        let [batch, _, keys, heads, kv_heads, dim, v_dim] = sizes;
        for (kind, precision, name) in (0..4)
            .flat_map(|kind| [Precision::F32, Precision::Bf16].map(|precision| (kind, precision)))
            .flat_map(|(kind, precision)| NAMES.map(|name| (kind, precision, name)))
        {
            let kept = Kept::from_name(name).unwrap();
            let mut case = Case::new(sizes, kind, 0);
            case.precision = precision;
            let (k, k_back) = paged(&case.tensors[1], [batch, keys, kv_heads, dim], 0, kept);
            let (v, v_back) = paged(&case.tensors[2], [batch, keys, kv_heads, v_dim], 32, kept);
            let q = case.tensors[0].clone();
            case.tensors = [q.clone(), k_back, v_back];
            let (mut k, mut v): (Vec<_>, Vec<_>) =
                (k.iter().map(Page::view).collect(), v.iter().map(Page::view).collect());
            let each = keys.div_ceil(POSITIONS);
            // Of pages that nobody sees nothing is read.
            for (i, (k, v)) in k.iter_mut().zip(&mut v).enumerate() {
                let (b, first) = (i / each, (i % each * POSITIONS) as u32);
                let ranges = &case.ranges[b * case.shape.time_q..][..case.shape.time_q];
                if ranges.iter().all(|r| r.0 >= r.1 || r.1 <= first || r.0 >= first + POSITIONS as u32) {
                    (*k, *v) = (MatRef::F32(&[]), MatRef::Bf16(&[]));
                }
            }
            for isa in Isa::all_available() {
                let (want, _) = case.forward(Some(isa));
                let (mut out, a) = (vec![f32::NAN; case.shape.out_len()], case.attention());
                let k = Paged { pages: &k, each, time: kv_heads * dim, head: dim };
                let v = Paged { pages: &v, each, time: kv_heads * (v_dim + 32), head: v_dim + 32 };
                k.check("k", &case.shape, dim, &case.ranges);
                v.check("v", &case.shape, v_dim, &case.ranges);
                let (shared, k, v) = (Shared(out.as_mut_ptr()), Rows::Paged(k), Rows::Paged(v));
                pass_on(isa, &forward::Pass { a: &a, q: &q, k, v, out: shared, lse: None });
                assert!(out == want, "{isa:?} {sizes:?} kind {kind} {precision:?} {name} ({heads} heads)");
            }
        }
    }
}

#[test]
fn one_thread_and_many_give_the_same_bits() {
    // The last shape has fewer key heads than threads: its backward pass is cut the other way.
    for sizes in [[2, 1, 1200, 4, 2, 64, 64], [2, 130, 130, 4, 2, 32, 32], [1, 200, 200, 3, 1, 64, 64]] {
        for (kind, precision) in [(1, Precision::F32), (3, Precision::F32), (1, Precision::Bf16), (3, Precision::Bf16)]
        {
            let mut case = Case::new(sizes, kind, 0);
            case.precision = precision;
            if kind == 3 {
                case = dropping(case, 0.3, 0);
            }
            let all = |threads| {
                with_threads(threads, || {
                    let (out, lse) = case.forward(Some(isa()));
                    let grads = case.backward(Some(isa()), &out, &lse);
                    (out, lse, grads)
                })
            };
            let one = all(1);
            assert!(one == all(2), "{sizes:?} {kind}");
            assert!(one == all(8), "{sizes:?} {kind}");
        }
    }
}
