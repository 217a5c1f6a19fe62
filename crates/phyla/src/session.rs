//! A model ready to use: weights, tokenizer and generation settings from one folder, or one GGUF file.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use candle_core::DType;
use phyla_data::tokenizer::Tokenizer;
use phyla_generate::{Event, Generation, GenerationConfig, Generator, NamedAdapter, Ngrams, PrefixCache};
use phyla_models::adapter::Adapter;
use phyla_models::checkpoint::CheckpointError;
use phyla_models::gguf::Gguf;
use phyla_models::hub::Hub;
use phyla_models::{Input, LoadError, LoadOptions, Model, Quantize, load};
use phyla_ops::{Data, no_grad};

use crate::Error;
use crate::device::Choice;

/// The folder of an adapter, and what it is called: `DIR`, or `NAME=DIR`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AdapterFolder {
    /// The name; the folder as it is written unless given.
    pub name: String,
    /// The folder.
    pub folder: PathBuf,
}

impl std::str::FromStr for AdapterFolder {
    type Err = std::convert::Infallible;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let named = text.split_once('=').filter(|(name, _)| !name.is_empty() && !name.contains(['/', '\\']));
        let (name, folder) = named.unwrap_or((text, text));
        Ok(Self { name: name.into(), folder: folder.into() })
    }
}

/// Lets the adapters of these folders change `model`; what several add is added up.
///
/// # Errors
/// A folder that holds no adapter of this model, and two of one name.
pub fn adapt(model: &Model, folders: &[AdapterFolder]) -> Result<Vec<NamedAdapter>, Error> {
    let mut named: Vec<NamedAdapter> = vec![];
    for AdapterFolder { name, folder } in folders {
        if named.iter().any(|other| other.name == *name) {
            return Err(LoadError::Adapter(format!("two adapters are called {name:?}: name them, NAME=DIR")).into());
        }
        named.push(NamedAdapter { name: name.clone(), adapter: Arc::new(Adapter::load(model, folder)?) });
    }
    let adapters: Vec<_> = named.iter().map(|named| named.adapter.clone()).collect();
    if adapters.iter().filter(|adapter| adapter.is_prompt()).count() > 1 {
        return Err(LoadError::Adapter(
            "several prompts or prefixes cannot stand before one text: give one of them".into(),
        )
        .into());
    }
    model.use_adapters(&adapters);
    Ok(named)
}

/// How to open a model.
#[derive(Clone, Copy, Debug, Default)]
pub struct OpenOptions {
    /// Where to compute.
    pub device: Choice,
    /// The type of the weights; `None` keeps the stored one.
    pub dtype: Option<DType>,
    /// What becomes of matrices, in place of `dtype`; on the CPU, and not for training.
    pub quantize: Option<Quantize>,
}

/// An open model.
#[derive(Debug)]
pub struct Session {
    /// The weights.
    pub model: Model,
    /// Absent in folders without tokenizer files, which answer in ids alone.
    pub tokenizer: Option<Tokenizer>,
    /// The model's own generation settings.
    pub config: GenerationConfig,
    /// What is odd about the folder: unused tensors, unknown settings.
    pub warnings: Vec<String>,
    /// The folder it was opened from.
    pub folder: PathBuf,
    /// Time to load all of it.
    pub load: Duration,
    /// Who guesses what follows: the same text, sooner.
    pub assistant: Option<Assistant>,
    /// Beginnings of prompts that are read once.
    pub prefixes: Option<PrefixCache>,
    /// A smaller model of the same tokenizer, whose opinion counts against this one's.
    pub amateur: Option<Model>,
    /// What `guidance_scale` guides away from: one for all prompts, or one for each.
    pub negative: Vec<Vec<u32>>,
    /// What the decoder of an encoder-decoder reads before it writes.
    pub decoder_ids: Vec<u32>,
    /// Adapters that change the model, of which requests of an engine may choose.
    pub adapters: Vec<NamedAdapter>,
}

/// Who guesses what follows.
#[derive(Debug)]
pub enum Assistant {
    /// A smaller model; with its tokenizer where that is another one, whose texts are told again.
    Model(Box<Model>, Option<Box<Tokenizer>>),
    /// Counts of what has followed what.
    Ngrams(Ngrams),
}

impl Assistant {
    fn guesser(&self) -> phyla_generate::Assistant<'_> {
        match self {
            Self::Model(model, None) => phyla_generate::Assistant::Model(model),
            Self::Model(model, Some(tokenizer)) => phyla_generate::Assistant::Translated(model, tokenizer),
            Self::Ngrams(ngrams) => phyla_generate::Assistant::Ngrams(ngrams),
        }
    }
}

/// What a forward pass gives.
#[derive(Clone, Debug)]
pub struct Output {
    results: Vec<(String, Data)>,
}

impl Output {
    /// A result by its name in transformers: `logits`, `last_hidden_state`, `pooler_output`, `start_logits`, …
    pub fn get(&self, name: &str) -> Option<&Data> {
        self.results.iter().find(|(known, _)| known == name).map(|(_, result)| result)
    }

    /// All results.
    pub fn results(&self) -> &[(String, Data)] {
        &self.results
    }
}

impl Session {
    /// Opens a folder or a hub id (`org/name`, `org/name@revision`).
    ///
    /// # Errors
    /// A folder or hub id that cannot be found, and files that contradict each other or cannot be read.
    pub fn open(reference: &str) -> Result<Self, Error> {
        Self::open_with(reference, OpenOptions::default())
    }

