//! Activation functions, alone and as the gate of a gated linear unit, with their gradients.

use crate::chunk::{self, Parts};
use crate::vector::{self, Math, per_isa};

/// An activation function.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Act {
    /// `x`.
    Identity,
    /// `max(x, 0)`.
    Relu,
    /// `max(x, 0)²` (So et al., "Primer", 2021).
    Relu2,
    /// `min(max(x, 0), 6)`.
    Relu6,
    /// `x` above 0, `0.01 x` below.
    LeakyRelu,
    /// `x sigmoid(x)`, also called swish.
    Silu,
    /// `x Φ(x)` by the error function (Hendrycks and Gimpel 2016).
    Gelu,
    /// GELU by tanh: `x / 2 (1 + tanh(√(2/π) (x + 0.044715 x³)))`.
    GeluTanh,
    /// `x sigmoid(1.702 x)`.
    QuickGelu,
    /// GELU cut to [-10, 10].
    ClippedGelu,
    /// `1 / (1 + e^-x)`.
    Sigmoid,
    /// `tanh x`.
    Tanh,
    /// `x tanh(ln(1 + e^x))` (Misra 2019).
    Mish,
    /// `(1 + erf((x - √½) √(2π))) / 2` (Ma et al., "Mega", 2022).
    Laplace,
    /// `x` above 0, `e^x - 1` below (Clevert et al. 2015).
    Elu,
    /// ELU with the two factors under which activations keep their mean and variance (Klambauer et al. 2017).
    Selu,
}

/// Hugging Face's names (`ACT2FN`) and ours.
const NAMES: &[(&str, Act)] = &[
    ("clipped_gelu", Act::ClippedGelu),
    ("elu", Act::Elu),
    ("gelu", Act::Gelu),
    ("gelu_10", Act::ClippedGelu),
    ("gelu_accurate", Act::GeluTanh),
    ("gelu_fast", Act::GeluTanh),
    ("gelu_new", Act::GeluTanh),
    ("gelu_python", Act::Gelu),
    ("gelu_python_tanh", Act::GeluTanh),
    ("gelu_pytorch_tanh", Act::GeluTanh),
    ("gelu_tanh", Act::GeluTanh),
    ("identity", Act::Identity),
    ("laplace", Act::Laplace),
    ("leaky_relu", Act::LeakyRelu),
    ("linear", Act::Identity),
    ("mish", Act::Mish),
    ("quick_gelu", Act::QuickGelu),
    ("relu", Act::Relu),
    ("relu2", Act::Relu2),
    ("relu6", Act::Relu6),
    ("selu", Act::Selu),
    ("sigmoid", Act::Sigmoid),
    ("silu", Act::Silu),
    ("swish", Act::Silu),
    ("tanh", Act::Tanh),
];

impl Act {
    /// The activation that a Hugging Face config calls `name` (`hidden_act`, `activation_function`, …).
    ///
    /// # Errors
    /// The name is unknown; the message lists the known ones.
    pub fn from_name(name: &str) -> Result<Self, UnknownAct> {
        NAMES.iter().find(|(known, _)| *known == name).map(|(_, act)| *act).ok_or_else(|| UnknownAct(name.to_owned()))
    }

    /// The shortest of the names that [`Act::from_name`] reads.
    pub fn name(self) -> &'static str {
        let names = NAMES.iter().filter(|(_, act)| *act == self).map(|(name, _)| *name);
        names.min_by_key(|name| name.len()).unwrap_or_default()
    }
}

/// A name that [`Act::from_name`] does not know.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnknownAct(String);

impl std::fmt::Display for UnknownAct {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let known: Vec<&str> = NAMES.iter().map(|(name, _)| *name).collect();
        write!(f, "no activation function `{}`; expected one of {}", self.0, known.join(", "))
    }
}

impl std::error::Error for UnknownAct {}

/// A function and its derivative; what a caller leaves unused, the compiler leaves out.
trait Curve {
    fn at<M: Math>(x: f32) -> (f32, f32);
}

macro_rules! curves {
    ($($name:ident($m:ident, $x:ident) $body:block)*) => {
        mod curve { $(pub struct $name;)* }
        $(impl Curve for curve::$name {
            #[inline(always)]
            fn at<$m: Math>($x: f32) -> (f32, f32) $body
        })*

        fn value(act: Act, y: &mut [f32], x: &[f32]) {
            match act { $(Act::$name => value_isa::<curve::$name>(y, x),)* }
        }
        fn slope(act: Act, dx: &mut [f32], dy: &[f32], x: &[f32]) {
            match act { $(Act::$name => slope_isa::<curve::$name>(dx, dy, x),)* }
        }
        fn gate(act: Act, y: &mut [f32], gate: &[f32], up: &[f32]) {
            match act { $(Act::$name => gate_isa::<curve::$name>(y, gate, up),)* }
        }
        fn gate_slope(act: Act, dgate: &mut [f32], dup: &mut [f32], dy: &[f32], gate: &[f32], up: &[f32]) {
            match act { $(Act::$name => gate_slope_isa::<curve::$name>(dgate, dup, dy, gate, up),)* }
        }
    };
}

