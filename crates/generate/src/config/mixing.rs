//! What logits are mixed with, as settings: guidance, earlier layers, an amateur.

use super::GenerationConfig;
use super::settings::within;
use crate::Result;

/// The layers that DoLa may contrast the last one with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DolaLayers {
    /// `"low"`: every second of the lower half.
    Low,
    /// `"high"`: every second of the upper half.
    High,
    /// By what enters them: 0 is the embeddings.
    These(Vec<usize>),
}

/// How an amateur counts against the expert.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Contrastive {
    /// Ids less likely than this share of the expert's likeliest are ruled out.
    pub alpha: f32,
    /// The weight of the amateur in O'Brien and Lewis's form; without it in Li's, which has the amateur's probabilities in full.
    pub beta: Option<f32>,
    /// Divisor of the amateur's logits.
    pub temperature: f32,
}

impl Contrastive {
    /// As a configuration says, and whether it says anything.
    pub(super) fn of(config: &GenerationConfig) -> Result<(Self, bool)> {
        let (alpha, beta, temperature) =
            (config.contrastive_alpha, config.contrastive_beta, config.amateur_temperature);
        let says = alpha.is_some() || beta.is_some() || temperature.is_some();
        let contrastive = Self {
            alpha: within("contrastive_alpha", alpha.unwrap_or(0.1), 0., 1.)?,
            beta: beta.map(|beta| within("contrastive_beta", beta, 0., f32::MAX)).transpose()?,
            temperature: within("amateur_temperature", temperature.unwrap_or(1.), f32::MIN_POSITIVE, f32::MAX)?,
        };
        Ok((contrastive, says))
    }
}

/// How strongly to guide, if at all.
pub(super) fn guidance(config: &GenerationConfig) -> Result<Option<f32>> {
    let scale = within("guidance_scale", config.guidance_scale.unwrap_or(1.), f32::MIN, f32::MAX)?;
    Ok((scale != 1.).then_some(scale))
}
