//! Prompts from a file, many at once: a JSON line for each, in their order.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::path::Path;
use std::rc::Rc;

use phyla::Session;
use phyla_data::dataset::Position;
use phyla_data::tokenizer::Tokenizer;
use phyla_generate::{Answer, Engine, GenerationConfig, Request, Stats, Update};
use serde_json::{Map, Value, json};

use super::Args;
use crate::cli::error::usage;
use crate::cli::progress::Progress;
use crate::cli::sink::Sink;
use crate::cli::source::Lines;

/// Results that wait for those before them, by line.
type Results = Rc<RefCell<BTreeMap<u64, Outcome>>>;

/// What came of a line: its object and, if it has been answered, how many ids were written; or what is wrong with it.
type Outcome = Result<(Value, usize), String>;

/// Answers the prompts of a file.
pub fn run(args: &Args, input: &Path, quiet: bool) -> anyhow::Result<()> {
    // Before the model, which takes longer to load than a missing file takes to be missed.
    let stdin = input == Path::new("-");
    let lines = Lines::open((!stdin).then_some(input))?;
    let (session, user) = args.asking.session()?;
    let sink = Sink::open(args.output.as_deref(), &[input])?;
    let settings = session.config.clone().merge(user);
    let results = Results::default();
    let progress = Progress::new("prompts", None, quiet);
    let mut engine = Engine::new(session.generator(), args.engine.config(&settings, &session.model)?)?;
    let mut many = Many { args, settings, session: &session, results, sink, progress, written: 0, ids: 0, faults: 0 };
    let done = many.answer(&mut engine, lines);
    many.finish(done, engine.stats())?;
    args.asking.ngrams.keep(&session)
}

/// Prompts on their way in, and results on their way out.
struct Many<'a> {
    args: &'a Args,
    settings: GenerationConfig,
    session: &'a Session,
    results: Results,
    sink: Sink,
    progress: Progress,
    /// Lines that have been written.
    written: u64,
    /// Ids of their answers.
    ids: usize,
    faults: u64,
}

impl<'a> Many<'a> {
    fn answer(&mut self, engine: &mut Engine<'a>, lines: Lines) -> anyhow::Result<()> {
        // Blank lines are nothing between objects.
        let (mut number, json) = (0, self.args.is_json_lines());
        let blank = |line: &phyla_data::Result<(String, Position)>| {
            line.as_ref().is_ok_and(|(text, _)| json && text.trim().is_empty())
        };
        let queue = engine.config().max_num_seqs;
        let mut lines = lines.filter(|line| !blank(line)).peekable();
        while lines.peek().is_some() || !engine.is_idle() {
            // A queue as long as the batch keeps that full; more would only fill the memory.
            while engine.stats().waiting < queue
                && let Some(line) = lines.next()
            {
                if let Err(fault) = self.submit(engine, number, line) {
                    self.results.borrow_mut().insert(number, Err(fault));
                }
                number += 1;
            }
            engine.step()?;
            self.write()?;
        }
        self.write()
    }

    /// Hands a line over, or says what is wrong with it.
    fn submit(
        &mut self,
        engine: &mut Engine<'a>,
        number: u64,
        line: phyla_data::Result<(String, Position)>,
    ) -> Result<(), String> {
        let (text, position) = line.map_err(|error| error.to_string())?;
        let at = |message: String| format!("{position}: {message}");
        let (request, id) = self.request(&text).map_err(at)?;
        let results = self.results.clone();
        let (sink, place) = (results, position.to_string());
        let tokenizer = self.session.tokenizer.as_ref();
        let tell = move |update: Update| {
            if let Update::Done(done) = update {
                let outcome = match done {
                    Ok(answer) => Ok(object(id.as_ref(), &answer, tokenizer)),
                    Err(error) => Err(format!("{place}: {error}")),
                };
                sink.borrow_mut().insert(number, outcome);
            }
        };
        engine.submit(request, tell).map(drop).map_err(|error| at(error.to_string()))
    }

