//! Frequencies of rotary positions and the ways to stretch them over a longer context.

use std::sync::Arc;

use phyla_ops::RopeRows;
use phyla_ops::rope::Style;

/// Which frequencies a head's pairs turn with.
#[derive(Clone, Debug, PartialEq)]
pub struct RopeSpec {
    /// How many elements of a head turn (even).
    pub dim: usize,
    /// Base of the frequencies: pair `i` turns by `theta^(-2i/dim)` a position.
    pub theta: f64,
    /// Which elements form a pair.
    pub style: Style,
    /// How the frequencies are stretched.
    pub scaling: RopeScaling,
}

/// Context extension: the names are those of `rope_type` in a Hugging Face configuration.
#[derive(Clone, Debug, PartialEq)]
pub enum RopeScaling {
    /// Frequencies as they are (Su et al. 2021).
    Default,
    /// All divided by `factor`: position interpolation (Chen et al. 2023).
    Linear {
        /// How many times longer the context becomes.
        factor: f64,
    },
    /// The base grows with the length of the input: dynamic NTK.
    Dynamic {
        /// Growth of the base.
        factor: f64,
        /// Length up to which nothing changes.
        max_positions: usize,
    },
    /// Low frequencies interpolated, high ones kept (Peng et al. 2023, eq. 23).
    Yarn {
        /// How many times longer the context becomes.
        factor: f64,
        /// Length before the extension.
        original: usize,
        /// Rotations above which a frequency is kept.
        beta_fast: f64,
        /// Rotations below which it is interpolated.
        beta_slow: f64,
        /// Round the borders to whole pairs.
        truncate: bool,
        /// Factor on cosine and sine.
        attention: f64,
    },
    /// A factor for each pair, one list for short and one for long inputs (Ding et al. 2024).
    LongRope {
        /// Factors up to the original length.
        short: Vec<f64>,
        /// Factors beyond it.
        long: Vec<f64>,
        /// Length before the extension.
        original: usize,
        /// Factor on cosine and sine.
        attention: f64,
    },
    /// Low frequencies divided, high ones kept, a ramp between (Llama 3.1).
    Llama3 {
        /// Divisor of low frequencies.
        factor: f64,
        /// Wavelengths above `original / low` are low frequencies.
        low: f64,
        /// Wavelengths below `original / high` are high frequencies.
        high: f64,
        /// Length before the extension.
        original: usize,
    },
    /// Only the first part of the pairs turns, with the frequencies of the whole head.
    Proportional {
        /// Number of pairs that turn.
        pairs: usize,
        /// Divisor of all frequencies.
        factor: f64,
    },
}

/// The base and how it is stretched, in Hugging Face's words: `theta 10000, yarn x4`.
impl std::fmt::Display for RopeSpec {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "theta {}", self.theta)?;
        match &self.scaling {
            RopeScaling::Default => Ok(()),
            RopeScaling::Linear { factor } => write!(f, ", linear x{factor}"),
            RopeScaling::Dynamic { factor, .. } => write!(f, ", dynamic x{factor}"),
            RopeScaling::Yarn { factor, .. } => write!(f, ", yarn x{factor}"),
            RopeScaling::LongRope { original, .. } => write!(f, ", longrope beyond {original}"),
            RopeScaling::Llama3 { factor, .. } => write!(f, ", llama3 x{factor}"),
            RopeScaling::Proportional { pairs, .. } => write!(f, ", {} of {} elements turn", 2 * pairs, self.dim),
        }
    }
}

impl RopeSpec {
    /// Unstretched frequencies, halves rotated.
    pub fn new(dim: usize, theta: f64) -> Self {
        Self { dim, theta, style: Style::Half, scaling: RopeScaling::Default }
    }

    /// Cosine and sine for each of `positions`.
    pub fn rows(&self, positions: &[u32]) -> RopeRows {
        let length = positions.iter().max().map_or(0, |&p| p as usize + 1);
        let (frequencies, attention) = self.frequencies(length);
        let mut cos = Vec::with_capacity(positions.len() * frequencies.len());
        let mut sin = Vec::with_capacity(cos.capacity());
        for &position in positions {
            for frequency in &frequencies {
                // The product is rounded to f32 as the reference rounds it; cosine and sine are exact after that.
                let angle = (position as f32 * frequency) as f64;
                cos.push((angle.cos() as f32) * attention);
                sin.push((angle.sin() as f32) * attention);
            }
        }
        let rows = Arc::new((0..positions.len() as u32).collect());
        RopeRows { cos: Arc::new(cos), sin: Arc::new(sin), rows, rotary_dim: self.dim, style: self.style }
    }

