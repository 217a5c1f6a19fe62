//! How well a language model predicts: perplexity per token, bits per byte, from summed negative log-likelihoods.

use serde::Serialize;

use crate::{Error, Result};

/// Sums of negative log-likelihoods in nats, with what they are spread over.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize)]
pub struct Likelihood {
    /// Summed negative log-likelihood in nats.
    pub nats: f64,
    /// Predicted tokens.
    pub tokens: u64,
    /// Bytes of the text those tokens spell; 0 when not known.
    pub bytes: u64,
}

impl Likelihood {
    /// Adds the summed nats of some tokens that spell `bytes` bytes.
    ///
    /// # Errors
    /// Nats that are not finite: one such batch would spoil the whole sum.
    pub fn add(&mut self, nats: f64, tokens: u64, bytes: u64) -> Result<()> {
        if !nats.is_finite() {
            return Err(Error::Input(format!("likelihood: expected finite nats, found {nats}")));
        }
        self.nats += nats;
        self.tokens += tokens;
        self.bytes += bytes;
        Ok(())
    }

    /// exp(nats / tokens).
    ///
    /// # Errors
    /// No tokens, or a loss so large that its exponential overflows.
    pub fn perplexity(&self) -> Result<f64> {
        let loss = crate::error::mean(self.nats, self.tokens, "perplexity", "token")?;
        let perplexity = loss.exp();
        if perplexity.is_finite() {
            return Ok(perplexity);
        }
        Err(Error::Undefined {
            metric: "perplexity",
            reason: format!("the exponential of {loss} nats per token overflows"),
        })
    }

    /// Bits per byte of text: comparable between tokenizers, where perplexity is not.
    ///
    /// # Errors
    /// No bytes.
    pub fn bits_per_byte(&self) -> Result<f64> {
        crate::error::mean(self.nats / std::f64::consts::LN_2, self.bytes, "bits per byte", "byte")
    }
}

/// exp(nats / tokens) of sums taken elsewhere.
///
/// # Errors
/// As [`Likelihood::add`] and [`Likelihood::perplexity`].
pub fn perplexity(nats: f64, tokens: u64) -> Result<f64> {
    let mut sum = Likelihood::default();
    sum.add(nats, tokens, 0)?;
    sum.perplexity()
}
