//! `phyla bench compare`: our benchmarks and those of other programs in turns, as processes of their own.

mod peer;
mod row;

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;

use clap::ValueEnum;
use phyla_kernels::threads::threads;
use serde_json::{Value, json};

use super::at_least_one;
use super::child::{Children, Finished};
use crate::cli::error::usage;
use crate::cli::model::{self, Dtype, QuantizeArgs};
use crate::cli::output;
use peer::{Inputs, Peer};
use row::Row;

/// The status with which a script says that its package is missing, or that this work is none of its own.
const NOT_HERE: i32 = 3;

#[derive(clap::Args)]
pub struct Args {
    /// What is compared; all is everything that inputs are given for
    #[arg(value_enum)]
    what: What,

    /// How many times either side runs, after once each to warm up
    #[arg(long, value_name = "N", default_value_t = 5, value_parser = at_least_one())]
    pairs: u64,

    /// The Python that has the peers' packages
    #[arg(long, value_name = "PATH", default_value = "python3")]
    python: PathBuf,

    /// The folder with the peers' scripts
    #[arg(long, value_name = "DIR", default_value = "tests/peers")]
    peers: PathBuf,

    /// Only these peers, each by a part of its name
    #[arg(long, value_name = "NAMES", value_delimiter = ',')]
    only: Vec<String>,

    #[command(flatten)]
    settings: Settings,

    /// Print JSON
    #[arg(long, conflicts_with = "markdown")]
    json: bool,

    /// Print lines of a Markdown table
    #[arg(long)]
    markdown: bool,
}

#[derive(Clone, Copy, PartialEq, ValueEnum)]
enum What {
    Train,
    Prefill,
    Decode,
    Beams,
    Embed,
    All,
}

/// What both sides are told.
#[derive(clap::Args, Default)]
struct Settings {
    /// A folder, a GGUF file, or a hub id such as org/name
    #[arg(long, value_name = "DIR|GGUF|HUB_ID", conflicts_with = "config")]
    model: Option<String>,

    /// A `config.json`, or a folder that holds one: random weights
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,

    /// The same model as a GGUF file, for peers that read nothing else
    #[arg(long, value_name = "FILE")]
    gguf: Option<PathBuf>,

    /// The model of `embed`, if that is another
    #[arg(long, value_name = "DIR|HUB_ID")]
    embedder: Option<String>,

    /// Texts for `embed`, one a line
    #[arg(long, value_name = "FILE")]
    texts: Option<PathBuf>,

    /// Type of our weights in the products, as in the other benchmarks [default: auto]
    #[arg(long, value_enum, hide_default_value = true)]
    dtype: Option<Dtype>,

    #[command(flatten)]
    bits: QuantizeArgs,

    /// Type of the peers' weights, such as int8 [default: ours]
    #[arg(long, value_name = "TYPE")]
    peer_dtype: Option<String>,

    /// Rows that are computed together [default: train 2, embed 32, else 1]
    #[arg(long, value_name = "N", value_parser = at_least_one())]
    batch: Option<u64>,

    /// Tokens of a row in training [default: 256]
    #[arg(long, value_name = "N", value_parser = at_least_one())]
    seq: Option<u64>,

    /// Tokens of a prompt [default: prefill 256, decode 64]
    #[arg(long, value_name = "N", value_parser = at_least_one())]
    prompt_tokens: Option<u64>,

    /// Tokens written after it [default: 32]
    #[arg(long, value_name = "N", value_parser = at_least_one())]
    new_tokens: Option<u64>,

    /// Continuations that `beams` follows side by side [default: 4]
    #[arg(long, value_name = "N", value_parser = at_least_one())]
    beams: Option<u64>,

    /// How often the work is done in one run [default: decode and beams 1, else 5]
    #[arg(long, value_name = "N", value_parser = at_least_one())]
    steps: Option<u64>,
}

