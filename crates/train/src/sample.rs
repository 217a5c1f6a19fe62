//! What a model writes while it learns: continuations, fillings of masks, answers, labels.

use phyla_data::batch::{Batch, IGNORE, Labels, Source};
use phyla_data::template::Chat;
use phyla_data::tokenizer::Tokenizer;
use phyla_generate::{GenerationConfig, Generator};
use phyla_models::Model;

use crate::TrainError;
use crate::evaluate::write;
use crate::recipe::{Objective, Recipe, Sample};
use crate::report::SampleText;
use crate::setup::Setup;
use crate::supply::Shown;

/// One text or more for each prompt of the recipe, as its objective answers.
pub fn samples(recipe: &Recipe, setup: &mut Setup) -> Result<Vec<SampleText>, TrainError> {
    let settings = &recipe.train.sample;
    if let Some(rollouts) = &mut setup.rollouts {
        return rollouts.samples(&setup.model, &settings.prompts);
    }
    if matches!(recipe.objective, Objective::Lm(_)) {
        return continued(&setup.model, &setup.tokenizer, settings, recipe.seed);
    }
    let mut items = vec![];
    for prompt in &settings.prompts {
        match prompt.as_str() {
            "" => items.extend(setup.shown.iter().take(HELD_OUT).cloned()),
            text => items.push(asked(recipe, setup, text)?),
        }
    }
    let answers = match recipe.objective {
        Objective::Seq2Seq(_) => write(recipe, setup, &items)?,
        Objective::Sft(_) => answered(recipe, setup, &items)?,
        _ => items.iter().map(|item| answer(recipe, setup, item)).collect::<Result<_, _>>()?,
    };
    let sample = |(item, answer): (Shown, String)| {
        // An expectation that is met needs no words.
        let wrong = !item.expected.is_empty() && item.expected.trim() != answer.trim();
        let expected = if wrong { format!(" (expected: {})", item.expected) } else { String::new() };
        SampleText { prompt: short(&item.text), text: format!(" => {answer}{expected}"), ..SampleText::default() }
    };
    Ok(items.into_iter().zip(answers).map(sample).collect())
}

/// A long text's beginning and end, which are enough to tell it by.
fn short(text: &str) -> String {
    const HALF: usize = 100;
    let count = text.chars().count();
    if count <= 3 * HALF {
        return text.to_owned();
    }
    let (head, tail): (String, String) = (text.chars().take(HALF).collect(), text.chars().skip(count - HALF).collect());
    format!("{} … {}", head.trim_end(), tail.trim_start())
}

/// Held-out items that stand for an empty prompt.
const HELD_OUT: usize = 3;

/// A prompt as an item without a known answer.
fn asked(recipe: &Recipe, setup: &Setup, text: &str) -> Result<Shown, TrainError> {
    let tokenizer = &setup.tokenizer;
    let prefix = match &recipe.objective {
        Objective::Seq2Seq(seq2seq) => seq2seq.source_prefix.as_str(),
        _ => "",
    };
    let ids = match recipe.objective {
        Objective::Sft(_) if !tokenizer.templates().is_empty() => {
            let messages = [serde_json::json!({"role": "user", "content": text})];
            let chat = Chat { messages: &messages, add_generation_prompt: true, ..Chat::default() };
            tokenizer.encode(&tokenizer.templates().render(None, &chat)?.text, false)?
        }
        _ => tokenizer.encode(&format!("{prefix}{text}"), true)?,
    };
    let (time, mut batch) = (ids.len(), Batch::default());
    if let Objective::Seq2Seq(_) = recipe.objective {
        batch.source = Some(Source { lengths: vec![time], time, ids });
        return Ok(Shown { batch, text: text.to_owned(), expected: String::new() });
    }
    if let Objective::Mlm(_) | Objective::MlmNsp(_) = recipe.objective {
        let mask = tokenizer.mask();
        // Any target will do: what counts is where there is one.
        batch.targets = ids.iter().map(|&id| if Some(id) == mask { 0 } else { IGNORE }).collect();
        if batch.targets.iter().all(|&target| target == IGNORE) {
            let mask = mask.and_then(|id| tokenizer.id_to_token(id)).unwrap_or_default();
            let message = format!("train.sample.prompts: {text:?} has no {mask} to be filled");
            return Err(TrainError::Settings(message));
        }
    } else {
        batch.labels = Labels::None;
    }
    let batch = Batch { ids, lengths: vec![time], batch: 1, time, positions: (0..time as u32).collect(), ..batch };
    Ok(Shown { batch, text: text.to_owned(), expected: String::new() })
}

/// The words under the masks, or the label.
fn answer(recipe: &Recipe, setup: &Setup, item: &Shown) -> Result<String, TrainError> {
    let said = recipe.objective.answers(&setup.model, &item.batch)?;
    if let Objective::Mlm(_) | Objective::MlmNsp(_) = recipe.objective {
        let words = said.tokens.iter().map(|&id| setup.tokenizer.id_to_token(id).unwrap_or_default());
        return Ok(words.collect::<Vec<_>>().join(" "));
    }
    let Some(logits) = said.rows.first() else { return Ok(String::new()) };
    let config = &setup.model.config;
    let name = |id: usize| {
        let name = config.get("id2label").and_then(|names| names.get(id.to_string())).and_then(|name| name.as_str());
        name.map_or_else(|| id.to_string(), str::to_owned)
    };
    let numbered = || logits.values.iter().enumerate();
    Ok(match config.get("problem_type").and_then(|kind| kind.as_str()) {
        Some("regression") => logits.values.iter().map(|x| format!("{x:.3}")).collect::<Vec<_>>().join(" "),
        Some("multi_label_classification") => {
            numbered().filter(|(_, logit)| **logit > 0.).map(|(id, _)| name(id)).collect::<Vec<_>>().join(", ")
        }
        _ => numbered().max_by(|a, b| a.1.total_cmp(b.1)).map_or_else(String::new, |(id, _)| name(id)),
    })
}

/// What the model answers to questions, greedily, up to what it was taught to end with.
fn answered(recipe: &Recipe, setup: &Setup, items: &[Shown]) -> Result<Vec<String>, TrainError> {
    let most = recipe.train.sample.max_new_tokens;
    // A model with learned positions writes no more than it has room for.
    let context = if setup.model.arch.context_is_hard { setup.model.arch.context } else { usize::MAX };
    let mut answers = vec![];
    for item in items {
        let room = context.saturating_sub(item.batch.ids.len()).min(most);
        if room == 0 || item.batch.ids.is_empty() {
            answers.push(String::new());
            continue;
        }
        let ends = GenerationConfig::from_map(&setup.generation)?.0.eos_token_id;
        let config = GenerationConfig { max_new_tokens: Some(room), eos_token_id: ends, ..GenerationConfig::default() };
        let generator = Generator::new(&setup.model, Some(&setup.tokenizer));
        let generation =
            generator.generate(std::slice::from_ref(&item.batch.ids), &config, recipe.seed, &mut |_| {})?;
        answers.extend(generation.sequences.into_iter().take(1).map(|sequence| sequence.text.unwrap_or_default()));
    }
    Ok(answers)
}

/// How the model continues each prompt; the same seed gives the same draws at every step.
fn continued(
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
        .map(|(prompt, sequence)| SampleText { prompt: prompt.clone(), text: text(sequence), ..SampleText::default() })
        .collect())
}
