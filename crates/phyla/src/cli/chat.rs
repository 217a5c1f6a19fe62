//! `phyla chat`: a conversation at the terminal, through the model's own chat template.

use std::io::{self, Write};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::Context;
use phyla::device::Choice;
use phyla::{Session, adapt, generate};
use phyla_data::template::Chat;
use phyla_data::tokenizer::Tokenizer;
use phyla_generate::{Event, FinishReason, Generator};
use rustyline::DefaultEditor;
use rustyline::error::ReadlineError;
use serde_json::{Value, json};

use super::constraint;
use super::error::usage;
use super::model::{AdapterArgs, Dtype, QuantizeArgs};
use super::sampling::Sampling;

/// Talk with a model
#[derive(clap::Args)]
#[command(after_help = "Examples:
  phyla chat --model models/instruct
  phyla chat --model models/instruct --system \"Answer in one sentence.\" --temperature 0.7

In the conversation: /reset forgets it, /system TEXT sets the system message, /save FILE writes it as JSON,
/help tells all this, Ctrl-D ends. Ctrl-C stops an answer, not the program.")]
pub struct Args {
    /// A folder, or a hub id such as org/name
    #[arg(long, value_name = "DIR|HUB_ID")]
    model: String,

    /// The system message
    #[arg(long, value_name = "TEXT")]
    system: Option<String>,

    #[command(flatten)]
    sampling: Sampling,

    /// Type of the weights
    #[arg(long, value_enum, default_value = "auto")]
    dtype: Dtype,

    #[command(flatten)]
    bits: QuantizeArgs,

    #[command(flatten)]
    adapters: AdapterArgs,

    /// auto, cpu, cuda:N or metal
    #[arg(long, default_value = "auto")]
    device: Choice,
}

const HELP: &str = "/reset        forget the conversation
/system TEXT  set the system message and start over; without TEXT, remove it
/save FILE    write the conversation as JSON
/help         this
Ctrl-C stops an answer, Ctrl-D ends";

/// Set by Ctrl-C while an answer is being written.
static STOP: AtomicBool = AtomicBool::new(false);

pub fn run(args: &Args) -> anyhow::Result<()> {
    let mut session = super::model::session(&args.model, args.device, args.dtype, args.bits)?;
    adapt(&session.model, &args.adapters.adapters)?;
    let user = args.sampling.config()?;
    super::outputs::warn_of_unprinted(&user);
    session.config = std::mem::take(&mut session.config).merge(user);
    let Some(tokenizer) = &session.tokenizer else {
        return Err(usage(format!("`{}` has no tokenizer", args.model), "chat needs a folder with tokenizer files"));
    };
    if tokenizer.templates().is_empty() {
        let help = "take an instruction-tuned model, or `phyla generate` for plain continuation";
        return Err(usage(format!("`{}` has no chat template", args.model), help));
    }
    ctrlc::set_handler(|| STOP.store(true, Ordering::SeqCst)).context("cannot listen to Ctrl-C")?;
    let mut conversation = Conversation {
        session: &session,
        tokenizer,
        seed: args.sampling.seed,
        messages: vec![],
        memory: generate::Session::new(),
    };
    conversation.set_system(args.system.as_deref());
    let mut editor = DefaultEditor::new().context("cannot read from the terminal")?;
    eprintln!(
        "{} with {} parameters; /help tells the commands",
        args.model,
        super::output::count(session.model.count() as u64)
    );
    loop {
        let line = match editor.readline("> ") {
            Ok(line) => line,
            Err(ReadlineError::Interrupted) => continue,
            Err(ReadlineError::Eof) => return Ok(()),
            Err(error) => return Err(error).context("cannot read from the terminal"),
        };
        // A line that cannot be remembered can still be answered.
        let _ = editor.add_history_entry(&line);
        match line.trim() {
            "" => {}
            command if command.starts_with('/') => conversation.command(command),
            text => conversation.answer(text)?,
        }
    }
}

struct Conversation<'a> {
    session: &'a Session,
    tokenizer: &'a Tokenizer,
    seed: u64,
    messages: Vec<Value>,
    /// What the model has read, so that an answer reads only what is new.
    memory: generate::Session,
}

impl Conversation<'_> {
    fn set_system(&mut self, text: Option<&str>) {
        self.messages = text.map(|text| json!({ "role": "system", "content": text })).into_iter().collect();
    }

    fn command(&mut self, line: &str) {
        let (name, rest) = line.split_once(char::is_whitespace).unwrap_or((line, ""));
        let rest = rest.trim();
        match name {
            "/help" => eprintln!("{HELP}"),
            "/reset" => {
                self.messages.retain(|message| message["role"] == "system");
                eprintln!("forgotten");
            }
            "/system" => {
                self.set_system((!rest.is_empty()).then_some(rest));
                eprintln!("{}", if rest.is_empty() { "no system message" } else { "system message set" });
            }
            "/save" if rest.is_empty() => eprintln!("/save needs a file name"),
            "/save" => match self.save(&PathBuf::from(rest)) {
                Ok(()) => eprintln!("{} messages in {rest}", self.messages.len()),
                Err(error) => eprintln!("cannot save to {rest}: {error:#}"),
            },
            other => eprintln!("no command is called {other}\n{HELP}"),
        }
    }

    fn save(&self, path: &PathBuf) -> anyhow::Result<()> {
        Ok(phyla_models::checkpoint::atomic_write(path, &serde_json::to_vec_pretty(&self.messages)?)?)
    }

    /// Answers a message, or says why not and forgets it.
    fn answer(&mut self, text: &str) -> anyhow::Result<()> {
        self.messages.push(json!({ "role": "user", "content": text }));
        let chat = Chat { messages: &self.messages, add_generation_prompt: true, ..Chat::default() };
        let rendered = self.tokenizer.templates().render(None, &chat);
        let ids = match rendered.and_then(|rendered| self.tokenizer.encode(&rendered.text, false)) {
            Ok(ids) => ids,
            Err(error) => {
                self.messages.pop();
                eprintln!("error: {error}");
                return Ok(());
            }
        };
        STOP.store(false, Ordering::SeqCst);
        let generator = Generator::new(&self.session.model, Some(self.tokenizer)).cancelled_by(&STOP);
        // Another turn, other draws; the same conversation again, the same ones.
        let seed = self.seed.wrapping_add(self.messages.len() as u64);
        let mut failed = None;
        let generation = generator.generate_in(&mut self.memory, &ids, &self.session.config, seed, &mut |event| {
            let (Event::Token { text, .. } | Event::Finished { text, .. }) = event;
            let mut out = io::stdout().lock();
            if let Err(error) = out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
                failed.get_or_insert(error);
            }
        });
        println!();
        if let Some(error) = failed {
            return Err(error).context("cannot write to standard output");
        }
        match generation.map(|generation| generation.sequences.into_iter().next()) {
            Ok(Some(sequence)) => {
                if sequence.finish_reason == FinishReason::Cancelled {
                    eprintln!("[stopped]");
                }
                constraint::warn(std::slice::from_ref(&sequence));
                self.messages.push(json!({ "role": "assistant", "content": sequence.text.unwrap_or_default() }));
            }
            Ok(None) => {}
            Err(error) => {
                self.messages.pop();
                eprintln!("error: {error}");
            }
        }
        Ok(())
    }
}