impl Settings {
    /// Everything that a peer's command may ask for.
    fn inputs(&self) -> Inputs {
        let path = |path: &Option<PathBuf>| path.as_ref().map(|path| path.display().to_string());
        let of = |value: Option<String>, missing| value.ok_or(missing);
        let number = |value: Option<u64>| Ok(value.unwrap_or_default().to_string());
        let file = |folder: &String| Path::new(folder).join("config.json");
        let config = path(&self.config).map(|config| match file(&config) {
            inside if inside.is_file() => inside.display().to_string(),
            _ => config,
        });
        let of_model = self.model.as_ref().map(file).filter(|file| file.is_file());
        let is_gguf = |model: &&String| Path::new(model).extension().is_some_and(|end| end == "gguf");
        Inputs::from([
            ("subject", of(self.model.clone().or_else(|| config.clone()), "--model or --config")),
            ("config", of(config.or_else(|| path(&of_model)), "--config, or a folder as --model")),
            (
                "gguf",
                of(path(&self.gguf).or_else(|| self.model.as_ref().filter(is_gguf).cloned()), "a GGUF file as --gguf"),
            ),
            ("model", of(self.model.clone(), "--model")),
            ("texts", of(path(&self.texts), "--texts")),
            ("batch", number(self.batch)),
            ("seq", number(self.seq)),
            ("prompt_tokens", number(self.prompt_tokens)),
            ("new_tokens", number(self.new_tokens)),
            ("beams", number(self.beams)),
            ("steps", number(self.steps)),
            ("threads", Ok(threads().to_string())),
            ("dtype", of(self.peer_dtype.clone(), "--peer-dtype")),
        ])
    }

    /// Those of one work, nothing left open but the peers' type.
    fn of(&self, work: What) -> anyhow::Result<Self> {
        let folder = |reference: &String| model::folder(reference).map(|path| path.display().to_string());
        let embeds = work == What::Embed;
        let named = self.embedder.as_ref().filter(|_| embeds).or(self.model.as_ref());
        let or = |given: Option<u64>, train, prefill, decode, embed| {
            let usual = match work {
                What::Train => train,
                What::Prefill => prefill,
                What::Decode | What::Beams => decode,
                What::Embed | What::All => embed,
            };
            Some(given.unwrap_or(usual))
        };
        Ok(Self {
            model: named.map(folder).transpose()?,
            config: self.config.clone().filter(|_| !embeds),
            gguf: self.gguf.clone(),
            embedder: None,
            texts: self.texts.clone(),
            dtype: self.dtype,
            bits: self.bits,
            peer_dtype: self.peer_dtype.clone(),
            batch: or(self.batch, 2, 1, 1, 32),
            seq: or(self.seq, 256, 0, 0, 0),
            prompt_tokens: or(self.prompt_tokens, 0, 256, 64, 0),
            new_tokens: or(self.new_tokens, 0, 0, 32, 0),
            beams: Some(self.beams.unwrap_or(4)),
            steps: or(self.steps, 5, 5, 1, 5),
        })
    }

    /// The arguments of our own benchmark, or what is missing for it.
    fn ours(&self, work: What) -> Result<Vec<String>, &'static str> {
        let inputs = self.inputs();
        let input = |name| inputs.get(name).cloned().unwrap_or(Err("an input"));
        let command = if work == What::Beams { "decode" } else { name(work) };
        let mut arguments = vec!["bench".to_owned(), command.to_owned(), "--json".to_owned()];
        let mut add = |option: &str, value: String| arguments.extend([format!("--{option}"), value]);
        match &self.config {
            Some(config) => add("config", config.display().to_string()),
            None => add(
                "model",
                input("model").map_err(|_| if work == What::Embed { "--model" } else { "--model or --config" })?,
            ),
        }
        let own: &[&str] = match work {
            What::Train => &["seq"],
            What::Prefill => &["prompt_tokens"],
            What::Decode => &["prompt_tokens", "new_tokens"],
            What::Beams => &["prompt_tokens", "new_tokens", "beams"],
            What::Embed | What::All => &["texts"],
        };
        for setting in own.iter().chain(&["batch", "steps", "threads"]) {
            add(&setting.replace('_', "-"), input(setting)?);
        }
        if let Some(dtype) = self.dtype.as_ref().and_then(Dtype::to_possible_value) {
            add("dtype", dtype.get_name().to_owned());
        }
        if let Some(kind) = self.bits.quantize {
            add("quantize", kind.to_string());
        }
        if work == What::Train {
            // What the peers do.
            add("dropout", "0".into());
        }
        Ok(arguments)
    }
}

