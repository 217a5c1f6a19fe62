//! NF4 against what bitsandbytes makes (`tests/golden/nf4.py`).
#![expect(clippy::unwrap_used, reason = "tests")]

use half::f16;
use safetensors::SafeTensors;

use super::*;
use crate::threads::tests::with_threads;

/// What the fixture holds: the numbers and what became of them.
struct Golden {
    weights: Vec<f32>,
    codes: Vec<u8>,
    scales: Vec<u8>,
    spans: Vec<f32>,
    mean: f32,
    absmax: Vec<f32>,
    values: Vec<f32>,
    dynamic: Vec<f32>,
}

fn golden() -> Golden {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/golden/nf4.safetensors");
    let bytes = std::fs::read(path).unwrap();
    let file = SafeTensors::deserialize(&bytes).unwrap();
    let raw = |name: &str| file.tensor(name).unwrap().data().to_vec();
    let floats =
        |name: &str| raw(name).as_chunks().0.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect::<Vec<f32>>();
    Golden {
        weights: raw("weights").as_chunks().0.iter().map(|bytes| f16::from_le_bytes(*bytes).to_f32()).collect(),
        codes: raw("codes"),
        scales: raw("scales"),
        spans: floats("spans"),
        mean: floats("mean")[0],
        absmax: floats("absmax"),
        values: floats("values"),
        dynamic: floats("dynamic"),
    }
}

fn bits(values: &[f32]) -> Vec<u32> {
    values.iter().map(|x| x.to_bits()).collect()
}

fn made(values: &[f32], pieces: usize) -> Nf4 {
    let mut writer = Nf4Writer::with_room(values.len()).unwrap();
    values.chunks(pieces * BLOCK).for_each(|values| writer.push(values));
    writer.finish()
}

#[test]
fn the_bytes_of_scales_stand_for_what_bitsandbytes_has() {
    let golden = golden();
    assert_eq!(bits(&SCALES), bits(&golden.dynamic));
    assert!(SCALES.is_sorted() && TABLE.is_sorted());
}

#[test]
fn numbers_become_what_bitsandbytes_makes_of_them() {
    let golden = golden();
    let ours = made(&golden.weights, 100);
    let mut codes = vec![0; golden.weights.len()];
    for (bytes, codes) in ours.codes.chunks(16).zip(codes.chunks_mut(32)) {
        bits::nibbles::<16>(codes, bytes);
    }
    let theirs: Vec<u8> = golden.codes.iter().flat_map(|byte| [byte >> 4, byte & 15]).collect();
    assert_eq!(codes, theirs);
    assert_eq!(ours.scales, golden.scales);
    // Theirs is summed in f32: its mean, and what is left of the largest scales without it, may be off in the last place.
    let near = |a: f32, b: f32| (a - b).abs() <= 2.0 * f32::EPSILON * b.abs();
    assert!(near(ours.mean, golden.mean), "{} {}", ours.mean, golden.mean);
    assert!(ours.spans.len() == 3 && ours.spans.iter().zip(&golden.spans).all(|(&a, &b)| near(a, b)));
    // With their mean and spans, the scales and the numbers have their bits.
    let ours = Nf4 { mean: golden.mean, spans: golden.spans, ..ours };
    let scales: Vec<f32> = (0..ours.scales.len()).map(|block| ours.view().scale(block)).collect();
    assert_eq!(bits(&scales), bits(&golden.absmax));
    for isa in Isa::all_available() {
        let mut values = vec![f32::NAN; golden.weights.len()];
        ours.view().widen_on(isa, &mut values);
        assert_eq!(bits(&values[..golden.values.len()]), bits(&golden.values), "{isa:?}");
    }
    assert_eq!(Nf4::room(golden.weights.len()), Some(ours.view().room()));
    assert_eq!(Nf4::room(golden.weights.len() - 1), None);
}

#[test]
fn pieces_threads_and_parts_change_no_bit() {
    let golden = golden();
    let whole = made(&golden.weights, usize::MAX / BLOCK);
    let mut wide = vec![0f32; golden.weights.len()];
    whole.view().widen(&mut wide);
    for (threads, pieces) in [(1, 1), (2, 3), (3, 300)] {
        with_threads(threads, || {
            let apart = made(&golden.weights, pieces);
            let mut again = vec![0f32; wide.len()];
            apart.view().widen_rows(&mut again);
            assert_eq!(bits(&again), bits(&wide), "{threads} threads, {pieces} blocks at a time");
        });
    }
    // Parts that begin and end inside a span, and parts of those.
    let blocks = wide.len() / BLOCK;
    for (start, end) in [(0, 1), (1, 255), (250, 260), (256, 512), (511, blocks), (blocks, blocks)] {
        let part = whole.view().slice(start..end);
        let mut values = vec![0f32; part.len()];
        part.widen(&mut values);
        assert_eq!(bits(&values), bits(&wide[start * BLOCK..end * BLOCK]), "{start}..{end}");
        if end - start > 2 {
            let inner = part.slice(2..end - start);
            let mut values = vec![0f32; inner.len()];
            inner.widen(&mut values);
            assert_eq!(bits(&values), bits(&wide[(start + 2) * BLOCK..end * BLOCK]), "{start}..{end}");
        }
    }
}

#[test]
fn zeros_and_equal_scales_stay_what_they_are() {
    let mut values = vec![0f32; 300 * BLOCK];
    let mut wide = vec![f32::NAN; values.len()];
    made(&values, 7).view().widen(&mut wide);
    assert!(wide.iter().all(|x| *x == 0.0));
    values.iter_mut().enumerate().for_each(|(i, x)| *x = if i % 3 == 0 { 0.75 } else { -0.75 });
    made(&values, 7).view().widen(&mut wide);
    assert_eq!(wide, values);
    assert!(Nf4Writer::default().finish().view().is_empty());
}
