//! The options of `generate` and `chat` that say how to decode: one for each setting of `generation_config.json`, and a file
//! of them. What is not given comes from the model's own.

use std::path::PathBuf;

use clap::{Arg, ArgMatches, Command, FromArgMatches};
use phyla_generate::{CONSTRAINTS, GenerationConfig, KEYS, Key};
use serde_json::{Map, Value};

use super::constraint::ConstraintArgs;
use super::error::usage;

#[derive(clap::Args, Clone, Debug)]
pub struct Sampling {
    /// Settings as JSON, such as another model's generation_config.json; options go before it
    #[arg(long, value_name = "FILE")]
    pub generation_config: Option<PathBuf>,

    /// End before this text; repeatable
    #[arg(long, value_name = "TEXT")]
    pub stop: Vec<String>,

    /// Seed of every draw: the same one gives the same text
    #[arg(long, default_value_t = 0)]
    pub seed: u64,

    #[command(flatten)]
    constraint: ConstraintArgs,

    #[command(flatten)]
    keys: Keys,
}

/// The settings that were given as options of their own.
#[derive(Clone, Debug)]
struct Keys(Map<String, Value>);

impl Sampling {
    /// What the user said, and nothing else; warnings go to standard error.
    pub fn config(&self) -> anyhow::Result<GenerationConfig> {
        let mut map = self.generation_config.as_ref().map(read).transpose()?.unwrap_or_default();
        map.extend(self.keys.0.clone());
        self.constraint.extend(&mut map)?;
        if !self.stop.is_empty() {
            map.insert("stop_strings".into(), self.stop.clone().into());
        }
        let (config, warnings) = GenerationConfig::of_user(&map)?;
        for warning in &warnings {
            tracing::warn!("{warning}");
        }
        Ok(config)
    }
}

/// The object of a file.
fn read(path: &PathBuf) -> anyhow::Result<Map<String, Value>> {
    let wrong = |reason: String| {
        let help = "give a file such as a model's generation_config.json";
        usage(format!("cannot read the settings from `{}`: {reason}", path.display()), help)
    };
    let text = std::fs::read(path).map_err(|error| wrong(error.to_string()))?;
    match serde_json::from_slice(&text) {
        Ok(Value::Object(map)) => Ok(map),
        Ok(_) => Err(wrong("expected an object at the top".into())),
        Err(error) => Err(wrong(format!("not valid JSON: {error}"))),
    }
}

/// JSON or, where it is none, a list of numbers between commas, or text.
fn value(text: &str) -> Value {
    let list = || serde_json::from_str(&format!("[{text}]")).ok().filter(|_| text.contains(','));
    serde_json::from_str(text).ok().or_else(list).unwrap_or_else(|| text.into())
}

/// The settings that are options as they are.
fn keys() -> impl Iterator<Item = &'static Key> {
    KEYS.iter().filter(|key| !CONSTRAINTS.contains(&key.name))
}

impl clap::Args for Keys {
    fn augment_args(command: Command) -> Command {
        command.args(keys().map(|key| {
            let truth = key.value.starts_with("BOOL");
            let arg = Arg::new(key.name).long(key.name.replace('_', "-")).value_name(key.value).help(key.help);
            // A switch needs no word.
            if truth { arg.num_args(0..=1).default_missing_value("true") } else { arg.allow_negative_numbers(true) }
        }))
    }

    fn augment_args_for_update(command: Command) -> Command {
        Self::augment_args(command)
    }
}

impl FromArgMatches for Keys {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
        let given = keys().filter_map(|key| Some((key.name, matches.get_one::<String>(key.name)?)));
        Ok(Self(given.map(|(name, text)| (name.to_owned(), value(text))).collect()))
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        self.0.extend(Self::from_arg_matches(matches)?.0);
        Ok(())
    }
}
