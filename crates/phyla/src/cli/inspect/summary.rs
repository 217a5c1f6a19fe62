//! Everything known of a model without loading it: the tree, totals, what fits nothing, the tokenizer.

use std::io::{self, Write};
use std::path::Path;

use phyla_data::tokenizer::Tokenizer;
use phyla_models::checkpoint::Checkpoint;
use phyla_models::{Arch, Found, Slot, Survey};
use phyla_nn::SublayerSpec;
use serde_json::{Map, Value, json};

use super::tensors::sizes;
use super::tree::Node;
use crate::cli::output::{self, bytes, count};

/// Bytes of a number in the cache.
const CACHE_NUMBER: usize = size_of::<f32>();
/// Lines of one kind of problem before the rest is only counted.
const SHOWN: usize = 12;

/// What was found.
pub struct Inspected {
    pub survey: Survey,
    pub checkpoint: Option<Checkpoint>,
    pub tokenizer: Option<Tokenizer>,
}

/// The tokenizer of a folder, if it has one; a broken one is a warning.
pub fn tokenizer(folder: &Path) -> Option<Tokenizer> {
    let named = ["tokenizer.json", "vocab.json", "vocab.txt", "tokenizer.model"];
    if !named.iter().any(|name| folder.join(name).is_file()) {
        return None;
    }
    Tokenizer::load(folder).map_err(|error| tracing::warn!("{error}")).ok()
}

impl Inspected {
    /// Prints it.
    pub fn show(&self, tensors: bool, json: bool) -> anyhow::Result<()> {
        let tree = Node::new(&self.survey);
        if json {
            return output::json(&self.json(&tree)?);
        }
        output::stdout(|out| {
            tree.draw(out)?;
            writeln!(out)?;
            if tensors {
                self.places(out)?;
                writeln!(out)?;
            }
            self.totals(out)?;
            self.problems(out)
        })
    }

    /// Weights that one token meets: of experts those that it is sent to.
    fn active(&self) -> usize {
        let of = |slot: &Slot| match chosen(&self.survey.arch, &slot.path) {
            Some((chosen, experts)) => slot.count().saturating_mul(chosen) / experts.max(1),
            None => slot.count(),
        };
        self.survey.slots.iter().fold(0, |sum: usize, slot| sum.saturating_add(of(slot)))
    }

    fn cache_bytes(&self) -> usize {
        CACHE_NUMBER.saturating_mul(self.survey.arch.cache_numbers())
    }

    /// A line for each parameter: which part of which tensor it is.
    fn places(&self, out: &mut dyn Write) -> io::Result<()> {
        let longest = |of: fn(&Slot) -> usize| self.survey.slots.iter().map(of).max().unwrap_or(0);
        let (ours, theirs) = (longest(|slot| slot.path.len()), longest(|slot| slot.place.tensor.len()));
        for slot in &self.survey.slots {
            let (part, parts) = slot.place.part;
            let part = if parts > 1 { format!("part {} of {parts}", part + 1) } else { String::new() };
            let way = if transposed(slot) { "transposed" } else { "" };
            let shape = format!("{:?}", slot.place.stored_shape(&slot.shape));
            let (path, tensor) = (&slot.path, &slot.place.tensor);
            let line = format!("{path:ours$}  {tensor:theirs$}  {shape:14} {:9} {part} {way}", state(&slot.found));
            writeln!(out, "{}", line.trim_end())?;
        }
        Ok(())
    }

    fn totals(&self, out: &mut dyn Write) -> io::Result<()> {
        let arch = &self.survey.arch;
        let kind = if arch.context_is_hard { "a hard limit" } else { "as trained" };
        let (all, active) = (self.survey.count(), self.active());
        write!(out, "parameters  {} ({all})", count(all as u64))?;
        writeln!(
            out,
            "{}",
            if active < all { format!(", {} for each token", count(active as u64)) } else { String::new() }
        )?;
        if let Some(checkpoint) = &self.checkpoint {
            let report = checkpoint.report();
            writeln!(out, "weights     {} in {} tensors", sizes(&report), report.tensors.len())?;
        }
        writeln!(out, "vocabulary  {}", arch.vocab())?;
        writeln!(out, "context     {} tokens, {kind}", arch.context)?;
        if let Some(encoder) = arch.source() {
            writeln!(out, "layers      {} that read, {} that write", encoder.layers.len(), arch.main().layers.len())?;
        }
        let full = (self.cache_bytes() as u64).saturating_mul(arch.context as u64);
        if self.cache_bytes() > 0 {
            let each = bytes(self.cache_bytes() as u64);
            writeln!(out, "cache       {each} a token in f32, {} at full context", bytes(full))?;
        }
        let Some(tokenizer) = &self.tokenizer else { return Ok(()) };
        write!(out, "tokenizer   {} tokens", tokenizer.vocab_size())?;
        for (role, token) in tokenizer.special().roles() {
            if let Some(token) = token {
                write!(out, ", {} {} ({})", role.trim_end_matches("_token"), token.text.escape_debug(), token.id)?;
            }
        }
        writeln!(out, "{}", if tokenizer.templates().is_empty() { "" } else { ", with a chat template" })
    }