    /// What divides the frequency of each pair, where that is all that is changed, and the same at any length.
    pub fn divisors(&self) -> Option<Vec<f64>> {
        match &self.scaling {
            RopeScaling::Llama3 { factor, low, high, original } => {
                let plain = (0..self.dim / 2).map(|i| self.theta.powf(-(2. * i as f64) / self.dim as f64));
                Some(plain.map(|f| f / llama3(f, *factor, *low, *high, *original as f64)).collect())
            }
            RopeScaling::LongRope { short, long, attention, .. } if short == long && *attention == 1. => {
                Some(short.clone())
            }
            _ => None,
        }
    }

    /// The frequency of each pair for an input of `length` positions, and the factor on cosine and sine.
    pub fn frequencies(&self, length: usize) -> (Vec<f32>, f32) {
        let pairs = self.dim / 2;
        let powers =
            |theta: f64| -> Vec<f64> { (0..pairs).map(|i| theta.powf(-(2. * i as f64) / self.dim as f64)).collect() };
        let plain = powers(self.theta);
        let mut scale = 1.;
        let stretched: Vec<f64> = match &self.scaling {
            RopeScaling::Default => plain,
            RopeScaling::Linear { factor } => plain.iter().map(|f| f / factor).collect(),
            RopeScaling::Dynamic { factor, max_positions } => {
                let (n, max, d) = (length.max(*max_positions) as f64, *max_positions as f64, self.dim as f64);
                powers(self.theta * (factor * n / max - (factor - 1.)).powf(d / (d - 2.)))
            }
            RopeScaling::Yarn { factor, attention, .. } => {
                scale = *attention;
                plain.iter().zip(self.yarn_ramp()).map(|(f, ramp)| f / factor * ramp + f * (1. - ramp)).collect()
            }
            RopeScaling::LongRope { short, long, original, attention } => {
                scale = *attention;
                let factors = if length > *original { long } else { short };
                plain.iter().zip(factors).map(|(f, factor)| f / factor).collect()
            }
            RopeScaling::Llama3 { factor, low, high, original } => {
                plain.iter().map(|&f| llama3(f, *factor, *low, *high, *original as f64)).collect()
            }
            RopeScaling::Proportional { pairs, factor } => {
                plain.iter().enumerate().map(|(i, f)| if i < *pairs { f / factor } else { 0. }).collect()
            }
        };
        (stretched.into_iter().map(|f| f as f32).collect(), scale as f32)
    }

    /// For each pair, how far it is interpolated: 0 for high frequencies, 1 for low ones.
    fn yarn_ramp(&self) -> Vec<f64> {
        let RopeScaling::Yarn { original, beta_fast, beta_slow, truncate, .. } = &self.scaling else {
            return vec![];
        };
        let dim = self.dim as f64;
        // The pair that makes `rotations` turns over the original context.
        let pair = |rotations: f64| {
            dim * (*original as f64 / (rotations * 2. * std::f64::consts::PI)).ln() / (2. * self.theta.ln())
        };
        let (mut low, mut high) = (pair(*beta_fast), pair(*beta_slow));
        if *truncate {
            (low, high) = (low.floor(), high.ceil());
        }
        (low, high) = (low.max(0.), high.min(dim - 1.));
        if low == high {
            high += 0.001;
        }
        (0..self.dim / 2).map(|i| ((i as f64 - low) / (high - low)).clamp(0., 1.)).collect()
    }
}

fn llama3(frequency: f64, factor: f64, low: f64, high: f64, original: f64) -> f64 {
    let wavelength = 2. * std::f64::consts::PI / frequency;
    if wavelength < original / high {
        frequency
    } else if wavelength > original / low {
        frequency / factor
    } else {
        let smooth = (original / wavelength - low) / (high - low);
        (1. - smooth) * frequency / factor + smooth * frequency
    }
}
