//! A model of a folder as one GGUF file: its weights, its tokenizer and what else llama.cpp wants to know, in one go.

use std::path::Path;

use phyla_generate::GenerationConfig;
use phyla_models::arch::Towers;
use phyla_models::gguf::{Converted, FileType, GgufOptions, Progress, convert};
use phyla_models::{read_config, registry};

use crate::Error;
use crate::session::tokenizer;
use crate::task::embed::{Pooling, Recipe};

/// Writes the model at `from`, a folder or a `.gguf` file, to `to`, its matrices as `kind` and within `memory` bytes beyond
/// mapped files and the tokenizer. `progress` is told the bytes that are written, and all of them.
///
/// # Errors
/// As [`convert`]; a tokenizer that the format has no words for.
pub fn to_gguf(from: &Path, to: &Path, kind: FileType, memory: usize, progress: Progress) -> Result<Converted, Error> {
    let mut options = GgufOptions { memory, ..GgufOptions::new(kind) };
    let mut warnings = vec![];
    if from.is_dir() {
        let (config, _) = read_config(from).map_err(phyla_models::LoadError::from)?;
        let (_, parsed) = registry::parse(&config).map_err(phyla_models::LoadError::from)?;
        // Dropped again before the weights are read: a vocabulary takes memory, too.
        match tokenizer(from)? {
            Some(tokenizer) => options.tokenizer = tokenizer.to_gguf(parsed.arch.vocab())?,
            None => {
                warnings.push("there is no tokenizer: llama.cpp will not open the file, and Phyla takes ids".into())
            }
        }
        let (settings, _) = GenerationConfig::load(from, &config)?;
        options.ends = settings.eos_token_id.unwrap_or_default();
        options.name = from.canonicalize().ok().and_then(|path| Some(path.file_name()?.to_str()?.to_owned()));
        if matches!(parsed.arch.towers, Towers::Encoder(_)) {
            options.pooling = pooling(&Recipe::read(from)?, &mut warnings);
        }
    }
    let mut converted = convert(from, to, &options, progress)?;
    warnings.append(&mut converted.warnings);
    Ok(Converted { warnings, ..converted })
}

/// The format's number of how states become a vector.
fn pooling(recipe: &Recipe, warnings: &mut Vec<String>) -> Option<u32> {
    match recipe.pooling {
        Pooling::Mean => Some(1),
        Pooling::Cls => Some(2),
        Pooling::Last => Some(3),
        Pooling::Max => {
            warnings.push("the format has no word for vectors of the largest numbers: the file says no pooling".into());
            None
        }
    }
}
