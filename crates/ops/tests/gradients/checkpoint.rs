//! Blocks computed again in the backward pass.

use std::sync::Arc;

use candle_core::Result;
use phyla_kernels::activation::Act;
use phyla_kernels::rng::Rng;
use phyla_ops::{Dropout, Param, Tensor, activate, add, checkpoint, dropout, linear, scale};

use crate::check::{Case, Run, apart, data, param, wide};

/// An MLP with dropout inside: `x + w₂ · dropout(gelu(w₁ x))`.
fn block(x: &Tensor, params: &[Arc<Param>]) -> Result<Tensor> {
    let hidden = activate(&linear(x, &params[0], None)?, Act::Gelu)?;
    let hidden = dropout(&hidden, &Dropout { p: 0.4, rng: Rng::new(5), offset: 3 })?;
    add(x, &linear(&hidden, &params[1], None)?)
}

fn params() -> Vec<Arc<Param>> {
    vec![param(2, &[33, 17]), param(3, &[17, 33])]
}

/// Value and all gradients of one pass by the fast path.
fn pass(run: &Run, inputs: &[Tensor], params: &[Arc<Param>]) -> Vec<Vec<f64>> {
    params.iter().for_each(|param| param.zero_grad());
    let y = run(inputs, params).unwrap();
    y.backward_with(data(4, &[3, 17])).unwrap();
    let mut all = vec![wide(y.data())];
    all.extend(inputs.iter().map(|x| wide(&x.grad().unwrap())));
    all.extend(params.iter().map(|param| wide(&param.grad().unwrap())));
    all
}

#[test]
fn the_same_dropout_is_drawn_again() {
    let kept = |x: &[Tensor], p: &[Arc<Param>]| block(&block(&x[0], p)?, p);
    let again = |x: &[Tensor], p: &[Arc<Param>]| {
        let (first, second) = (p.to_vec(), p.to_vec());
        let y = checkpoint(&[&x[0]], move |x| block(&x[0], &first))?;
        checkpoint(&[&y], move |x| block(&x[0], &second))
    };
    let case = |name: &str, run: &Run| {
        let params = params();
        let mut case = Case::new(name, vec![data(1, &[3, 17])], params.clone(), run);
        // Two blocks of two products each, with terms far larger than the inputs.
        case.tolerance = 1e-4;
        case.check();
        pass(run, &[Tensor::leaf(data(1, &[3, 17]))], &params)
    };
    let same = case("kept", &kept) == case("checkpointed", &again);
    assert!(same, "the same arithmetic twice gives the same bits");
}

/// Two blocks that both read a second input, the first one twice, as layers read one table of positions.
fn two_blocks(
    x: &[Tensor],
    p: &[Arc<Param>],
    run: impl Fn(&Tensor, &Tensor, usize, Vec<Arc<Param>>) -> Result<Tensor>,
) -> Result<Tensor> {
    run(&run(&x[0], &x[1], 0, p.to_vec())?, &x[1], 1, p.to_vec())
}

fn inner(x: &Tensor, shared: &Tensor, index: usize, params: &[Arc<Param>]) -> Result<Tensor> {
    let y = add(&block(x, params)?, &scale(shared, 1.5)?)?;
    if index == 0 { add(&y, shared) } else { Ok(y) }
}

#[test]
fn every_tracked_input_gets_its_gradient() {
    let kept =
        |x: &[Tensor], p: &[Arc<Param>]| two_blocks(x, p, |x, shared, index, params| inner(x, shared, index, &params));
    let again = |x: &[Tensor], p: &[Arc<Param>]| {
        two_blocks(x, p, |x, shared, index, params| {
            checkpoint(&[x, shared], move |x| inner(&x[0], &x[1], index, &params))
        })
    };
    let inputs = || vec![data(1, &[3, 17]), data(5, &[3, 17])];
    let mut case = Case::new("two inputs", inputs(), params(), &again);
    case.tolerance = 1e-4; // As above.
    case.check();
    let leaves = || inputs().into_iter().map(Tensor::leaf).collect::<Vec<_>>();
    let (kept, again) = (pass(&kept, &leaves(), &params()), pass(&again, &leaves(), &params()));
    for (kept, again) in kept.iter().zip(&again) {
        // The three gradients of the shared input are added in another order.
        assert!(apart(kept, again) < 1e-6);
    }
}

#[test]
fn untracked_inputs_and_frozen_weights_get_none() {
    let (params, dy) = (params(), data(4, &[3, 17]));
    let plain = || Tensor::from(data(1, &[3, 17]));
    let run = |a: &Tensor, b: &Tensor| {
        let params = params.clone();
        let y = checkpoint(&[a, b], move |x| {
            assert!(!x[0].tracked(), "an input that needs no gradient stays without history");
            inner(&x[0], &x[1], 0, &params)
        });
        y.unwrap().backward_with(dy.clone()).unwrap();
    };
    // Only parameters learn.
    run(&plain(), &plain());
    assert!(params.iter().all(|param| param.grad().is_some()));
    // Only the second input does.
    params.iter().for_each(|param| {
        param.zero_grad();
        param.set_trainable(false).unwrap();
    });
    let shared = Tensor::leaf(data(5, &[3, 17]));
    run(&plain(), &shared);
    assert_eq!(wide(&shared.grad().unwrap()), wide(&dy).iter().map(|dy| dy * 2.5).collect::<Vec<_>>());
    // Nothing does: the backward pass goes by.
    run(&plain(), &plain());
    assert!(params.iter().all(|param| param.grad().is_none()));
}