    /// What keeps the model from being loaded, and what is left over.
    fn problems(&self, out: &mut dyn Write) -> io::Result<()> {
        let mut missing = vec![];
        let mut misshapen = vec![];
        for slot in &self.survey.slots {
            let tensor = &slot.place.tensor;
            match &slot.found {
                Found::Missing(nearest) if nearest.is_empty() => missing.push(format!("{tensor} (for {})", slot.path)),
                Found::Missing(nearest) => {
                    missing.push(format!("{tensor} (for {}); the nearest are {}", slot.path, nearest.join(", ")));
                }
                Found::Misshapen { shape, expected } => {
                    misshapen.push(format!("{tensor} is {shape:?}, and the configuration asks for {expected:?}"));
                }
                Found::Nothing | Found::Stored(_) => {}
            }
        }
        for (title, lines) in [("missing", &missing), ("misshapen", &misshapen), ("unused", &self.survey.unused)] {
            if lines.is_empty() {
                continue;
            }
            writeln!(out, "\n{} {title}:", lines.len())?;
            lines.iter().take(SHOWN).try_for_each(|line| writeln!(out, "  {line}"))?;
            if lines.len() > SHOWN {
                writeln!(out, "  and {} more (--json lists all)", lines.len() - SHOWN)?;
            }
        }
        Ok(())
    }

    fn json(&self, tree: &Node) -> anyhow::Result<Value> {
        let Survey { family, arch, slots, unused, warnings } = &self.survey;
        let mut value = json!({
            "model_type": family.model_type,
            "architecture": family.architecture(arch.task),
            "task": arch.task,
            "parameters": self.survey.count(),
            "active_parameters": self.active(),
            "vocabulary": arch.vocab(),
            "hidden": arch.hidden(),
            "layers": arch.main().layers.len(),
            "encoder_layers": arch.source().map(|encoder| encoder.layers.len()),
            "context": arch.context,
            "context_is_hard": arch.context_is_hard,
            "cache_bytes_per_token": self.cache_bytes(),
            "tree": serde_json::to_value(tree)?,
            "tensors": slots.iter().map(slot).collect::<Vec<_>>(),
            "unused": unused,
            "warnings": warnings,
            "tokenizer": self.tokenizer.as_ref().map(tokenizer_json),
        });
        if let Some(checkpoint) = &self.checkpoint {
            let report = checkpoint.report();
            value["bytes"] = json!(report.bytes);
            value["bytes_by_dtype"] = json!(report.bytes_by_dtype);
            value["metadata"] = json!(checkpoint.metadata());
        }
        Ok(value)
    }
}

/// Of a weight of an expert: how many experts a token is sent to, and of how many.
fn chosen(arch: &Arch, path: &str) -> Option<(usize, usize)> {
    let parts: Vec<&str> = path.split('.').collect();
    let [tower, "layers", layer, name, "experts", ..] = parts.as_slice() else { return None };
    let (_, tower) = arch.towers().into_iter().find(|(known, _)| known == tower)?;
    let layer = tower.layers.get(layer.parse::<usize>().ok()?)?;
    match layer.sublayers.iter().find(|spec| spec.name() == *name)? {
        SublayerSpec::Moe(moe) => Some((moe.routing.top_k.min(moe.experts), moe.experts)),
        _ => None,
    }
}

fn transposed(slot: &Slot) -> bool {
    slot.place.transposed && slot.shape.len() == 2
}

fn state(found: &Found) -> &'static str {
    match found {
        Found::Nothing => "",
        Found::Stored(dtype) => dtype.as_str(),
        Found::Missing(_) => "missing",
        Found::Misshapen { .. } => "misshapen",
    }
}

fn slot(slot: &Slot) -> Value {
    let mut value = json!({
        "path": slot.path,
        "shape": slot.shape,
        "tensor": slot.place.tensor,
        "part": slot.place.part,
        "transposed": transposed(slot),
    });
    match &slot.found {
        Found::Nothing => {}
        Found::Stored(dtype) => value["dtype"] = json!(dtype.as_str()),
        Found::Missing(nearest) => value["missing"] = json!({ "nearest": nearest }),
        Found::Misshapen { shape, expected } => value["misshapen"] = json!({ "found": shape, "expected": expected }),
    }
    value
}

fn tokenizer_json(tokenizer: &Tokenizer) -> Value {
    let roles = tokenizer.special().roles();
    let special: Map<String, Value> = (roles.into_iter())
        .filter_map(|(role, token)| {
            token.map(|token| (role.to_string(), json!({ "text": token.text, "id": token.id })))
        })
        .collect();
    json!({
        "vocab_size": tokenizer.vocab_size(),
        "special": special,
        "chat_template": !tokenizer.templates().is_empty(),
        "model_max_length": tokenizer.model_max_length(),
    })
}
