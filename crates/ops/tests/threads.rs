//! One thread and several give the same bits, forward and backward. A process of its own: the number of threads is
//! global.
#![expect(clippy::unwrap_used, reason = "tests")]

use std::sync::Arc;

use candle_core::{Device, Result};
use phyla_kernels::rng::Rng;
use phyla_kernels::threads::set_threads;
use phyla_ops::{
    Balance, Conv1d, Data, Param, Routing, Tensor, Weight, balance, bce_with_logits, broadcast_heads, combine,
    concat_last, conv1d, dispatch, gather_rows, group_by_expert, keep_rows, load_balance, mse, per_head_down,
    per_head_up, route, scale_rows, split_last,
};

fn data(seed: u64, dims: &[usize]) -> Data {
    let mut values = vec![0.; dims.iter().product()];
    Rng::new(seed).fill_normal(&mut values, 0., 1.);
    Data::from_vec(values, dims, &Device::Cpu).unwrap()
}

fn param(seed: u64, dims: &[usize]) -> Arc<Param> {
    let param = Param::new("w", Weight::Dense(data(seed, dims)));
    param.set_trainable(true).unwrap();
    Arc::new(param)
}

fn bits(data: &Data) -> Vec<u32> {
    data.flatten_all().unwrap().to_vec1::<f32>().unwrap().into_iter().map(f32::to_bits).collect()
}

type Op<'a> = dyn Fn(&[Tensor], &[Arc<Param>]) -> Result<Tensor> + 'a;
/// Name, inputs, parameters, operation.
type Case<'a> = (&'a str, Vec<Data>, Vec<Arc<Param>>, Box<Op<'a>>);

/// The bits of the value and of every gradient.
fn pass(inputs: &[Data], params: &[Arc<Param>], f: &Op) -> Vec<Vec<u32>> {
    params.iter().for_each(|p| p.zero_grad());
    let leaves: Vec<Tensor> = inputs.iter().map(|x| Tensor::leaf(x.clone())).collect();
    let y = f(&leaves, params).unwrap();
    y.backward_with(if y.dims().is_empty() { y.data().ones_like().unwrap() } else { data(9, y.dims()) }).unwrap();
    let grads = leaves.iter().filter_map(Tensor::grad).chain(params.iter().filter_map(|p| p.grad()));
    std::iter::once(y.data().clone()).chain(grads).map(|x| bits(&x)).collect()
}

#[test]
fn the_number_of_threads_changes_nothing() {
    let routing = Routing { top_k: 3, renormalise: true, scale: 1.5, groups: None };
    let rows: Vec<u32> = (0..900).map(|i| i * 7 % 300).collect();
    let (keep, targets) = ([1, 0, 1].repeat(100), vec![0.25; 300 * 130]);
    let cases: Vec<Case> = vec![
        ("gather", vec![data(1, &[300, 130])], vec![], Box::new(|x, _| gather_rows(&x[0], &rows))),
        ("split, concat", vec![data(1, &[300, 130])], vec![], {
            Box::new(|x, _| concat_last(&split_last(&x[0], &[60, 70])?.iter().rev().collect::<Vec<_>>()))
        }),
        ("broadcast", vec![data(1, &[2, 150, 1, 130])], vec![], Box::new(|x, _| broadcast_heads(&x[0], 5))),
        ("scale", vec![data(1, &[300, 130]), data(2, &[300])], vec![], Box::new(|x, _| scale_rows(&x[0], &x[1]))),
        ("keep", vec![data(1, &[300, 130])], vec![], Box::new(|x, _| keep_rows(&x[0], &keep))),
        ("experts", vec![data(1, &[300, 130]), data(2, &[300, 16])], vec![], {
            Box::new(|x, _| {
                let routed = route(&x[1], &routing)?;
                let groups = group_by_expert(&routed.experts, 3, 16)?;
                let parts = dispatch(&x[0], &groups)?;
                let answers: Vec<_> = parts.into_iter().zip(&groups).map(|(x, g)| (x, &g.slots[..])).collect();
                combine(&answers, &routed.weights, 130)
            })
        }),
        ("balance", vec![data(2, &[3000, 64])], vec![], {
            Box::new(|x, _| balance(&route(&x[0], &routing)?, Balance::Expert, 3, None, 1.))
        }),
        ("load", vec![data(2, &[3000, 64])], vec![], {
            Box::new(|x, _| load_balance(&[&route(&x[0], &routing)?], None, 1.))
        }),
        ("up", vec![data(1, &[40, 4, 32])], vec![param(2, &[4 * 64, 70])], {
            Box::new(|x, p| per_head_up(&x[0], &p[0], 8))
        }),
        ("down", vec![data(1, &[3, 4, 256])], vec![param(2, &[4 * 64, 256])], {
            Box::new(|x, p| per_head_down(&x[0], &p[0], 8, 40))
        }),
        ("conv", vec![data(1, &[3, 100, 24])], vec![param(2, &[20, 12, 3]), param(3, &[20])], {
            Box::new(|x, p| conv1d(&x[0], &p[0], Some(&p[1]), Conv1d::same(3, 2)))
        }),
        ("mse", vec![data(1, &[300, 130])], vec![], Box::new(|x, _| mse(&x[0], &targets, 0.1))),
        ("bce", vec![data(1, &[300, 130])], vec![], Box::new(|x, _| bce_with_logits(&x[0], &targets, 0.1))),
    ];
    for (name, inputs, params, op) in &cases {
        set_threads(1);
        let one = pass(inputs, params, op);
        assert_eq!(one.len(), 1 + inputs.len() + params.len(), "{name}");
        for threads in [2, 3] {
            set_threads(threads);
            assert!(pass(inputs, params, op) == one, "{name} on {threads} threads");
        }
    }
}
