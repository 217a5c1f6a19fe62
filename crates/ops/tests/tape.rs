//! The tape: what is recorded, what is freed and when, and how gradients meet.
#![expect(clippy::unwrap_used, reason = "tests")]

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Weak};

use candle_core::Device;
use phyla_kernels::activation::Act;
use phyla_ops::{
    CrossEntropy, Data, Param, Tensor, Weight, activate, add, cross_entropy, embedding, linear, linear_cross_entropy,
    no_grad, recording, scale,
};

fn row(values: &[f32]) -> Data {
    Data::new(values, &Device::Cpu).unwrap()
}

fn values(data: &Data) -> Vec<f32> {
    data.flatten_all().unwrap().to_vec1().unwrap()
}

fn grad(x: &Tensor) -> Vec<f32> {
    values(&x.grad().unwrap())
}

fn param(dims: &[usize]) -> Arc<Param> {
    let count = dims.iter().product();
    let numbers = (0..count).map(|i| (i as f32 * 1.7).sin()).collect::<Vec<_>>();
    let param = Param::new("p", Weight::Dense(Data::from_vec(numbers, dims, &Device::Cpu).unwrap()));
    param.set_trainable(true).unwrap();
    Arc::new(param)
}

/// `x`, through an operation that holds `kept` until its backward pass has run.
fn holding(x: &Tensor, kept: Arc<()>, seen: impl FnOnce() + Send + 'static) -> Tensor {
    Tensor::record(x.data().clone(), &[x], false, move |dy| {
        seen();
        drop(kept);
        Ok(vec![Some(dy)])
    })
}

#[test]
fn a_second_backward_pass_over_one_operation_is_an_error() {
    let x = Tensor::leaf(row(&[1., 2.]));
    let y = scale(&x, 3.).unwrap();
    y.backward_with(row(&[1., 1.])).unwrap();
    let message = y.backward_with(row(&[1., 1.])).unwrap_err().to_string();
    assert!(message.contains("second backward pass"), "{message}");
    assert_eq!(grad(&x), [3., 3.], "the failed pass adds nothing");
    // The same through a tensor made later from the same history.
    assert!(scale(&y, 2.).unwrap().backward_with(row(&[1., 1.])).is_err());
}

#[test]
fn backward_starts_from_one_number_with_a_history() {
    let x = Tensor::leaf(row(&[1., 2.]));
    assert!(scale(&x, 3.).unwrap().backward().unwrap_err().to_string().contains("one number"));
    assert!(Tensor::from(row(&[1.])).backward().unwrap_err().to_string().contains("nothing was recorded"));
}

#[test]
fn gradients_of_two_passes_and_of_two_uses_add_up() {
    let x = Tensor::leaf(row(&[1., -2.]));
    // x² by hand: both inputs are the same tensor.
    let square = |x: &Tensor| {
        let (a, data) = (x.data().clone(), (x.data() * x.data()).unwrap());
        Tensor::record(data, &[x, x], false, move |dy| Ok(vec![Some((&dy * &a)?), Some((&dy * &a)?)]))
    };
    square(&x).backward_with(row(&[1., 1.])).unwrap();
    assert_eq!(grad(&x), [2., -4.]);
    // A second graph on the same leaf; x is used by the square, by the factor and by the sum itself.
    let y = add(&add(&square(&x), &scale(&x, 10.).unwrap()).unwrap(), &x).unwrap();
    y.backward_with(row(&[1., 1.])).unwrap();
    assert_eq!(grad(&x), [2. + 2. + 10. + 1., -4. - 4. + 10. + 1.]);
}

#[test]
fn gradients_that_branches_share_do_not_leak_into_one_another() {
    // Both leaves are handed the very same gradient; what is added to one later must not show in the other.
    let (a, b) = (Tensor::leaf(row(&[1., 2.])), Tensor::leaf(row(&[3., 4.])));
    let up = row(&[1., 1.]);
    add(&a, &b).unwrap().backward_with(up.clone()).unwrap();
    scale(&a, 5.).unwrap().backward_with(row(&[1., 1.])).unwrap();
    assert_eq!((grad(&a), grad(&b), values(&up)), (vec![6., 6.], vec![1., 1.], vec![1., 1.]));
    // Within one pass: a residual whose branch adds to a gradient that the other branch still waits for.
    let x = Tensor::leaf(row(&[1., 2.]));
    let branch = scale(&x, 2.).unwrap();
    let other = scale(&x, 3.).unwrap();
    let sum = add(&add(&x, &branch).unwrap(), &add(&other, &branch).unwrap()).unwrap();
    sum.backward_with(row(&[1., 10.])).unwrap();
    assert_eq!(grad(&x), [8., 80.]);
}

#[test]
fn what_an_operation_kept_is_freed_as_its_turn_passes() {
    const DEPTH: usize = 10;
    let kept: Vec<Arc<()>> = (0..DEPTH).map(|_| Arc::new(())).collect();
    let weak: Arc<Vec<Weak<()>>> = Arc::new(kept.iter().map(Arc::downgrade).collect());
    let turns = Arc::new(AtomicUsize::new(0));
    let x = Tensor::leaf(row(&[1.]));
    let mut y = x.clone();
    for kept in kept {
        let (weak, turns) = (weak.clone(), turns.clone());
        y = holding(&y, kept, move || {
            let alive = weak.iter().filter(|kept| kept.strong_count() > 0).count();
            // Of the operations after this one nothing is left; this one and those before it wait.
            assert_eq!(alive, DEPTH - turns.fetch_add(1, Ordering::Relaxed));
        });
    }
    y.backward().unwrap();
    assert_eq!(turns.load(Ordering::Relaxed), DEPTH);
    assert!(weak.iter().all(|kept| kept.strong_count() == 0), "all is free although the result is still here");
    assert_eq!(grad(&x), [1.]);
}

