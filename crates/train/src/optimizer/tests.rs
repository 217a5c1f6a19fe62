//! The fused update against the plain one, and the whole optimiser against its own restored copy.
#![expect(clippy::unwrap_used, reason = "tests")]

use super::*;
use crate::recipe::{Adafactor, AdamW, Lion, Sgd};

fn param(path: &str, dims: &[usize], shift: f32) -> Arc<Param> {
    let n: usize = dims.iter().product();
    let values: Vec<f32> = (0..n).map(|i| ((i as f32 + shift) * 0.7).sin()).collect();
    let param = Arc::new(Param::new(path, Weight::Dense(cpu::tensor(values, dims).unwrap())));
    param.set_trainable(true).unwrap();
    param
}

fn optim(rule: Rule) -> Optim {
    Optim { rule, lr: 0.1, weight_decay: 0.05, ..Optim::default() }
}

fn set_grad(param: &Param, step: u64) {
    let grad: Vec<f32> = (0..param.count()).map(|i| (i as f32 * 1.3 + step as f32).cos()).collect();
    param.zero_grad();
    param.accumulate_data(&cpu::tensor(grad, param.dims()).unwrap()).unwrap();
}

fn values(param: &Param) -> Vec<f32> {
    param.weight().to_f32().unwrap().flatten_all().unwrap().to_vec1().unwrap()
}

#[test]
fn fused_equals_plain() {
    let rules = [
        Rule::Adamw(AdamW::default()),
        Rule::Sgd(Sgd { momentum: 0., nesterov: false }),
        Rule::Sgd(Sgd { momentum: 0.9, nesterov: false }),
        Rule::Sgd(Sgd { momentum: 0.9, nesterov: true }),
        Rule::Lion(Lion::default()),
    ];
    for rule in rules {
        for dims in [vec![5, 7], vec![33]] {
            let (a, b) = (param("a.weight", &dims, 0.), param("a.weight", &dims, 0.));
            let mut fused = Optimizer::new(&optim(rule.clone()), std::slice::from_ref(&a), |_| 1.).unwrap();
            let mut plain = Optimizer::new(&optim(rule.clone()), std::slice::from_ref(&b), |_| 1.).unwrap();
            for step in 1..=4 {
                set_grad(&a, step);
                set_grad(&b, step);
                let args = StepArgs { lr: 0.1, grad_scale: 0.5 };
                fused.step(args).unwrap();
                plain.step += 1;
                let call = Call { rule: &rule, settings: plain.items[0].settings, args, step };
                call.plain(&plain.items[0], &b.grad().unwrap()).unwrap();
            }
            for (x, y) in values(&a).iter().zip(values(&b)) {
                // Single-precision rounding of a few operations a step.
                assert!((x - y).abs() < 2e-6, "{rule:?} {dims:?}: {x} {y}");
            }
        }
    }
}

#[test]
fn a_restored_optimiser_goes_on_bit_for_bit() {
    let rules = [
        Rule::Adamw(AdamW::default()),
        Rule::Sgd(Sgd { momentum: 0.9, nesterov: true }),
        Rule::Lion(Lion::default()),
        Rule::Adafactor(Adafactor { beta1: Some(0.9), ..Adafactor::default() }),
        Rule::Adafactor(Adafactor::default()),
    ];
    for rule in rules {
        let params = [param("m.weight", &[4, 6], 1.), param("m.bias", &[6], 2.), param("one.weight", &[1, 3], 3.)];
        let mut whole = Optimizer::new(&optim(rule.clone()), &params, |_| 1.).unwrap();
        let run = |optimizer: &mut Optimizer, steps: std::ops::RangeInclusive<u64>| {
            for step in steps {
                optimizer.params().for_each(|param| set_grad(param, step));
                optimizer.step(StepArgs { lr: 0.01, grad_scale: 1. }).unwrap();
            }
        };
        run(&mut whole, 1..=3);
        let copies: Vec<Arc<Param>> = (params.iter())
            .map(|param| {
                let data = cpu::tensor(values(param), param.dims()).unwrap();
                let copy = Arc::new(Param::new(param.path(), Weight::Dense(data)));
                copy.set_trainable(true).unwrap();
                copy
            })
            .collect();
        let mut half = Optimizer::new(&optim(rule.clone()), &copies, |_| 1.).unwrap();
        let saved: Vec<(String, Data)> = whole.state().map(|(n, d)| (n, d.copy().unwrap())).collect();
        half.restore(3, |name, _| Ok(saved.iter().find(|(n, _)| n == name).unwrap().1.clone())).unwrap();
        run(&mut whole, 4..=6);
        run(&mut half, 4..=6);
        for (a, b) in params.iter().zip(&copies) {
            assert_eq!(values(a), values(b), "{rule:?} {}", a.path());
            assert!(values(a).iter().all(|x| x.is_finite()));
        }
    }
}

#[test]
fn a_weight_without_gradient_is_an_error() {
    let params = [param("a.weight", &[2, 2], 0.), param("b.weight", &[2, 2], 0.)];
    let optimizer = Optimizer::new(&optim(Rule::default()), &params, |_| 1.).unwrap();
    set_grad(&params[0], 1);
    assert!(optimizer.grad_norm().unwrap_err().to_string().contains("b.weight"));
}