fn name(work: What) -> &'static str {
    match work {
        What::Train => "train",
        What::Prefill => "prefill",
        What::Decode => "decode",
        What::Beams => "beams",
        What::Embed => "embed",
        What::All => "all",
    }
}

/// Both sides, and who hears of it.
struct Comparison<'a> {
    args: &'a Args,
    children: Children,
    quiet: bool,
}

pub fn run(args: &Args, quiet: bool) -> anyhow::Result<()> {
    let peers = peer::chosen(peer::read(&args.peers)?, &args.only)?;
    let comparison = Comparison { args, children: Children::new()?, quiet };
    let works = match args.what {
        What::All => vec![What::Train, What::Prefill, What::Decode, What::Beams, What::Embed],
        what => vec![what],
    };
    let mut rows = vec![];
    for work in works {
        rows.extend(comparison.work(work, &peers)?);
    }
    if rows.is_empty() {
        let help = "install packages of tests/peers/requirements.txt and name that Python with --python, \
                    or give the inputs that are missing";
        return Err(usage("there was nothing to compare with", help));
    }
    if args.json {
        return output::json(&json!({ "threads": threads(), "rows": rows.iter().map(Row::json).collect::<Vec<_>>() }));
    }
    output::stdout(|out| if args.markdown { row::markdown(out, &rows) } else { row::table(out, &rows) })
}

