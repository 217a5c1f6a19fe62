//! One pass over a whole input, with everything that comes of it by its name in transformers.

use candle_core::Result;
use phyla_ops::Tensor;

use crate::{Input, Model};

impl Model {
    /// Runs the model over `input`; an encoder-decoder also needs what its decoder reads.
    ///
    /// The results are those of the heads (`logits`, `start_logits`, …), `last_hidden_state`, for an encoder-decoder
    /// `encoder_last_hidden_state`, and with `hidden_states` what enters and what leaves each layer:
    /// `hidden_states.N`, or `encoder_hidden_states.N` and `decoder_hidden_states.N`.
    pub fn run(&self, input: &Input, hidden_states: bool) -> Result<Vec<(String, Tensor)>> {
        let mut results = vec![];
        let mut keep = |name: &str, states: Option<Vec<Tensor>>| {
            let states = states.unwrap_or_default().into_iter().enumerate();
            results.extend(states.map(|(i, state)| (format!("{name}.{i}"), state)));
        };
        let states = || hidden_states.then(Vec::new);
        let decoder = match (&input.decoder, self.arch.source(), self.arch.shift) {
            (None, Some(_), Some(shift)) => Some(Box::new(input.shifted(shift)?)),
            (decoder, ..) => decoder.clone(),
        };
        let (main, mut pass) = match (&decoder, self.arch.source()) {
            (Some(decoder), Some(_)) => {
                let mut source = input.source_pass(&self.arch)?;
                source.hidden_states = states();
                let memory = self.encode(input, &mut source)?;
                keep("encoder_hidden_states", source.hidden_states.take());
                keep("encoder_last_hidden_state", Some(vec![memory.states.clone()]));
                (&**decoder, decoder.pass(&self.arch)?.attending(memory))
            }
            (None, None) => (input, input.pass(&self.arch)?),
            (None, Some(_)) => candle_core::bail!("{} needs decoder_input_ids", self.family.model_type),
            (Some(_), None) => {
                candle_core::bail!("decoder_input_ids are given, and {} has no decoder", self.family.model_type)
            }
        };
        pass.hidden_states = states();
        let last = self.forward(&main.ids, main.token_types.as_deref(), &mut pass)?;
        let kind = if self.arch.source().is_some() { "decoder_hidden_states" } else { "hidden_states" };
        keep(kind, pass.hidden_states.take());
        let heads = self.outputs(&last, input, &mut pass)?;
        for (name, _) in &mut results {
            if name == "encoder_last_hidden_state.0" {
                *name = "encoder_last_hidden_state".into();
            }
        }
        let heads = heads.into_iter().map(|(name, result)| (name.to_string(), result));
        Ok(heads.chain([("last_hidden_state".to_string(), last)]).chain(results).collect())
    }
}