    /// As [`Session::open`], with a choice of device and type.
    ///
    /// # Errors
    /// As [`Session::open`]; a device that this build or machine does not have.
    pub fn open_with(reference: &str, options: OpenOptions) -> Result<Self, Error> {
        let start = Instant::now();
        let folder = Hub::from_env().resolve(reference)?;
        let device = options.device.open()?;
        let OpenOptions { dtype, quantize, .. } = options;
        let (model, report) = load(&folder, &LoadOptions { device, dtype, quantize, ..LoadOptions::default() })?;
        let tokenizer = tokenizer(&folder)?;
        phyla_kernels::memory::give_back_freed();
        let (config, mut warnings) = GenerationConfig::load(&folder, &model.config)?;
        warnings.splice(0..0, report.warnings);
        Ok(Self {
            model,
            tokenizer,
            config,
            warnings,
            folder,
            load: start.elapsed(),
            assistant: None,
            prefixes: None,
            amateur: None,
            negative: vec![],
            decoder_ids: vec![],
            adapters: vec![],
        })
    }

    /// Lets another model guess what follows; one with another tokenizer is told the text again in its own tokens.
    pub fn assisted_by(self, assistant: Session) -> Self {
        let theirs = assistant.tokenizer.filter(|theirs| {
            let same =
                |id: u32| self.tokenizer.as_ref().is_some_and(|ours| ours.id_to_token(id) == theirs.id_to_token(id));
            !(0..self.model.arch.vocab() as u32).all(same)
        });
        let model = Assistant::Model(Box::new(assistant.model), theirs.map(Box::new));
        Self { assistant: Some(model), load: self.load + assistant.load, ..self }
    }

    /// Reads of prompts only what `prefixes` does not know: see [`Generator::remembering`].
    pub fn remembering(self, prefixes: PrefixCache) -> Self {
        Self { prefixes: Some(prefixes), ..self }
    }

    /// Lets another model's opinion count against this one's (contrastive decoding).
    ///
    /// # Errors
    /// If its tokenizer is another one.
    pub fn against(self, amateur: Session) -> Result<Self, Error> {
        if let (Some(ours), Some(theirs)) = (&self.tokenizer, &amateur.tokenizer) {
            let differs = |id: &u32| ours.id_to_token(*id) != theirs.id_to_token(*id);
            if let Some(id) = (0..self.model.arch.vocab() as u32).find(differs) {
                return Err(Error::Task(format!(
                    "the amateur has another tokenizer: token {id} is {:?} there, and {:?} here",
                    theirs.id_to_token(id).unwrap_or_default(),
                    ours.id_to_token(id).unwrap_or_default()
                )));
            }
        }
        Ok(Self { amateur: Some(amateur.model), load: self.load + amateur.load, ..self })
    }

    /// One pass over a batch, nothing recorded: what the heads give and `last_hidden_state`, by their names in
    /// transformers; see [`Model::run`].
    ///
    /// # Errors
    /// Ids outside the vocabulary, masks and positions of other sizes, rows longer than the model has positions for.
    pub fn forward(&self, input: &Input) -> Result<Output, Error> {
        let results = no_grad(|| self.model.run(input, false))?;
        Ok(Output { results: results.into_iter().map(|(name, result)| (name, result.into_data())).collect() })
    }

    /// Continues a text; `settings` go before the model's own.
    ///
    /// # Errors
    /// No tokenizer; settings out of range; a prompt that is empty or too long.
    pub fn generate(&self, prompt: &str, settings: GenerationConfig, seed: u64) -> Result<String, Error> {
        let Some(tokenizer) = &self.tokenizer else { return Err(Error::NoTokenizer) };
        let ids = tokenizer.encode(prompt, true)?;
        let generation = self.generate_ids(&[ids], settings, seed, &mut |_| {})?;
        Ok(generation.sequences.into_iter().next().and_then(|sequence| sequence.text).unwrap_or_default())
    }

    /// Continues each of `prompts`, with an event for every token.
    ///
    /// # Errors
    /// As [`Session::generate`].
    pub fn generate_ids(
        &self,
        prompts: &[Vec<u32>],
        settings: GenerationConfig,
        seed: u64,
        on_event: &mut dyn FnMut(Event),
    ) -> Result<Generation, Error> {
        let config = self.config.clone().merge(settings);
        Ok(self.generator().generate(prompts, &config, seed, on_event)?)
    }

    /// What generates: the model with its tokenizer, its assistant and what it remembers. With it
    /// [`phyla_generate::Engine`] answers many prompts at once.
    pub fn generator(&self) -> Generator<'_> {
        let mut generator = Generator::new(&self.model, self.tokenizer.as_ref());
        generator = generator.guided_from(&self.negative).decoding_from(&self.decoder_ids);
        generator = generator.with_adapters(&self.adapters);
        if let Some(amateur) = &self.amateur {
            generator = generator.against(amateur);
        }
        if let Some(assistant) = &self.assistant {
            generator = generator.assisted_by(assistant.guesser());
        }
        if let Some(prefixes) = &self.prefixes {
            generator = generator.remembering(prefixes);
        }
        generator
    }
}

/// The tokenizer of a folder, or of a GGUF file; `None` where there is none. A folder that means to have one has one: a
/// broken one is an error, not silence.
pub(crate) fn tokenizer(path: &Path) -> Result<Option<Tokenizer>, Error> {
    if path.is_file() {
        let metadata = Gguf::open(path).and_then(|file| file.json("tokenizer.")).map_err(CheckpointError::from);
        let metadata = metadata.map_err(LoadError::from)?;
        let known = metadata.contains_key("tokenizer.ggml.model");
        return Ok(if known { Some(Tokenizer::from_gguf(&metadata)?) } else { None });
    }
    let names = ["tokenizer.json", "tokenizer_config.json", "tokenizer.model", "vocab.json", "vocab.txt"];
    let there = names.iter().any(|name| path.join(name).exists());
    Ok(if there { Some(Tokenizer::load(path)?) } else { None })
}