curves! {
    Identity(_M, x) { (x, 1.0) }
    // Compared so that NaN passes.
    Relu(_M, x) { if x <= 0.0 { (0.0, 0.0) } else { (x, 1.0) } }
    Relu2(_M, x) { let y = if x <= 0.0 { 0.0 } else { x }; (y * y, 2.0 * y) }
    Relu6(_M, x) {
        let y = if x <= 0.0 { 0.0 } else { x };
        (if y >= 6.0 { 6.0 } else { y }, if x > 0.0 && x < 6.0 { 1.0 } else { 0.0 })
    }
    LeakyRelu(_M, x) { if x > 0.0 { (x, 1.0) } else { (0.01 * x, 0.01) } }
    Silu(M, x) { let s = vector::sigmoid::<M>(x); (x * s, s * M::fma(x, 1.0 - s, 1.0)) }
    Gelu(M, x) { gelu::<M>(x) }
    GeluTanh(M, x) {
        const ROOT: f32 = 0.797_884_6; // √(2/π)
        let z = x * x;
        let t = vector::tanh::<M>(ROOT * x * M::fma(z, 0.044_715, 1.0));
        let inner = ROOT * M::fma(z, 3.0 * 0.044_715, 1.0);
        (0.5 * x * (1.0 + t), 0.5 * M::fma(x * M::fma(-t, t, 1.0), inner, 1.0 + t))
    }
    QuickGelu(M, x) {
        let s = vector::sigmoid::<M>(1.702 * x);
        (x * s, s * M::fma(1.702 * x, 1.0 - s, 1.0))
    }
    ClippedGelu(M, x) {
        let (y, d) = gelu::<M>(x);
        if y >= 10.0 { (10.0, 0.0) } else { (y, d) }
    }
    Sigmoid(M, x) { let s = vector::sigmoid::<M>(x); (s, s * (1.0 - s)) }
    Tanh(M, x) { let t = vector::tanh::<M>(x); (t, M::fma(-t, t, 1.0)) }
    Mish(M, x) {
        // tanh(ln(1 + e)) = e (e + 2) / (e (e + 2) + 2); at 20 it is 1 to the last bit.
        let e = vector::exp::<M>(if x > 20.0 { 20.0 } else { x });
        let n = e * (e + 2.0);
        let t = n / (n + 2.0);
        (x * t, M::fma(x * (1.0 - t * t), e / (1.0 + e), t))
    }
    Laplace(M, x) {
        // z = (x - √½) √(2π), so the slope is √2 e^(-z²).
        const ROOT: f32 = 2.506_628_3;
        let z = (x - std::f32::consts::FRAC_1_SQRT_2) * ROOT;
        let density = std::f32::consts::SQRT_2 * vector::exp::<M>(-z * z);
        (0.5 * (1.0 + vector::erf::<M>(z)), density)
    }
    Elu(M, x) { elu::<M>(x) }
    Selu(M, x) {
        let (y, slope) = elu::<M>(x);
        let factor = if x > 0.0 { SELU_SCALE } else { SELU_SCALE * SELU_ALPHA };
        (factor * y, factor * slope)
    }
}

/// The fixed point of Klambauer et al., appendix 1.
const SELU_SCALE: f32 = 1.050_701;
const SELU_ALPHA: f32 = 1.673_263_2;

#[inline(always)]
fn elu<M: Math>(x: f32) -> (f32, f32) {
    // e^x - 1 = 2 t / (1 - t) with t = tanh(x / 2): below 0 nothing cancels.
    let t = vector::tanh::<M>(if x > 0.0 { 0.0 } else { 0.5 * x });
    let low = 2.0 * t / (1.0 - t);
    if x > 0.0 { (x, 1.0) } else { (low, low + 1.0) }
}

#[inline(always)]
fn gelu<M: Math>(x: f32) -> (f32, f32) {
    let cdf = 0.5 * (1.0 + vector::erf::<M>(x * std::f32::consts::FRAC_1_SQRT_2));
    const DENSITY: f32 = 0.398_942_3; // 1 / √(2π)
    let density = DENSITY * vector::exp_down::<M>(-0.5 * x * x);
    (x * cdf, M::fma(x, density, cdf))
}