impl Comparison<'_> {
    /// One work with all peers that can do it.
    fn work(&self, work: What, peers: &[Peer]) -> anyhow::Result<Vec<Row>> {
        let mut settings = self.args.settings.of(work)?;
        let arguments = match settings.ours(work) {
            Ok(arguments) => arguments,
            Err(missing) if self.args.what == What::All => {
                self.say(&format!("{}: left out, it needs {missing}", name(work)));
                return Ok(vec![]);
            }
            Err(missing) => {
                let help = "give it, as the examples of `phyla bench compare --help` do";
                return Err(usage(format!("`{}` cannot be measured without {missing}", name(work)), help));
            }
        };
        let mut peers = peers.iter().filter(|peer| peer.works.iter().any(|known| known == name(work))).peekable();
        if peers.peek().is_none() {
            self.say(&format!("{}: none of the peers does that", name(work)));
            return Ok(vec![]);
        }
        self.say(&format!("{}: warming up", name(work)));
        let first = self.ours(&arguments)?;
        let dtype = first["dtype"].as_str().unwrap_or("f32").to_owned();
        settings.peer_dtype.get_or_insert_with(|| dtype.clone());
        let inputs = settings.inputs();
        let mut rows = vec![];
        for peer in peers {
            let said = format!("{}, {}", name(work), peer.name);
            let skip = |why: &str| self.say(&format!("{said}: left out, {why}"));
            let command = match peer.arguments(&self.args.peers, &inputs) {
                Ok(command) => command,
                Err(why) => {
                    skip(&why);
                    continue;
                }
            };
            match self.pairs(&said, &arguments, &command)? {
                Ok(pairs) => rows.push(Row {
                    work: name(work),
                    setting: setting(&first, &pairs),
                    peer: peer.name.clone(),
                    pairs,
                }),
                Err(why) => skip(&why),
            }
        }
        Ok(rows)
    }

    /// Ours and a peer's in turns; or why the peer gives no figures.
    fn pairs(
        &self,
        said: &str,
        ours: &[String],
        peer: &[String],
    ) -> anyhow::Result<Result<Vec<(Value, Value)>, String>> {
        self.say(&format!("{said}: warming up"));
        if let Err(why) = self.peer(peer)? {
            return Ok(Err(why));
        }
        let mut pairs = vec![];
        for pair in 1..=self.args.pairs {
            let ours = self.ours(ours)?;
            let theirs = match self.peer(peer)? {
                Ok(theirs) => theirs,
                Err(why) => return Ok(Err(why)),
            };
            let speed = |value: &Value| value["tokens_per_second"].as_f64().unwrap_or(f64::NAN);
            let (a, b) = (speed(&ours), speed(&theirs));
            self.say(&format!(
                "{said}: pair {pair} of {}: {a:.1} and {b:.1} tokens/s, ratio {:.2}",
                self.args.pairs,
                a / b
            ));
            pairs.push((ours, theirs));
        }
        Ok(Ok(pairs))
    }

    /// A run of our own benchmark. Without it there is nothing to compare, so that its errors are ours.
    fn ours(&self, arguments: &[String]) -> anyhow::Result<Value> {
        let mut command = Command::new(std::env::current_exe()?);
        command.args(arguments);
        let finished = self.children.run(command)?;
        if !finished.status.success() {
            let shown = format!("`phyla {}` fails: {}", arguments.join(" "), finished.stderr.trim());
            return Err(usage(shown, "run that command alone"));
        }
        peer::result(&finished.stdout)
    }

    /// A run of a peer, or why it has no result.
    fn peer(&self, arguments: &[String]) -> anyhow::Result<Result<Value, String>> {
        let mut command = Command::new(&self.args.python);
        command.args(arguments);
        let finished = self.children.run(command).map_err(|error| match error.downcast_ref::<std::io::Error>() {
            Some(_) => usage(format!("{error:#}"), "name a Python with --python"),
            None => error,
        })?;
        tracing::debug!("{}", finished.stderr);
        Ok(understood(&finished).map_err(|why| match finished.status.code() {
            Some(NOT_HERE) => why,
            _ => format!("`{} {}` fails: {why}", self.args.python.display(), arguments.join(" ")),
        }))
    }

    fn say(&self, line: &str) {
        if !self.quiet {
            // A closed standard error is no reason to stop.
            writeln!(std::io::stderr(), "{line}").ok();
        }
    }
}

/// A peer's figures, or in a line why there are none.
fn understood(finished: &Finished) -> Result<Value, String> {
    if !finished.status.success() {
        return Err(finished.last_words());
    }
    let value = peer::result(&finished.stdout).map_err(|error| error.to_string())?;
    match value["tokens_per_second"].as_f64() {
        Some(speed) if speed > 0. => Ok(value),
        _ => Err("its JSON has no tokens_per_second".into()),
    }
}

/// What was done, for a table: our settings and our type, and the peer's if that is another.
fn setting(first: &Value, pairs: &[(Value, Value)]) -> String {
    let number = |name: &str| first[name].as_u64().map(|value| format!("{} {value}", name.replace('_', " ")));
    let mut parts: Vec<String> =
        ["texts", "batch", "beams", "seq", "prompt_tokens", "new_tokens"].into_iter().filter_map(number).collect();
    let dtype = |value: &Value| value["dtype"].as_str().map(str::to_owned);
    let (ours, theirs) = (dtype(first), pairs.last().and_then(|(_, peer)| dtype(peer)));
    let other = theirs.filter(|theirs| Some(theirs) != ours.as_ref()).map(|theirs| format!("peer {theirs}"));
    parts.extend(ours);
    parts.extend(other);
    parts.join(", ")
}
