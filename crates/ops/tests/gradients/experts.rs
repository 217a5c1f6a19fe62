//! Mixture of experts: routing, sending rows out and back, balance.

use std::sync::Arc;

use candle_core::{Device, Result};
use phyla_kernels::rng::Rng;
use phyla_ops::{
    Balance, Data, Group, Groups, Param, Routing, Tensor, balance, combine, dispatch, gather_rows, group_by_expert,
    linear, load_balance, plain, route, scale, split_rows,
};

use crate::check::{Case, apart, data, param, wide};

/// Logits that differ by 1/8 at least within a row: a step of the finite differences changes no choice.
fn logits(seed: u64, rows: usize, experts: usize) -> Data {
    let mut rng = Rng::new(seed);
    let mut values = Vec::new();
    for _ in 0..rows {
        let mut row: Vec<f32> = (0..experts).map(|e| (e as f32 - experts as f32 / 2.) / 8.).collect();
        (1..experts).rev().for_each(|i| row.swap(i, rng.below(i as u64 + 1) as usize));
        values.extend(row);
    }
    Data::from_vec(values, (rows, experts), &Device::Cpu).unwrap()
}

const PLAIN: Routing = Routing { top_k: 1, renormalise: false, scale: 1., groups: None };

fn routings(experts: usize) -> Vec<Routing> {
    let mut all = vec![PLAIN];
    for top_k in [2, 3, experts] {
        for renormalise in [false, true] {
            all.push(Routing { top_k, renormalise, scale: 2.5, groups: None });
        }
    }
    all.push(Routing { top_k: 2, renormalise: true, groups: Some(Groups { count: experts / 2, top: 1 }), ..PLAIN });
    all.push(Routing { top_k: 3, groups: Some(Groups { count: experts / 2, top: 2 }), ..PLAIN });
    all.retain(|r| r.top_k <= experts && r.groups.is_none_or(|g| experts.is_multiple_of(2) && g.top <= g.count));
    all
}

const SIZES: &[(usize, usize)] = &[(1, 1), (3, 2), (5, 8), (33, 6), (17, 64)];

#[test]
fn weights_and_probabilities() {
    for &(rows, experts) in SIZES {
        for routing in routings(experts) {
            let weights = |x: &[Tensor], _: &[Arc<Param>]| Ok(route(&x[0], &routing)?.weights);
            let name = format!("weights [{rows}, {experts}], {routing:?}");
            let mut case = Case::new(name, vec![logits(1, rows, experts)], vec![], &weights);
            // The whole gradient vanishes where one expert takes all.
            case.floor = 0.01;
            case.check();
            let probs = |x: &[Tensor], _: &[Arc<Param>]| Ok(route(&x[0], &routing)?.probs);
            let mut case = Case::new("probabilities", vec![logits(1, rows, experts)], vec![], &probs);
            case.floor = 0.01;
            case.check();
            let x: Tensor = logits(1, rows, experts).into();
            let (fast, slow) = (route(&x, &routing).unwrap(), plain::forced(|| route(&x, &routing)).unwrap());
            assert_eq!(fast.experts, slow.experts);
        }
    }
}

#[test]
fn equal_experts_are_chosen_from_the_lowest() {
    let x: Tensor = Data::new(&[[0f32, 0., 0., 0.], [0., 1., 0., 1.]], &Device::Cpu).unwrap().into();
    let routing = Routing { top_k: 3, ..PLAIN };
    assert_eq!(route(&x, &routing).unwrap().experts, [0, 1, 2, 1, 3, 0]);
}