#[test]
fn a_history_dies_with_its_result() {
    let kept = Arc::new(());
    let y = holding(&Tensor::leaf(row(&[1.])), kept.clone(), || {});
    let z = scale(&y, 2.).unwrap();
    drop(y);
    assert_eq!(Arc::strong_count(&kept), 2);
    drop(z);
    assert_eq!(Arc::strong_count(&kept), 1);
}

#[test]
fn nothing_is_recorded_without_need() {
    let kept = Arc::new(());
    let x = Tensor::leaf(row(&[1.]));
    let y = no_grad(|| {
        assert!(!recording());
        holding(&x, kept.clone(), || {})
    });
    assert!(!y.tracked() && recording());
    assert_eq!(Arc::strong_count(&kept), 1);
    assert!(!holding(&row(&[1.]).into(), kept.clone(), || {}).tracked(), "no input needs a gradient");
    let w = param(&[3, 1]);
    assert!(!no_grad(|| linear(&x, &w, None)).unwrap().tracked());
    // Recording comes back after an error or a panic inside.
    let _ = std::panic::catch_unwind(|| no_grad(|| std::panic::resume_unwind(Box::new(()))));
    assert!(recording());
    // On this thread only: others keep recording.
    no_grad(|| assert!(std::thread::spawn(recording).join().unwrap()));
}

#[test]
fn a_tied_parameter_gets_both_contributions() {
    let (ids, targets) = ([3u32, 1, 4, 1], [1, 4, 1, 2]);
    let args = CrossEntropy { label_smoothing: 0., scale: 0.25 };
    let run = |table: &Arc<Param>, head: &Arc<Param>, fused: bool| {
        let x = activate(&embedding(table, &ids, &[4], None).unwrap(), Act::Silu).unwrap();
        let loss = match fused {
            true => linear_cross_entropy(&x, head, None, &targets, args),
            false => cross_entropy(&linear(&x, head, None).unwrap(), &targets, args),
        };
        loss.unwrap().backward().unwrap();
    };
    for fused in [true, false] {
        let (tied, table, head) = (param(&[5, 3]), param(&[5, 3]), param(&[5, 3]));
        run(&tied, &tied, fused);
        run(&table, &head, fused);
        let [tied, table, head] = [tied, table, head].map(|param| values(&param.grad().unwrap()));
        for i in 0..15 {
            // The two contributions, added in either order.
            assert!((tied[i] - table[i] - head[i]).abs() < 1e-6, "element {i}, fused {fused}");
            assert!(table[i] == 0. || tied[i] != head[i]);
        }
    }
}

#[test]
fn gradients_of_parameters_add_up_until_they_are_forgotten() {
    let (w, x) = (param(&[2, 2]), Tensor::from(row(&[1., 2.]).reshape((1, 2)).unwrap()));
    let step = |dy: &[f32]| linear(&x, &w, None).unwrap().backward_with(row(dy).reshape((1, 2)).unwrap()).unwrap();
    step(&[1., 0.]);
    step(&[0., 3.]);
    assert_eq!(values(&w.grad().unwrap()), [1., 2., 3., 6.]);
    w.zero_grad();
    assert!(w.grad().is_none(), "a weight without gradient must be seen as such");
    step(&[1., 1.]);
    assert_eq!(values(&w.grad().unwrap()), [1., 2., 1., 2.]);
    // Through the other door, which devices without kernels use.
    w.accumulate_data(&w.grad().unwrap().copy().unwrap()).unwrap();
    assert_eq!(values(&w.grad().unwrap()), [2., 4., 2., 4.]);
    w.zero_grad();
    w.accumulate_data(&row(&[1., 2., 3., 4.]).reshape((2, 2)).unwrap()).unwrap();
    assert_eq!(values(&w.grad().unwrap()), [1., 2., 3., 4.]);
}

#[test]
fn an_operation_that_returns_too_few_gradients_is_an_error() {
    let (a, b) = (Tensor::leaf(row(&[1.])), Tensor::leaf(row(&[2.])));
    let y = Tensor::record(row(&[3.]), &[&a, &b], false, |dy| Ok(vec![Some(dy)]));
    let message = y.backward().unwrap_err().to_string();
    assert!(message.contains("1 gradients for 2 inputs"), "{message}");
}

#[test]
fn deep_histories_fit_a_small_stack() {
    const DEPTH: usize = 200_000;
    let chain = || {
        let x = Tensor::leaf(row(&[1.]));
        let mut y = x.clone();
        for i in 0..DEPTH {
            // Every other node has two ways to it.
            y = if i % 2 == 0 { scale(&y, 1.).unwrap() } else { scale(&add(&y, &y).unwrap(), 0.5).unwrap() };
        }
        (x, y)
    };
    let run = move || {
        drop(chain());
        let (x, y) = chain();
        y.backward().unwrap();
        assert_eq!(grad(&x), [1.]);
    };
    std::thread::Builder::new().stack_size(256 << 10).spawn(run).unwrap().join().unwrap();
}