fn same(name: &str, lengths: &[usize]) {
    assert!(lengths.iter().all(|n| *n == lengths[0]), "{name}: expected slices of one length, found {lengths:?}");
}

/// `y = act(x)`.
pub fn activate(y: &mut [f32], x: &[f32], act: Act) {
    same("activate", &[y.len(), x.len()]);
    chunk::each_mut(y, 1, |at, y| value(act, y, &x[at..]));
}

/// `y = act(x)` on this thread: for kernels that hand out their own work.
pub(crate) fn activate_here(y: &mut [f32], x: &[f32], act: Act) {
    same("activate", &[y.len(), x.len()]);
    value(act, y, x);
}

/// `dx = dy act'(x)`.
pub fn activate_backward(dx: &mut [f32], dy: &[f32], x: &[f32], act: Act) {
    same("activate_backward", &[dx.len(), dy.len(), x.len()]);
    chunk::each_mut(dx, 1, |at, dx| slope(act, dx, &dy[at..], &x[at..]));
}

/// `y = act(gate) up`: the gated unit of Shazeer, "GLU variants improve transformer" (2020).
pub fn gated(y: &mut [f32], gate: &[f32], up: &[f32], act: Act) {
    same("gated", &[y.len(), gate.len(), up.len()]);
    chunk::each_mut(y, 1, |at, y| self::gate(act, y, &gate[at..], &up[at..]));
}

/// `dgate = dy up act'(gate)` and `dup = dy act(gate)`.
pub fn gated_backward(dgate: &mut [f32], dup: &mut [f32], dy: &[f32], gate: &[f32], up: &[f32], act: Act) {
    same("gated_backward", &[dgate.len(), dup.len(), dy.len(), gate.len(), up.len()]);
    let dup = Parts::new(dup);
    chunk::each_mut(dgate, 1, |at, dgate| {
        let range = at..at + dgate.len();
        // SAFETY: the chunks of `dgate` do not overlap, and these are the same ranges.
        let dup = unsafe { dup.at(range.clone()) };
        gate_slope(act, dgate, dup, &dy[range.clone()], &gate[range.clone()], &up[range]);
    });
}

#[inline(always)]
fn value_loop<M: Math, C: Curve>(y: &mut [f32], x: &[f32]) {
    for (y, &x) in y.iter_mut().zip(x) {
        *y = C::at::<M>(x).0;
    }
}

#[inline(always)]
fn slope_loop<M: Math, C: Curve>(dx: &mut [f32], dy: &[f32], x: &[f32]) {
    for ((dx, &dy), &x) in dx.iter_mut().zip(dy).zip(x) {
        *dx = dy * C::at::<M>(x).1;
    }
}

#[inline(always)]
fn gate_loop<M: Math, C: Curve>(y: &mut [f32], gate: &[f32], up: &[f32]) {
    for ((y, &gate), &up) in y.iter_mut().zip(gate).zip(up) {
        *y = C::at::<M>(gate).0 * up;
    }
}

#[inline(always)]
fn gate_slope_loop<M: Math, C: Curve>(dgate: &mut [f32], dup: &mut [f32], dy: &[f32], gate: &[f32], up: &[f32]) {
    for ((((dgate, dup), &dy), &gate), &up) in dgate.iter_mut().zip(dup).zip(dy).zip(gate).zip(up) {
        let (value, slope) = C::at::<M>(gate);
        *dgate = dy * up * slope;
        *dup = dy * value;
    }
}

