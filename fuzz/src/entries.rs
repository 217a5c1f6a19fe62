//! One function for each kind of file that a stranger may have written: it reads the bytes as Phyla would, uses what
//! it got as a program would, and returns the message of a refusal.

use std::collections::BTreeMap;
use std::fmt::Display;
use std::path::{Path, PathBuf};

use phyla_data::template::Chat;
use phyla_data::tokenizer::Tokenizer;
use phyla_generate::{GenerationConfig, Settings};
use phyla_models::checkpoint::Checkpoint;
use phyla_models::{Input, fresh, load, read_config, registry, survey};
use phyla_train::recipe::Recipe;

/// The message of a refusal.
pub type Refusal = Result<(), String>;

/// Weights that a model may have to be built and run here.
const SMALL: usize = 1 << 18;

fn said(error: impl Display) -> String {
    error.to_string()
}

/// A folder of this process, in memory where the system has such a place.
fn folder() -> PathBuf {
    let shared = Path::new("/dev/shm");
    let base = if shared.is_dir() { shared.to_owned() } else { std::env::temp_dir() };
    let folder = base.join(format!("phyla-fuzz-{}", std::process::id()));
    std::fs::create_dir_all(&folder).ok();
    folder
}

fn file(name: &str, bytes: &[u8]) -> Result<PathBuf, String> {
    let path = folder().join(name);
    std::fs::write(&path, bytes).map_err(said)?;
    Ok(path)
}

/// Removes what the functions below have written.
pub fn clean_up() {
    std::fs::remove_dir_all(folder()).ok();
}

/// `model.safetensors`: opened, and every tensor of it read.
pub fn checkpoint(bytes: &[u8]) -> Refusal {
    let checkpoint = Checkpoint::open(file("weights.safetensors", bytes)?).map_err(said)?;
    for name in checkpoint.names() {
        let view = checkpoint.get(name).map_err(said)?;
        // Types that are no floats are refused, which is no refusal of the file.
        let _ = view.to_f32();
    }
    Ok(())
}

/// `config.json`: surveyed; initialised if it is small or too large; run if it is small.
pub fn config(bytes: &[u8]) -> Refusal {
    let (config, _) = read_config(&file("config.json", bytes)?).map_err(said)?;
    registry::parse(&config).map_err(said)?;
    let count = survey(&config, None).map_err(said)?.count();
    // In between lies what a machine may do for minutes, rightly.
    if count > SMALL && count < 1 << 44 {
        return Ok(());
    }
    let model = fresh(&config, 0, &candle_core::Device::Cpu).map_err(said)?;
    let time = model.arch.context.min(5) as u32;
    let ids: Vec<u32> = (0..time).map(|i| i % model.arch.vocab() as u32).collect();
    let mut pass = Input::row(&ids).pass(&model.arch).map_err(said)?;
    model.check(&ids, &pass).map_err(said)?;
    let hidden = model.forward(&ids, None, &mut pass).map_err(said)?;
    model.logits(&hidden).map_err(said)?;
    Ok(())
}

/// A folder whose `config.json` does not fit its weights: `config` beside a sound checkpoint.
pub fn misfit(bytes: &[u8], weights: &Path) -> Refusal {
    let folder = folder().join("misfit");
    std::fs::create_dir_all(&folder).map_err(said)?;
    std::fs::write(folder.join("config.json"), bytes).map_err(said)?;
    let linked = folder.join("model.safetensors");
    if !linked.exists() {
        std::fs::copy(weights, &linked).map_err(said)?;
    }
    load(&folder, &Default::default()).map(|_| ()).map_err(said)
}

/// `generation_config.json`.
pub fn generation_config(bytes: &[u8]) -> Refusal {
    let path = file("generation_config.json", bytes)?;
    let folder = path.parent().unwrap_or(Path::new("."));
    let (config, warnings) = GenerationConfig::load(folder, &Default::default()).map_err(said)?;
    match warnings.iter().find(|warning| warning.is_empty()) {
        Some(_) => Err(String::new()),
        None => Settings::try_from(&config).map(|_| ()).map_err(said),
    }
}

/// A recipe.
pub fn recipe(bytes: &[u8]) -> Refusal {
    let text = std::str::from_utf8(bytes).map_err(|_| "recipe.toml: not UTF-8".to_string())?;
    let recipe = Recipe::parse("recipe.toml", text, &[]).map_err(said)?;
    // What is accepted can be written down and read back as the same.
    let again = Recipe::parse("recipe.toml", &recipe.resolved().map_err(said)?, &[]).map_err(said)?;
    if again == recipe { Ok(()) } else { Err(String::new()) }
}

fn use_tokenizer(files: BTreeMap<String, Vec<u8>>) -> Refusal {
    let tokenizer = Tokenizer::from_memory(files).map_err(said)?;
    for text in ["One day, a little fox went out.\n", "", "<|endoftext|> äöü 12345"] {
        let ids = tokenizer.encode(text, true).map_err(said)?;
        tokenizer.decode(&ids, false).map_err(said)?;
    }
    Ok(())
}

/// `tokenizer.json`.
pub fn tokenizer(bytes: &[u8]) -> Refusal {
    use_tokenizer(BTreeMap::from([("tokenizer.json".to_string(), bytes.to_vec())]))
}

/// A `tokenizer.json` that is sound, for those that sit beside it.
pub const SOUND: &str = r#"{"version": "1.0", "added_tokens": [{"id": 3, "content": "<|endoftext|>", "special": true,
    "single_word": false, "lstrip": false, "rstrip": false, "normalized": false}], "normalizer": null,
    "pre_tokenizer": {"type": "Whitespace"}, "post_processor": null, "decoder": null,
    "model": {"type": "WordLevel", "vocab": {"[UNK]": 0, "fox": 1, "day": 2}, "unk_token": "[UNK]"}}"#;

fn beside(name: &str, bytes: &[u8]) -> BTreeMap<String, Vec<u8>> {
    BTreeMap::from([("tokenizer.json".to_string(), SOUND.into()), (name.to_string(), bytes.to_vec())])
}

/// `tokenizer_config.json`.
pub fn tokenizer_config(bytes: &[u8]) -> Refusal {
    use_tokenizer(beside("tokenizer_config.json", bytes))
}

/// `chat_template.jinja`, rendered over a conversation.
pub fn template(bytes: &[u8]) -> Refusal {
    let tokenizer = Tokenizer::from_memory(beside("chat_template.jinja", bytes)).map_err(said)?;
    let message = |role: &str, content: &str| serde_json::json!({"role": role, "content": content});
    let messages = [message("system", "Be kind."), message("user", "Who is there?"), message("assistant", "A fox.")];
    let tools = [serde_json::json!({"type": "function", "function": {"name": "look", "parameters": {}}})];
    for tools in [None, Some(&tools[..])] {
        let chat = Chat { messages: &messages, tools, add_generation_prompt: tools.is_some(), ..Chat::default() };
        tokenizer.templates().render(None, &chat).map_err(said)?;
    }
    Ok(())
}
