//! How far products with quantised weights are from the products of the numbers that their blocks stand for, beside what
//! ggml's way of multiplying costs.
#![expect(clippy::unwrap_used, reason = "tests")]

use std::sync::Arc;

use phyla_kernels::quant::Quant;
use phyla_kernels::rng::Rng;
use phyla_ops::{Param, Quantised, Tensor, Weight, cpu, linear, no_grad};

const COLUMNS: usize = 1024;
const ROWS: usize = 48;

/// `x` rounded to whole numbers of `1/127` of the largest of each `block`: what products in bytes make of it. ggml does
/// so, too, by 32 for the old kinds of weights and by 256 for the others.
fn in_bytes(x: &[f32], block: usize) -> Vec<f64> {
    let rounded = x.chunks(block).flat_map(|block| {
        let scale = block.iter().fold(0f64, |most, x| most.max(f64::from(x.abs()))) / 127.;
        block.iter().map(move |&x| if scale == 0. { 0. } else { (f64::from(x) / scale).round() * scale })
    });
    rounded.collect()
}

fn rms(values: impl ExactSizeIterator<Item = f64>) -> f64 {
    let count = values.len() as f64;
    (values.map(|x| x * x).sum::<f64>() / count).sqrt()
}

/// The errors of `rows` rows of activations: ours, the largest that is allowed, and that of activations rounded as ggml
/// rounds them, all over the root mean square of the results.
fn errors(kind: Quant, rows: usize) -> (f64, f64, f64) {
    let mut rng = Rng::new(11).split(kind.name());
    let (mut w, mut x) = (vec![0f32; ROWS * COLUMNS], vec![0f32; rows * COLUMNS]);
    rng.fill_normal(&mut w, 0., 0.05);
    rng.fill_normal(&mut x, 0., 1.);
    // As activations are: a few of them are much larger than the others.
    x.iter_mut().step_by(97).for_each(|x| *x *= 8.);
    let mut blocks = vec![0; w.len() / kind.block() * kind.bytes()];
    kind.quantize(&w, &mut blocks);
    kind.dequantize(&blocks, &mut w);
    let weight = Quantised::owned(blocks, kind, vec![ROWS, COLUMNS]).unwrap();
    let param = Arc::new(Param::new("w", Weight::Blocks(Arc::new(weight))));
    let input = Tensor::leaf(cpu::tensor(x.clone(), &[rows, COLUMNS][..]).unwrap());
    let y = no_grad(|| linear(&input, &param, None)).unwrap();
    let y: Vec<f32> = y.data().flatten_all().unwrap().to_vec1().unwrap();
    let ggml = if kind.block() == 256 { 256 } else { 32 };
    let (mut ours, mut allowed, mut theirs, mut results) = (vec![], vec![], vec![], vec![]);
    for (row, y) in x.chunks(COLUMNS).zip(y.chunks(ROWS)) {
        let (bytes, coarse) = (in_bytes(row, 32), in_bytes(row, ggml));
        for (w, &y) in w.chunks(COLUMNS).zip(y) {
            let dot = |x: &mut dyn Iterator<Item = f64>| w.iter().zip(x).map(|(&w, x)| f64::from(w) * x).sum::<f64>();
            let exact = dot(&mut row.iter().map(|&x| f64::from(x)));
            results.push(exact);
            ours.push(f64::from(y) - exact);
            theirs.push(dot(&mut coarse.iter().copied()) - exact);
            allowed.push(match rows {
                // Bytes: what they cost, but for which way halves are rounded and sums in f32.
                ..=8 => dot(&mut bytes.iter().copied()) - exact,
                // bf16: each factor is off by up to 2^-8 of the power of two below it, evenly; so a product by at most
                // sqrt(2/3) 2^-8 of itself on average, and most of them cancel.
                _ => {
                    let squares = w.iter().zip(row).map(|(&w, &x)| f64::from(w * x).powi(2)).sum::<f64>();
                    (squares * 2. / 3.).sqrt() * 2f64.powi(-8)
                }
            });
        }
    }
    let scale = rms(results.into_iter());
    (rms(ours.into_iter()) / scale, rms(allowed.into_iter()) / scale, rms(theirs.into_iter()) / scale)
}

#[test]
fn products_are_as_exact_as_their_activations_are() {
    for kind in Quant::ALL {
        for rows in [1, 8, 64] {
            let (ours, allowed, theirs) = errors(kind, rows);
            println!("{:7} {rows:2} rows: {ours:.2e} of {allowed:.2e}, ggml {theirs:.2e}", kind.name());
            // A fifth more for what the estimate leaves out.
            assert!(ours <= 1.2 * allowed, "{} {rows}: {ours:.2e} of {allowed:.2e}", kind.name());
            assert!(ours <= 1.2 * theirs, "{} {rows}: {ours:.2e}, and ggml {theirs:.2e}", kind.name());
        }
    }
}