#[test]
fn impossible_routings_are_errors() {
    let x: Tensor = logits(1, 3, 8).into();
    let message = |routing: Routing| route(&x, &routing).unwrap_err().to_string();
    assert!(message(Routing { top_k: 0, ..PLAIN }).contains("routing to 0 experts"));
    assert!(message(Routing { top_k: 9, ..PLAIN }).contains("among 8 of 8"));
    let groups = |count, top| Some(Groups { count, top });
    assert!(message(Routing { top_k: 5, groups: groups(4, 2), ..PLAIN }).contains("among 4 of 8"));
    for (count, top) in [(0, 0), (3, 1), (4, 5)] {
        assert!(message(Routing { groups: groups(count, top), ..PLAIN }).contains("do not come in such groups"));
    }
}

#[test]
fn choices_are_sorted_by_expert() {
    let group = |expert, rows: &[u32], slots: &[u32]| Group { expert, rows: rows.to_vec(), slots: slots.to_vec() };
    assert_eq!(
        group_by_expert(&[3, 0, 0, 5, 3, 5], 2, 7).unwrap(),
        [group(0, &[0, 1], &[1, 2]), group(3, &[0, 2], &[0, 4]), group(5, &[1, 2], &[3, 5])]
    );
    assert_eq!(group_by_expert(&[], 2, 7).unwrap(), []);
    assert!(group_by_expert(&[1, 7], 2, 7).unwrap_err().to_string().contains("row 0 chose expert 7 of 7"));
    assert!(group_by_expert(&[1, 1, 1], 2, 7).is_err());
}

#[test]
fn rows_cut_into_pieces_and_their_gradients_together() {
    for (dims, sizes) in [(vec![1], vec![1]), (vec![6, 3], vec![1, 2, 3]), (vec![5, 2, 3], vec![0, 5, 0])] {
        let run = |x: &[Tensor], _: &[Arc<Param>]| {
            let pieces = split_rows(&x[0], &sizes)?;
            let pieces: Vec<_> = pieces.iter().filter(|p| p.data().elem_count() > 0).collect();
            // The first counted twice, the last alone; those between not at all.
            let mut first = scale(pieces[0], 3.)?;
            if pieces.len() > 1 {
                let width = first.dims()[1..].iter().product::<usize>();
                let (a, b) = (first.reshape((1, width * first.dims()[0]))?, pieces[pieces.len() - 1]);
                let b = b.reshape((1, b.data().elem_count()))?;
                first = phyla_ops::concat_last(&[&a, &b])?;
            }
            Ok(first)
        };
        Case::new(format!("{dims:?} into {sizes:?}"), vec![data(1, &dims)], vec![], &run).check();
    }
    let x: Tensor = data(1, &[3, 4]).into();
    assert!(split_rows(&x, &[1, 1]).is_err());
    assert!(!split_rows(&x, &[1, 2]).unwrap()[1].tracked());
}

/// A whole layer: experts are single weights.
fn mixture(x: &Tensor, logits: &Tensor, experts: &[Arc<Param>], routing: &Routing) -> Result<Tensor> {
    let routed = route(logits, routing)?;
    let groups = group_by_expert(&routed.experts, routing.top_k, experts.len())?;
    let answers: Vec<_> = dispatch(x, &groups)?
        .into_iter()
        .zip(&groups)
        .map(|(x, group)| Ok((linear(&x, &experts[group.expert], None)?, &group.slots[..])))
        .collect::<Result<_>>()?;
    combine(&answers, &routed.weights, experts[0].dims()[0])
}

/// The same with every expert on every row: the weights of those that were not chosen are 0.
fn dense(x: &Data, logits: &Data, experts: &[Arc<Param>], routing: &Routing) -> Vec<f64> {
    let routed = route(&logits.clone().into(), routing).unwrap();
    let (weights, rows) = (wide(routed.weights.data()), x.dim(0).unwrap());
    let out = experts[0].dims()[0];
    let mut y = vec![0.; rows * out];
    for (e, expert) in experts.iter().enumerate() {
        let answers = wide(linear(&x.clone().into(), expert, None).unwrap().data());
        for (slot, _) in routed.experts.iter().enumerate().filter(|(_, chosen)| **chosen as usize == e) {
            let row = slot / routing.top_k;
            (0..out).for_each(|i| y[row * out + i] += weights[slot] * answers[row * out + i]);
        }
    }
    y
}

