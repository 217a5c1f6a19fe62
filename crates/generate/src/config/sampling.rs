//! What shapes the distribution that is drawn from, and what repetition costs: parts of the settings, in their ranges.

use super::GenerationConfig;
use super::settings::within;
use crate::processor::{Dry, Mirostat};
use crate::{Error, Result};

/// Draw among so many likeliest tokens, unless `top_k` says otherwise; as in transformers.
pub const DEFAULT_TOP_K: usize = 50;

/// The distribution that is drawn from.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Sampling {
    /// Divisor of the logits, above 0.
    pub temperature: f32,
    /// How far the temperature goes to either side, and the power of the entropy's share by which it does.
    pub dynamic: Option<(f32, f32)>,
    /// 0 is off.
    pub top_k: usize,
    /// 1 is off.
    pub top_p: f32,
    /// 0 is off.
    pub min_p: f32,
    /// The share of entropy that is kept.
    pub top_h: Option<f32>,
    /// 1 is off.
    pub typical_p: f32,
    /// 0 is off.
    pub epsilon: f32,
    /// 0 is off.
    pub eta: f32,
    /// How often all likely ids but one are ruled out, and how probable those are.
    pub xtc: Option<(f32, f32)>,
    /// Keeps the surprise near a target.
    pub mirostat: Option<Mirostat>,
}

impl Sampling {
    /// How to draw, or `None` where nothing is drawn.
    pub(super) fn of(config: &GenerationConfig) -> Result<Option<Self>> {
        let temperature = within("temperature", config.temperature.unwrap_or(1.), 0., f32::MAX)?;
        let range = within("dynatemp_range", config.dynatemp_range.unwrap_or(0.), 0., f32::MAX)?;
        let exponent = within("dynatemp_exponent", config.dynatemp_exponent.unwrap_or(1.), 0., f32::MAX)?;
        let often = within("xtc_probability", config.xtc_probability.unwrap_or(0.), 0., 1.)?;
        let likely = within("xtc_threshold", config.xtc_threshold.unwrap_or(0.1), 0., 1.)?;
        let mirostat = mirostat(config)?;
        let sampling = Self {
            temperature,
            dynamic: (range > 0.).then_some((range, exponent)),
            top_k: config.top_k.unwrap_or(if mirostat.is_some() { 0 } else { DEFAULT_TOP_K }),
            top_p: within("top_p", config.top_p.unwrap_or(1.), 0., 1.)?,
            min_p: within("min_p", config.min_p.unwrap_or(0.), 0., 1.)?,
            top_h: config.top_h.map(|h| within("top_h", h, f32::MIN_POSITIVE, 1.)).transpose()?,
            typical_p: within("typical_p", config.typical_p.unwrap_or(1.), f32::MIN_POSITIVE, 1.)?,
            epsilon: share("epsilon_cutoff", config.epsilon_cutoff)?,
            eta: share("eta_cutoff", config.eta_cutoff)?,
            xtc: (often > 0.).then_some((often, likely)),
            mirostat,
        };
        let sampling = (config.do_sample.unwrap_or(false) && temperature > 0.).then_some(sampling);
        let beams = config.num_beams.unwrap_or(1);
        if sampling.is_some_and(|s| s.mirostat.is_some()) && beams > 1 {
            return Err(Error::Settings(format!(
                "mirostat: it learns from the ids of one text, and num_beams {beams} follows several; leave one of the two"
            )));
        }
        Ok(sampling)
    }
}

fn mirostat(config: &GenerationConfig) -> Result<Option<Mirostat>> {
    let tau = within("mirostat_tau", config.mirostat_tau.unwrap_or(5.), 0., f32::MAX)?;
    let eta = within("mirostat_eta", config.mirostat_eta.unwrap_or(0.1), 0., f32::MAX)?;
    match config.mirostat.unwrap_or(0) {
        0 => Ok(None),
        2 => Ok(Some(Mirostat { tau, eta })),
        other => Err(Error::Settings(format!("mirostat: expected 2, or 0 for none, found {other}"))),
    }
}

/// What it costs to continue a run that has been before.
pub(super) fn dry(config: &GenerationConfig) -> Result<Option<Dry>> {
    let multiplier = within("dry_multiplier", config.dry_multiplier.unwrap_or(0.), 0., f32::MAX)?;
    let base = config.dry_base.unwrap_or(1.75);
    if !(1. ..=f32::MAX).contains(&base) {
        return Err(Error::Settings(format!("dry_base: expected a number of at least 1, found {base}")));
    }
    let (allowed, last) = (config.dry_allowed_length.unwrap_or(2), config.dry_penalty_last_n.unwrap_or(usize::MAX));
    let texts = config.dry_sequence_breakers.clone();
    if texts.iter().flatten().any(String::is_empty) {
        return Err(Error::Settings("dry_sequence_breakers: an empty text would break everywhere".into()));
    }
    Ok((multiplier > 0. && last > 0).then_some(Dry { multiplier, base, allowed, last, texts, breakers: vec![] }))
}

/// A share of probability at which less is cut off; 0 and 1 cut off nothing.
fn share(name: &str, value: Option<f32>) -> Result<f32> {
    Ok(match within(name, value.unwrap_or(0.), 0., 1.)? {
        1. => 0.,
        share => share,
    })
}
