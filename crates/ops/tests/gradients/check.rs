//! Holds one operation's fast path against its plain reference, and its gradients against finite differences.

use std::sync::Arc;

use candle_core::{DType, Device, Result};
use phyla_kernels::rng::Rng;
use phyla_ops::{Data, Param, Tensor, Weight, plain};

/// What an operation is applied to, and how exact it must be.
pub struct Case<'a> {
    pub name: String,
    /// f32; gradients are wanted for each.
    pub inputs: Vec<Data>,
    pub params: Vec<Arc<Param>>,
    pub run: &'a Run<'a>,
    /// Largest difference allowed, as a share of the largest element: what the sums of one operation lose to
    /// rounding is proportional to their terms, not to their possibly cancelled result. The default, 1e-5, is
    /// some 170 units in the last place of f32 (6e-8): a sum of a few hundred terms in any order stays well
    /// below, and a forgotten term, a wrong factor or a neighbour's value is orders of magnitude above.
    pub tolerance: f64,
    /// Below this size the largest element no longer counts: differences are then a share of this.
    pub floor: f64,
    /// Whether the reference has an f64 form that can be differentiated numerically.
    pub numeric: bool,
}

pub type Run<'a> = dyn Fn(&[Tensor], &[Arc<Param>]) -> Result<Tensor> + 'a;

/// Numbers in about -2..2 that are odd multiples of 1/128: a step of `H` or `2 H` to either side is exact in f32,
/// and crosses neither 0 nor another whole number, where some activations have a kink.
pub fn numbers(seed: u64, count: usize) -> Vec<f32> {
    spread(seed, count, 128)
}

/// The same in about `-bound / 64 .. bound / 64`.
pub fn spread(seed: u64, count: usize, bound: i64) -> Vec<f32> {
    let mut rng = Rng::new(seed);
    (0..count).map(|_| (2 * (rng.below(2 * bound as u64) as i64 - bound) + 1) as f32 / 128.).collect()
}

pub fn data(seed: u64, dims: &[usize]) -> Data {
    Data::from_vec(numbers(seed, dims.iter().product()), dims, &Device::Cpu).unwrap()
}

pub fn param(seed: u64, dims: &[usize]) -> Arc<Param> {
    trained(Weight::Dense(data(seed, dims)))
}

pub fn trained(weight: Weight) -> Arc<Param> {
    let param = Arc::new(Param::new(format!("test.{:?}", weight.dims()), weight));
    param.set_trainable(true).unwrap();
    param
}

pub fn wide(data: &Data) -> Vec<f64> {
    data.to_dtype(DType::F64).unwrap().flatten_all().unwrap().to_vec1().unwrap()
}

/// The largest difference as a share of the largest element of `b`.
pub fn apart(a: &[f64], b: &[f64]) -> f64 {
    apart_over(1e-3, a, b)
}

fn apart_over(floor: f64, a: &[f64], b: &[f64]) -> f64 {
    assert_eq!(a.len(), b.len(), "lengths differ");
    let top = b.iter().fold(floor, |top: f64, x| top.max(x.abs()));
    // Written so that NaN is far apart, not near.
    a.iter()
        .zip(b)
        .map(|(a, b)| if (a - b).abs() <= f64::MAX { (a - b).abs() / top } else { f64::MAX })
        .fold(0., f64::max)
}

/// Value, input gradients and parameter gradients, the output's gradient being [`upstream`].
struct Pass {
    value: Vec<f64>,
    grads: Vec<(String, Vec<f64>)>,
}

fn upstream(value: &Data) -> Data {
    match value.dims() {
        // The fused loss starts the backward pass: its gradient is 1.
        [] => value.ones_like().unwrap(),
        dims => data(99, dims),
    }
}

/// A step of the finite differences. With the five points of the rule below the error is `H⁴ f⁽⁵⁾ / 30`, some
/// 1e-12, and that of rounding in f64 some 1e-13: neither is seen beside the f32 of what is checked.
const H: f32 = 1. / 512.;
/// Elements of each tensor that are moved.
const PROBES: usize = 12;

impl<'a> Case<'a> {
    pub fn new(name: impl Into<String>, inputs: Vec<Data>, params: Vec<Arc<Param>>, run: &'a Run<'a>) -> Self {
        Self { name: name.into(), inputs, params, run, tolerance: 1e-5, floor: 1e-3, numeric: true }
    }