    /// A line as a request, and the name that it gives itself: an object with `prompt` or `ids`, or else a prompt.
    fn request(&mut self, line: &str) -> Result<(Request, Option<Value>), String> {
        let Ok(Value::Object(mut map)) = serde_json::from_str(line) else {
            if self.args.is_json_lines() {
                return Err("expected an object such as {\"prompt\": \"Once\", \"temperature\": 0.8}".into());
            }
            let prompt = self.encode(line)?;
            let (config, seed) = (self.settings.clone(), self.args.asking.sampling.seed);
            return Ok((Request { prompt, config, seed, adapters: None }, None));
        };
        let id = map.remove("id");
        let adapters = map.remove("adapter").map(names).transpose()?;
        let seed = match map.remove("seed") {
            None => self.args.asking.sampling.seed,
            Some(seed) => {
                seed.as_u64().ok_or_else(|| format!("seed: expected a number of at least 0, found {seed}"))?
            }
        };
        let prompt = match (map.remove("prompt"), map.remove("ids")) {
            (Some(Value::String(text)), None) => self.encode(&text)?,
            (None, Some(ids)) => serde_json::from_value(ids).map_err(|error| format!("ids: {error}"))?,
            (None, None) => return Err("neither `prompt` nor `ids` is given".into()),
            (Some(_), Some(_)) => return Err("both `prompt` and `ids` are given".into()),
            (Some(prompt), None) => return Err(format!("prompt: expected a text, found {prompt}")),
        };
        Ok((Request { prompt, config: self.config(map)?, seed, adapters }, id))
    }

    /// The settings of a line before those of all.
    fn config(&mut self, map: Map<String, Value>) -> Result<GenerationConfig, String> {
        let (config, warnings) = GenerationConfig::of_user(&map).map_err(|error| error.to_string())?;
        warnings.iter().for_each(|warning| self.progress.warn(warning));
        Ok(self.settings.clone().merge(config))
    }

    fn encode(&self, text: &str) -> Result<Vec<u32>, String> {
        let tokenizer = self.session.tokenizer.as_ref();
        let tokenizer = tokenizer.ok_or("the model has no tokenizer; give {\"ids\": [1, 2, 3]}")?;
        tokenizer.encode(text, true).map_err(|error| error.to_string())
    }

    /// Writes the results whose turn it is.
    fn write(&mut self) -> anyhow::Result<()> {
        while let Some(outcome) = { self.results.borrow_mut().remove(&self.written) } {
            match outcome {
                Ok((object, ids)) => {
                    self.ids += ids;
                    self.sink.json(&object)?;
                }
                Err(fault) => {
                    self.faults += 1;
                    self.progress.warn(&fault);
                    self.sink.json(&json!({ "error": fault }))?;
                }
            }
            self.written += 1;
            self.progress.set(self.written, None);
        }
        Ok(())
    }

    fn finish(mut self, done: anyhow::Result<()>, stats: Stats) -> anyhow::Result<()> {
        self.progress.finish();
        // Results before a failure are results.
        let flushed = self.sink.flush();
        done.and(flushed)?;
        let (prompts, seconds) = (self.written, self.progress.elapsed().as_secs_f64());
        tracing::debug!(
            "{prompts} prompts in {seconds:.2} s: {} tokens read, {} shared with others, {} written ({:.1}/s); {} preemptions",
            stats.prompt_tokens,
            stats.shared_tokens,
            self.ids,
            self.ids as f64 / seconds,
            stats.preemptions
        );
        if self.faults > 0 {
            let message = format!("{} of {prompts} prompts could not be answered", self.faults);
            return Err(usage(message, "the others are done; mend these"));
        }
        Ok(())
    }
}

/// The adapters that a line wants: one by its name, several, or none.
fn names(value: Value) -> Result<Vec<String>, String> {
    let wrong = |value: &Value| format!("adapter: expected a name, a list of names, or null for none, found {value}");
    match value {
        Value::Null => Ok(vec![]),
        Value::String(name) => Ok(vec![name]),
        Value::Array(all) => {
            all.iter().map(|name| name.as_str().map(str::to_owned).ok_or_else(|| wrong(name))).collect()
        }
        other => Err(wrong(&other)),
    }
}

/// What is written of an answer.
fn object(id: Option<&Value>, answer: &Answer, tokenizer: Option<&Tokenizer>) -> (Value, usize) {
    let sequences = answer.sequences.iter().map(|s| super::sequence(s, tokenizer).into());
    let sequences: Vec<Value> = sequences.collect();
    let named = id.map(|id| ("id".to_owned(), id.clone())).into_iter();
    let object = named.chain([("sequences".to_owned(), sequences.into())]).collect();
    (Value::Object(object), answer.sequences.iter().map(|sequence| sequence.ids.len()).sum())
}