#[test]
fn a_whole_mixture() {
    for (rows, experts, dim, out) in [(1, 1, 1, 1), (1, 4, 3, 2), (5, 2, 17, 5), (40, 8, 9, 33)] {
        for routing in routings(experts) {
            let inputs = vec![data(1, &[rows, dim]), logits(2, rows, experts)];
            let weights: Vec<_> = (0..experts).map(|e| param(10 + e as u64, &[out, dim])).collect();
            let name = format!("{rows} rows, {experts} experts, {dim} -> {out}, {routing:?}");
            let value = mixture(&inputs[0].clone().into(), &inputs[1].clone().into(), &weights, &routing).unwrap();
            let truth = dense(&inputs[0], &inputs[1], &weights, &routing);
            assert!(apart(&wide(value.data()), &truth) < 1e-5, "{name}");
            // Experts that nobody chose get no gradient, so only the chosen ones are checked.
            let chosen = route(&inputs[1].clone().into(), &routing).unwrap().experts;
            for (e, weight) in weights.iter().enumerate() {
                weight.set_trainable(chosen.contains(&(e as u32))).unwrap();
            }
            let run = |x: &[Tensor], w: &[Arc<Param>]| mixture(&x[0], &x[1], w, &routing);
            Case::new(name, inputs, weights, &run).check();
        }
    }
}

#[test]
fn answers_may_be_missing_empty_or_frozen() {
    let (rows, k, dim) = (4, 2, 3);
    // Slots 2 and 5 are answered elsewhere; one group is empty.
    let slots: [&[u32]; 3] = [&[7, 0, 3], &[], &[1, 4, 6]];
    let run = |x: &[Tensor], _: &[Arc<Param>]| {
        let empty: Tensor = data(1, &[0, dim]).into();
        combine(&[(x[0].clone(), slots[0]), (empty, slots[1]), (x[1].clone(), slots[2])], &x[2], dim)
    };
    let inputs = vec![data(1, &[3, dim]), data(2, &[3, dim]), data(3, &[rows, k])];
    Case::new("missing answers", inputs.clone(), vec![], &run).check();
    // Gradients only where wanted.
    for wanted in 0..3 {
        let inputs: Vec<Tensor> = (0..3)
            .map(|i| if i == wanted { Tensor::leaf(inputs[i].clone()) } else { inputs[i].clone().into() })
            .collect();
        let y = run(&inputs, &[]).unwrap();
        y.backward_with(data(99, &[rows, dim])).unwrap();
        assert!(inputs.iter().enumerate().all(|(i, x)| x.grad().is_some() == (i == wanted)));
    }
    // No rows, no answers.
    let none = |rows: usize| combine(&[], &Tensor::leaf(data(1, &[rows, k])), dim).unwrap();
    assert_eq!(wide(none(2).data()), [0.; 6]);
    let nothing = none(0);
    nothing.backward_with(nothing.data().clone()).unwrap();
    let x = Tensor::leaf(data(1, &[0, 3]));
    assert!(dispatch(&x, &[]).unwrap().is_empty());
    assert!(route(&x, &PLAIN).unwrap().experts.is_empty());
}

#[test]
fn answers_that_do_not_fit_are_errors() {
    let (answer, weights): (Tensor, Tensor) = (data(1, &[2, 3]).into(), data(2, &[2, 2]).into());
    let message = |slots: &[u32]| combine(&[(answer.clone(), slots)], &weights, 3).unwrap_err().to_string();
    assert!(message(&[1]).contains("1 slots need answers of [1, 3], found [2, 3]"));
    assert!(message(&[1, 1]).contains("slot 1 is answered twice"));
    assert!(message(&[1, 4]).contains("slot 4 of 4"));
    assert!(gather_rows(&answer, &[2]).is_err());
}