    /// Fast against plain, and both against finite differences.
    pub fn check(&self) {
        let fast = self.pass();
        let plain = plain::forced(|| self.pass());
        let same = |what: &str, a: &[f64], b: &[f64]| {
            let apart = apart_over(self.floor, a, b);
            assert!(apart <= self.tolerance, "{}: {what} are {apart:e} apart", self.name);
        };
        same("values of fast and plain", &fast.value, &plain.value);
        assert_eq!(fast.grads.len(), plain.grads.len());
        for ((what, a), (_, b)) in fast.grads.iter().zip(&plain.grads) {
            same(&format!("gradients by fast and plain of {what}"), a, b);
        }
        if self.numeric {
            self.numeric(&fast);
        }
    }

    fn pass(&self) -> Pass {
        self.params.iter().for_each(|param| param.zero_grad());
        let leaves: Vec<Tensor> = self.inputs.iter().map(|x| Tensor::leaf(x.clone())).collect();
        let y = (self.run)(&leaves, &self.params).unwrap();
        y.backward_with(upstream(y.data())).unwrap();
        let mut grads = vec![];
        for (i, leaf) in leaves.iter().enumerate() {
            let grad = leaf.grad().unwrap_or_else(|| panic!("{}: input {i} got no gradient", self.name));
            assert_eq!(grad.dims(), leaf.dims(), "{}: gradient of input {i}", self.name);
            grads.push((format!("input {i}"), wide(&grad)));
        }
        for (i, param) in self.params.iter().enumerate().filter(|(_, param)| param.trainable()) {
            let grad = param.grad().unwrap_or_else(|| panic!("{}: parameter {i} got no gradient", self.name));
            assert_eq!(grad.dims(), param.dims(), "{}: gradient of parameter {i}", self.name);
            grads.push((format!("parameter {i}"), wide(&grad)));
        }
        Pass { value: wide(y.data()), grads }
    }

    /// `Σ upstream · y`, by the plain reference in f64.
    fn objective(&self, inputs: &[Data], params: &[Arc<Param>]) -> f64 {
        let inputs: Vec<Tensor> = inputs.iter().map(|x| x.to_dtype(DType::F64).unwrap().into()).collect();
        let y = plain::forced(|| (self.run)(&inputs, params)).unwrap().into_data();
        wide(&y).iter().zip(wide(&upstream(&y))).map(|(y, up)| y * up).sum()
    }

    fn numeric(&self, fast: &Pass) {
        for (i, x) in self.inputs.iter().enumerate() {
            self.compare(&fast.grads[i], x, |moved| {
                let mut inputs = self.inputs.clone();
                inputs[i] = moved;
                self.objective(&inputs, &self.params)
            });
        }
        let trained = self.params.iter().filter(|param| param.trainable());
        for (param, grad) in trained.zip(&fast.grads[self.inputs.len()..]) {
            // A parameter in mixed precision is read through its low copy, which small steps do not move.
            if param.low().is_some() {
                continue;
            }
            let Weight::Dense(before) = param.weight() else { unreachable!("trained weights are our own") };
            self.compare(grad, &before, |moved| {
                param.set_weight(Weight::Dense(moved)).unwrap();
                self.objective(&self.inputs, &self.params)
            });
            param.set_weight(Weight::Dense(before)).unwrap();
        }
    }

    fn compare(&self, (what, grad): &(String, Vec<f64>), at: &Data, objective: impl Fn(Data) -> f64) {
        let values: Vec<f32> = at.flatten_all().unwrap().to_vec1().unwrap();
        let mut rng = Rng::new(7);
        let probes = (0..PROBES.min(values.len())).map(|i| match values.len() {
            n if n <= PROBES => i,
            n => rng.below(n as u64) as usize,
        });
        let (mut ours, mut theirs) = (vec![], vec![]);
        for probe in probes {
            let moved = |by: f32| {
                let mut values = values.clone();
                values[probe] += by;
                objective(Data::from_vec(values, at.dims(), at.device()).unwrap())
            };
            let (near, far) = (moved(H) - moved(-H), moved(2. * H) - moved(-2. * H));
            theirs.push((8. * near - far) / (12. * H as f64));
            ours.push(grad[probe]);
        }
        // The scale is that of the whole gradient, as above.
        theirs.push(grad.iter().fold(0., |top: f64, x| top.max(x.abs())));
        ours.push(theirs[theirs.len() - 1]);
        let apart = apart_over(self.floor, &ours, &theirs);
        assert!(apart <= self.tolerance, "{}: gradient of {what} is {apart:e} off:\n{ours:?}\n{theirs:?}", self.name);
    }
}
