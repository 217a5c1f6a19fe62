//! One stage for many prompts at once: its decoding settings, and what came back.

use phyla_generate::{Event, GenerationConfig, Sequence};

use super::prompt::Prompt;
use super::{Heard, Pass, Settings, Stage};
use crate::{Error, Session};

/// Tokens of a stage that reasons, at most, unless told otherwise.
const REASONING: usize = 256;

/// Tokens of a stage that only says the answer.
pub(super) const ANSWER: usize = 32;

/// The temperature and the number of tokens to draw among in Wang et al. 2022, section 3.1.
const DRAWN: (f32, usize) = (0.7, 40);

/// Refuses settings that the methods have a say in.
pub(super) fn check(settings: &Settings) -> Result<(), Error> {
    let generation = &settings.generation;
    if generation.num_return_sequences.is_some() {
        return Err(Error::Task("num_return_sequences is what self-consistency sets: say --samples".into()));
    }
    let greedy = generation.do_sample == Some(false) || generation.temperature == Some(0.);
    if settings.method == super::Method::SelfConsistency && (greedy || generation.num_beams.is_some_and(|n| n > 1)) {
        return Err(Error::Task(
            "self-consistency draws its chains, which are equal without drawing: leave do_sample, temperature 0 and \
             num_beams out"
                .into(),
        ));
    }
    if settings.samples == 0 {
        return Err(Error::Task("self-consistency needs at least 1 chain, found 0".into()));
    }
    Ok(())
}

/// How a stage is decoded; `drawn` are the chains that are drawn from each prompt.
pub(super) fn decoding(settings: &Settings, stage: Stage, drawn: Option<usize>, chat: bool) -> GenerationConfig {
    let mut config = settings.generation.clone();
    // The default settings know nothing, so that only the user's word comes out of this.
    let said = GenerationConfig::default().merge(config.clone()).do_sample;
    match drawn {
        Some(_) if said.is_none() => {
            config.do_sample = Some(true);
            config.temperature.get_or_insert(DRAWN.0);
            config.top_k.get_or_insert(DRAWN.1);
        }
        Some(_) => {}
        // An answer is read off what was reasoned, and not drawn.
        None if said.is_none() || stage == Stage::Answer => config.do_sample = Some(false),
        None => {}
    }
    config.num_return_sequences = Some(drawn.unwrap_or(1));
    let most = if stage == Stage::Answer { ANSWER } else { REASONING };
    if stage == Stage::Answer && settings.method != super::Method::Plain {
        (config.max_new_tokens, config.max_length) =
            (Some(config.max_new_tokens.map_or(most, |own| own.min(most))), None);
    } else if config.max_length.is_none() {
        config.max_new_tokens.get_or_insert(most);
    }
    if !chat && config.stop_strings.is_none() {
        // A plain model goes on with another question.
        let ends = if stage == Stage::Decompose { &["\nQ:", "\n\n"][..] } else { &["\nQ:"] };
        config.stop_strings = Some(ends.iter().map(|end| (*end).to_owned()).collect());
    }
    config
}

/// Runs a stage: for each prompt its sequences, as many as `drawn`.
pub(super) fn ask(
    session: &Session,
    prompts: &[Prompt],
    config: GenerationConfig,
    seed: u64,
    heard: &mut dyn FnMut(Heard),
) -> Result<Vec<Vec<Sequence>>, Error> {
    let single = prompts.len() == 1 && config.num_return_sequences == Some(1);
    if single {
        heard(Heard::Begun(&prompts[0].last_line));
    }
    let ids: Vec<Vec<u32>> = prompts.iter().map(|prompt| prompt.ids.clone()).collect();
    let generation = session.generate_ids(&ids, config, seed, &mut |event| {
        let (Event::Token { text, .. } | Event::Finished { text, .. }) = event;
        if single && !text.is_empty() {
            heard(Heard::Text(text));
        }
    })?;
    let mut found: Vec<Vec<Sequence>> = prompts.iter().map(|_| vec![]).collect();
    for sequence in generation.sequences {
        found[sequence.prompt].push(sequence);
    }
    Ok(found)
}

impl Pass {
    pub(super) fn new(stage: Stage, prompt: &Prompt, sequence: &Sequence, cut: bool) -> Self {
        Self {
            stage,
            prompt: prompt.text.clone(),
            text: sequence.text.clone().unwrap_or_default(),
            tokens: sequence.ids.len(),
            finish_reason: sequence.finish_reason,
            cut,
        }
    }
}
