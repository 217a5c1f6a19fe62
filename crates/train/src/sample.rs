//! Texts that a model writes while it learns.

use phyla_data::tokenizer::Tokenizer;
use phyla_generate::{GenerationConfig, Generator};
use phyla_models::Model;

use crate::TrainError;
use crate::recipe::Sample;
use crate::report::SampleText;

/// One text for each prompt of the recipe; the same seed gives the same draws at every step.
pub fn samples(
    model: &Model,
    tokenizer: &Tokenizer,
    settings: &Sample,
    seed: u64,
) -> Result<Vec<SampleText>, TrainError> {
    let prompts = (settings.prompts.iter())
        .map(|prompt| match (tokenizer.encode(prompt, false)?, tokenizer.bos().or(tokenizer.eos())) {
            // The end of the document before is what every document of the training text follows.
            (ids, Some(start)) if ids.is_empty() => Ok(vec![start]),
            (ids, None) if ids.is_empty() => Err(TrainError::Settings(
                "train.sample.prompts: an empty prompt needs a tokenizer with an end-of-text token; give some text"
                    .into(),
            )),
            (ids, _) => Ok(ids),
        })
        .collect::<Result<Vec<_>, TrainError>>()?;
    let config = GenerationConfig {
        max_new_tokens: Some(settings.max_new_tokens),
        do_sample: Some(settings.temperature > 0.),
        temperature: Some(settings.temperature as f32),
        top_k: Some(0),
        eos_token_id: tokenizer.eos().map(|eos| vec![eos]),
        ..GenerationConfig::default()
    };
    let generation = Generator::new(model, Some(tokenizer)).generate(&prompts, &config, seed, &mut |_| {})?;
    let text = |sequence: &phyla_generate::Sequence| sequence.text.clone().unwrap_or_default();
    Ok((settings.prompts.iter().zip(&generation.sequences))
        .map(|(prompt, sequence)| SampleText { step: 0, prompt: prompt.clone(), text: text(sequence) })
        .collect())
}