per_isa! { fn value_isa[C: Curve](y: &mut [f32], x: &[f32]) = value_loop; }
per_isa! { fn slope_isa[C: Curve](dx: &mut [f32], dy: &[f32], x: &[f32]) = slope_loop; }
per_isa! { fn gate_isa[C: Curve](y: &mut [f32], gate: &[f32], up: &[f32]) = gate_loop; }
per_isa! {
    fn gate_slope_isa[C: Curve](dgate: &mut [f32], dup: &mut [f32], dy: &[f32], gate: &[f32], up: &[f32])
        = gate_slope_loop;
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use super::*;
    use crate::rng::Rng;

    fn truth(act: Act, x: f64) -> f64 {
        use crate::vector::reference::erf;
        let gelu = |x: f64| x * 0.5 * (1.0 + erf(x / 2f64.sqrt()));
        let sigmoid = |x: f64| 1.0 / (1.0 + (-x).exp());
        match act {
            Act::Identity => x,
            Act::Relu => x.max(0.0),
            Act::Relu2 => x.max(0.0).powi(2),
            Act::Relu6 => x.clamp(0.0, 6.0),
            Act::LeakyRelu => x.max(0.01 * x),
            Act::Silu => x * sigmoid(x),
            Act::Gelu => gelu(x),
            Act::GeluTanh => {
                0.5 * x * (1.0 + ((2.0 / std::f64::consts::PI).sqrt() * (x + 0.044715 * x.powi(3))).tanh())
            }
            Act::QuickGelu => x * sigmoid(1.702 * x),
            Act::ClippedGelu => gelu(x).min(10.0),
            Act::Sigmoid => sigmoid(x),
            Act::Tanh => x.tanh(),
            Act::Mish => x * x.exp().ln_1p().tanh(),
            Act::Laplace => 0.5 * (1.0 + erf((x - 0.5f64.sqrt()) * std::f64::consts::TAU.sqrt())),
            Act::Elu => {
                if x > 0.0 {
                    x
                } else {
                    x.exp_m1()
                }
            }
            Act::Selu => 1.0507009873554805 * if x > 0.0 { x } else { 1.6732632423543772 * x.exp_m1() },
        }
    }

    #[test]
    fn values_and_slopes_match_f64() {
        for (_, act) in NAMES {
            for n in [1, 15, 1003] {
                let (mut x, mut up, mut dy) = (vec![0.0; n], vec![0.0; n], vec![0.0; n]);
                Rng::new(n as u64).fill_uniform(&mut x, -14.0, 14.0);
                Rng::new(8).fill_normal(&mut up, 0.0, 1.0);
                Rng::new(9).fill_normal(&mut dy, 0.0, 1.0);
                let (mut y, mut dx) = (vec![9.0; n], vec![9.0; n]);
                activate(&mut y, &x, *act);
                activate_backward(&mut dx, &dy, &x, *act);
                let (mut g, mut dgate, mut dup) = (vec![9.0; n], vec![9.0; n], vec![9.0; n]);
                gated(&mut g, &x, &up, *act);
                gated_backward(&mut dgate, &mut dup, &dy, &x, &up, *act);
                for i in 0..n {
                    let at = f64::from(x[i]);
                    let (value, h) = (truth(*act, at), 1e-5);
                    let slope = (truth(*act, at + h) - truth(*act, at - h)) / (2.0 * h);
                    let near = |got: f32, truth: f64, scale: f64| {
                        assert!((f64::from(got) - truth).abs() <= scale, "{act:?} at {at}: {got} {truth}");
                    };
                    // Values: 1 + erf and 1 + tanh cancel below 0, to some 1e-7 of |x|, as they do in PyTorch.
                    let fine = 4e-7 * value.abs().max(at.abs()).max(1.0);
                    near(y[i], value, fine);
                    near(g[i], value * f64::from(up[i]), fine * f64::from(up[i]).abs() + 1e-9);
                    near(dup[i], value * f64::from(dy[i]), fine * f64::from(dy[i]).abs() + 1e-9);
                    // Slopes: the difference quotient is good to some 1e-9, f32 to 1e-6 of a slope times x.
                    let kink = [0.0, 6.0, 10.0].iter().any(|k| (at - k).abs() < 2.0 * h);
                    if !kink {
                        let coarse = 4e-6 * slope.abs().max(1.0);
                        near(dx[i], slope * f64::from(dy[i]), coarse * f64::from(dy[i]).abs());
                        let both = f64::from(dy[i]) * f64::from(up[i]);
                        near(dgate[i], slope * both, coarse * both.abs() + 1e-9);
                    }
                }
            }
        }
    }

    #[test]
    fn far_out_nothing_overflows_and_nan_stays() {
        for (name, act) in NAMES {
            let x = [-1e4, 1e4, -200.0, 200.0, 0.0, f32::NAN];
            let (mut y, mut dx) = ([0.0; 6], [0.0; 6]);
            activate(&mut y, &x, *act);
            activate_backward(&mut dx, &[1.0; 6], &x, *act);
            assert!(y[..5].iter().chain(&dx[..5]).all(|v| v.is_finite()), "{name}: {y:?} {dx:?}");
            assert!(y[5].is_nan(), "{name}");
        }
    }

    #[test]
    fn names() {
        assert_eq!(Act::from_name("gelu_new").unwrap(), Act::GeluTanh);
        assert_eq!(Act::from_name("swish").unwrap(), Act::Silu);
        assert_eq!([Act::GeluTanh, Act::Silu, Act::Gelu].map(Act::name), ["gelu_new", "silu", "gelu"]);
        assert!(NAMES.iter().all(|(_, act)| Act::from_name(act.name()).unwrap() == *act));
        let message = Act::from_name("gelo").unwrap_err().to_string();
        assert!(message.contains("`gelo`") && message.contains("gelu_pytorch_tanh"), "{message}");
    }
}