#[test]
fn balance_of_experts_devices_and_communication() {
    for (sequences, time, experts) in [(1, 1, 1), (1, 5, 8), (3, 4, 6), (2, 33, 64)] {
        let rows = sequences * time;
        let routing = Routing { top_k: experts.min(3), ..PLAIN };
        let devices = if experts % 2 == 0 { 2 } else { 1 };
        let mask: Vec<u8> = (0..rows).map(|row| (row % 4 != 1) as u8).collect();
        let alone: Vec<u8> = (0..rows).map(|row| (row / time == 0) as u8).collect();
        for keep in [None, Some(&mask[..]), Some(&alone[..])] {
            let communication = Balance::Communication { devices, limit: 2 };
            for of in [Balance::Expert, Balance::Device { devices }, communication] {
                let run = |x: &[Tensor], _: &[Arc<Param>]| balance(&route(&x[0], &routing)?, of, sequences, keep, 2.);
                let name = format!("{of:?}, {sequences} x {time} rows, {experts} experts, {keep:?}");
                Case::new(name, vec![logits(1, rows, experts)], vec![], &run).check();
            }
        }
    }
}

#[test]
fn load_balance_over_layers() {
    for (rows, experts) in [(1, 1), (5, 8), (33, 6)] {
        let routing = Routing { top_k: experts.min(2), ..PLAIN };
        let mask: Vec<u8> = (0..rows).map(|row| (row % 4 != 1) as u8).collect();
        for keep in [None, Some(&mask[..])] {
            let run = |x: &[Tensor], _: &[Arc<Param>]| {
                let layers = [route(&x[0], &routing)?, route(&x[1], &routing)?];
                // Not where the backward pass starts.
                scale(&load_balance(&layers.iter().collect::<Vec<_>>(), keep, 0.3)?, 3.)
            };
            let inputs = vec![logits(1, rows, experts), logits(2, rows, experts)];
            Case::new(format!("load of {experts} experts, {rows} rows, {keep:?}"), inputs, vec![], &run).check();
        }
    }
}

#[test]
fn an_even_spread_has_the_least_loss() {
    // Everybody equally likely, and chosen in turn: f = P = 1 / experts each, so 1 for one choice a row.
    let x: Tensor = Data::zeros((4, 4), candle_core::DType::F32, &Device::Cpu).unwrap().into();
    let mut routed = route(&x, &PLAIN).unwrap();
    routed.experts = vec![0, 1, 2, 3];
    assert_eq!(wide(load_balance(&[&routed], None, 1.).unwrap().data()), [1.]);
    assert_eq!(wide(balance(&routed, Balance::Expert, 1, None, 1.).unwrap().data()), [1.]);
    let padding = balance(&routed, Balance::Expert, 1, Some(&[0; 4]), 1.).unwrap();
    assert_eq!(wide(padding.data()), [0.]);
}

#[test]
fn balances_that_do_not_fit_are_errors() {
    let routed = route(&logits(1, 6, 8).into(), &PLAIN).unwrap();
    let message =
        |of, sequences, keep: Option<&[u8]>| balance(&routed, of, sequences, keep, 1.).unwrap_err().to_string();
    assert!(message(Balance::Expert, 4, None).contains("6 rows are not 4 sequences"));
    assert!(message(Balance::Expert, 0, None).contains("0 sequences"));
    assert!(message(Balance::Expert, 1, Some(&[1; 5])).contains("a mask of 5"));
    assert!(message(Balance::Device { devices: 3 }, 1, None).contains("3 devices"));
    assert!(message(Balance::Device { devices: 0 }, 1, None).contains("0 devices"));
    assert!(message(Balance::Communication { devices: 2, limit: 0 }, 1, None).contains("not to 0"));
    assert!(load_balance(&[], None, 1.).is_err());
    let other = route(&logits(1, 5, 8).into(), &PLAIN).unwrap();
    assert!(load_balance(&[&routed, &other], None, 1.).unwrap_err().to_string().contains("equal sizes"));
}
