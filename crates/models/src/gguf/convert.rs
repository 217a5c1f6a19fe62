//! Whole models as GGUF files: from a folder, another GGUF file or memory, tensor by tensor, in bounded memory, into a file
//! that appears whole or not at all.

use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;
use std::str::FromStr;

use phyla_kernels::quant::NF4;
use serde_json::{Map, Value as Json};

use super::plan::{self, Origin, Planned};
use super::table::ROPE_FREQS;
use super::{Datum, Gguf, GgufWriter, say};
use crate::arch::HeadsApart;
use crate::checkpoint::{Checkpoint, Dtype, TensorSpec, nearest};
use crate::family::{Entry, Parsed};
use crate::quantize::{Facts, Mix, Quantize, Role, Tally};
use crate::{Found, LoadError, Model, read_config, registry, survey};

/// What the matrices of a file are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FileType {
    /// Single precision.
    F32,
    /// Half precision.
    F16,
    /// The upper half of f32.
    Bf16,
    /// Blocks of few bits.
    Mix(Mix),
}

impl FileType {
    /// All of them, as they are spelled.
    pub fn names() -> Vec<&'static str> {
        ["f32", "f16", "bf16"].into_iter().chain(Mix::ALL.into_iter().map(Mix::name)).collect()
    }

    /// `general.file_type`.
    fn number(self) -> u32 {
        match self {
            Self::F32 => 0,
            Self::F16 => 1,
            Self::Bf16 => 32,
            Self::Mix(mix) => mix.file_type(),
        }
    }
}

impl fmt::Display for FileType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::F32 => "f32",
            Self::F16 => "f16",
            Self::Bf16 => "bf16",
            Self::Mix(mix) => mix.name(),
        })
    }
}

impl FromStr for FileType {
    type Err = String;

    /// By name, in upper or lower case.
    fn from_str(name: &str) -> Result<Self, String> {
        match name.to_lowercase().as_str() {
            "f32" => Ok(Self::F32),
            "f16" => Ok(Self::F16),
            "bf16" => Ok(Self::Bf16),
            NF4 => Err(format!(
                "{NF4} is no type of GGUF files, which have no place for its scales: take iq4_nl or q4_k_m, or leave the \
                 model as it is and load it with --quantize {NF4}"
            )),
            lower => Mix::from_name(lower).map(Self::Mix).ok_or_else(|| {
                let known = Self::names();
                let near = nearest(lower, known.iter().copied());
                let near = near.first().map(|name| format!("; did you mean {name}?")).unwrap_or_default();
                format!("there is no such type; known are {}{near}", known.join(", "))
            }),
        }
    }
}

/// What a file is to be and to say besides what the model's configuration does.
#[derive(Clone, Debug)]
pub struct GgufOptions {
    /// What its matrices are.
    pub kind: FileType,
    /// `general.name`.
    pub name: Option<String>,
    /// The `tokenizer.*` keys; without them, only Phyla opens the file, in ids.
    pub tokenizer: Map<String, Json>,
    /// Tokens at which texts end, the usual one first.
    pub ends: Vec<u32>,
    /// Of embedders, by the format's numbers: 1 for the mean of the states, 2 for the first token's.
    pub pooling: Option<u32>,
    /// Bytes of memory at most, beyond mapped files and what is there already; at least a row of a matrix, or a head.
    pub memory: usize,
}

impl GgufOptions {
    /// A file whose matrices are `kind`, of no name, without a tokenizer; within a GiB of memory.
    pub fn new(kind: FileType) -> Self {
        Self { kind, name: None, tokenizer: Map::new(), ends: vec![], pooling: None, memory: 1 << 30 }
    }

    /// Numbers in memory at a time: as f32, in another order, and as they are written. Beyond a few millions more of them
    /// are no faster.
    fn piece(&self) -> usize {
        (self.memory / 16).clamp(1, 1 << 22)
    }
}

/// What was written.
#[derive(Debug, Default)]
pub struct Converted {
    /// Sentences that a user should see.
    pub warnings: Vec<String>,
    /// Bytes of the tensors that were read.
    pub before: u64,
    /// Bytes of the tensors in the file.
    pub after: u64,
    /// How many tensors are of each type.
    pub tensors: BTreeMap<&'static str, usize>,
}

/// How far it is: bytes that are written, and all of them.
pub type Progress<'a> = &'a mut dyn FnMut(u64, u64);

/// Writes the model of a folder or a `.gguf` file as a GGUF file. Of a `.gguf` file all keys stay but those that say what
/// the tensors are.
///
/// # Errors
/// A family or a configuration that the format cannot hold, by name; tensors that are missing, or numbers that are not
/// finite or too large for f16; the disk. `to` is then as it was.
pub fn convert(from: &Path, to: &Path, options: &GgufOptions, progress: Progress) -> Result<Converted, LoadError> {
    let (config, _) = read_config(from)?;
    let checkpoint = Checkpoint::open(from)?;
    let survey = survey(&config, Some(&checkpoint))?;
    for slot in &survey.slots {
        let tensor = &slot.place.tensor;
        match &slot.found {
            Found::Nothing | Found::Stored(_) => {}
            Found::Missing(near) => {
                let near =
                    if near.is_empty() { String::new() } else { format!("; the nearest are {}", near.join(", ")) };
                return Err(LoadError::Weights(format!("no tensor {tensor} in {}{near}", from.display())));
            }
            Found::Misshapen { shape, expected } => {
                return Err(LoadError::Weights(format!(
                    "tensor {tensor}: config.json asks for shape {expected:?}, the file holds {shape:?}"
                )));
            }
        }
    }
    if let Some(gguf) = checkpoint.gguf() {
        let roles = survey.slots.iter().filter(|slot| slot.shape.len() == 2).flat_map(|slot| {
            let role = Role::of(&slot.path);
            [Some(&slot.place.tensor), slot.place.folded.as_ref()].into_iter().flatten().zip(std::iter::repeat(role))
        });
        let roles = roles.filter_map(|(tensor, role)| Some((tensor.as_str(), role?))).collect();
        let facts = Facts::of(&survey.arch, survey.family);
        return again(gguf, to, options, &Choice { options, facts }, &roles, progress);
    }
    let mut params = vec![];
    for slot in survey.slots {
        if let Found::Stored(_) = slot.found {
            let view = checkpoint.get(&slot.place.tensor)?;
            params.push((slot.path, slot.shape, Origin::Stored(view, slot.place)));
        }
    }
    let (family, mut parsed) = registry::parse(&config)?;
    parsed.arch = survey.arch;
    let before = checkpoint.total_bytes();
    let converted = write(family, parsed, &config, params, to, options, progress)?;
    Ok(Converted { before, ..converted })
}

/// Writes a model in memory as a GGUF file.
///
/// # Errors
/// As [`convert`].
pub fn save_gguf(model: &Model, to: &Path, options: &GgufOptions, progress: Progress) -> Result<Converted, LoadError> {
    let mut parsed = model.family.parse(&model.config, Some(model.arch.task))?;
    parsed.arch = model.arch.clone();
    let param = |param: &std::sync::Arc<phyla_ops::Param>| {
        (param.path().to_string(), param.dims().to_vec(), Origin::Held(param.clone()))
    };
    let params = model.params().iter().map(param).collect();
    let before = model.params().iter().map(|param| param.weight().bytes() as u64).sum();
    let converted = write(model.family, parsed, &model.config, params, to, options, progress)?;
    Ok(Converted { before, ..converted })
}

/// Which type each tensor gets.
struct Choice<'a> {
    options: &'a GgufOptions,
    facts: Facts,
}

impl Choice<'_> {
    /// Of a matrix in this role with rows of `columns`.
    fn of(&self, role: Role, columns: usize, tally: &mut Tally) -> Dtype {
        match self.options.kind {
            FileType::F32 => Dtype::F32,
            FileType::F16 => Dtype::F16,
            FileType::Bf16 => Dtype::BF16,
            FileType::Mix(mix) => tally.choose(mix.kind(role, &self.facts), columns).map_or(Dtype::F16, Dtype::Quant),
        }
    }

    fn sentence(&self, tally: &Tally) -> Option<String> {
        match self.options.kind {
            FileType::Mix(mix) => tally.sentence(&Quantize::Gguf(mix), "are f16"),
            _ => None,
        }
    }
}

fn write(
    family: &Entry,
    mut parsed: Parsed,
    config: &Map<String, Json>,
    mut params: Vec<(String, Vec<usize>, Origin)>,
    to: &Path,
    options: &GgufOptions,
    progress: Progress,
) -> Result<Converted, LoadError> {
    let Some(table) = family.gguf else {
        let with = registry::FAMILIES.iter().filter(|family| family.gguf.is_some()).map(|family| family.model_type);
        return Err(LoadError::Weights(format!(
            "{}: GGUF files do not hold this family: save it as safetensors; those that they hold are {}",
            family.model_type,
            with.collect::<Vec<_>>().join(", ")
        )));
    };
    let mut warnings = vec![];
    if parsed.arch.heads.is_empty() && params.iter().any(|(path, ..)| path.starts_with("pooler.")) {
        warnings.push(format!("the pooler is left out: GGUF files of {} have none", family.model_type));
        params.retain(|(path, ..)| !path.starts_with("pooler."));
    }
    if parsed.arch.heads.is_empty() && parsed.arch.main().causal {
        warnings.push("the model has no head: from the file it comes with its token table as one".into());
    }
    warnings.extend(within_windows(&mut parsed));
    let heads = parsed.arch.heads_apart();
    let planned = plan::tensors(&table, family.model_type, params)?;
    let (keys, factors) = say::keys(&table, &parsed, options.pooling)?;
    let mut metadata = general(options, table.arch);
    metadata.extend(keys);
    if options.ends.len() > 3 {
        warnings.push(format!("the format names 3 ends of texts, and there are {}", options.ends.len()));
    }
    metadata.extend(say::tokenizer(&options.tokenizer, config, &options.ends)?);

    let choice = Choice { options, facts: Facts::of(&parsed.arch, family) };
    let mut tally = Tally::default();
    let dtype = |tensor: &Planned, tally: &mut Tally| match (Role::of(&tensor.parts[0].path), tensor.shape.last()) {
        (Some(role), Some(&columns)) if tensor.shape.len() > 1 => choice.of(role, columns, tally),
        _ => Dtype::F32,
    };
    let mut specs: Vec<TensorSpec> = (planned.iter())
        .map(|tensor| TensorSpec {
            name: tensor.name.clone(),
            dtype: dtype(tensor, &mut tally),
            shape: tensor.shape.clone(),
        })
        .collect();
    if let Some(factors) = &factors {
        specs.push(TensorSpec { name: ROPE_FREQS.into(), dtype: Dtype::F32, shape: vec![factors.len()] });
    }
    for part in planned.iter().flat_map(|tensor| &tensor.parts) {
        if part.was_quantised() && matches!(options.kind, FileType::Mix(_)) {
            tally.again();
        }
    }
    let mut writer = GgufWriter::create(to, &metadata, &specs)?;
    if let Some(factors) = factors {
        writer.write(ROPE_FREQS, &factors)?;
    }
    say::same(&writer.header()?, family, &parsed)?;
    let mut counter = Counter::new(&specs, progress);
    for (tensor, spec) in planned.iter().zip(&specs) {
        counter.fill(&mut writer, tensor, spec, heads, options.piece())?;
    }
    writer.finish()?;
    warnings.extend(choice.sentence(&tally));
    Ok(Converted { warnings, after: counter.all, tensors: counted(&specs), ..Converted::default() })
}

/// One window on every layer: files know none, and a shorter context says the same. Says so.
fn within_windows(parsed: &mut Parsed) -> Option<String> {
    let arch = say::plain(&parsed.arch);
    let windows: Vec<Option<usize>> = say::windows(&arch).collect();
    let window = windows.first().copied().flatten()?;
    if windows.iter().any(|&other| other != Some(window)) || !parsed.fields.contains_key("max_position_embeddings") {
        return None;
    }
    parsed.arch.context = window;
    parsed.fields.insert("max_position_embeddings".into(), window.into());
    Some(format!(
        "GGUF files have no sliding window: the context is {window} tokens there, within which nothing changes"
    ))
}

fn general(options: &GgufOptions, arch: &str) -> Vec<(String, Datum)> {
    let mut pairs = vec![("general.architecture".to_string(), Datum::Text(arch.into()))];
    pairs.push(("general.type".into(), Datum::Text("model".into())));
    if let Some(name) = &options.name {
        pairs.push(("general.name".into(), Datum::Text(name.clone())));
    }
    pairs.extend(of_type(options));
    pairs
}

/// The keys that say what the tensors are.
fn of_type(options: &GgufOptions) -> [(String, Datum); 3] {
    [
        ("general.file_type".into(), Datum::U32(options.kind.number())),
        // The blocks are as ggml has made them since its second version.
        ("general.quantization_version".into(), Datum::U32(2)),
        ("general.alignment".into(), Datum::U32(super::header::ALIGN as u32)),
    ]
}

fn counted(specs: &[TensorSpec]) -> BTreeMap<&'static str, usize> {
    let mut tensors = BTreeMap::new();
    for spec in specs {
        *tensors.entry(spec.dtype.as_str()).or_default() += 1;
    }
    tensors
}

/// A GGUF file once more, with other types.
fn again(
    gguf: &Gguf,
    to: &Path,
    options: &GgufOptions,
    choice: &Choice,
    roles: &BTreeMap<&str, Role>,
    progress: Progress,
) -> Result<Converted, LoadError> {
    let mut metadata: Vec<(String, Datum)> = vec![];
    let own = of_type(options);
    for key in gguf.keys().filter(|key| own.iter().all(|(own, _)| own != key)) {
        metadata.extend(gguf.datum(key).map(|datum| (key.to_string(), datum)));
    }
    metadata.extend(own);
    let mut tally = Tally::default();
    let (mut specs, mut views) = (vec![], vec![]);
    for view in gguf.names().filter_map(|name| gguf.tensor(name)) {
        let dtype = match (roles.get(view.name.as_str()), view.shape.last()) {
            (Some(&role), Some(&columns)) => choice.of(role, columns, &mut tally),
            _ => view.dtype,
        };
        if dtype != view.dtype && matches!((dtype, view.dtype), (Dtype::Quant(_), Dtype::Quant(_))) {
            tally.again();
        }
        specs.push(TensorSpec { name: view.name.clone(), dtype, shape: view.shape.clone() });
        views.push(view);
    }
    let before = views.iter().map(|view| view.bytes().len() as u64).sum();
    let mut writer = GgufWriter::create(to, &metadata, &specs)?;
    let mut counter = Counter::new(&specs, progress);
    for (view, spec) in views.iter().zip(&specs) {
        if view.dtype == spec.dtype {
            writer.write_bytes(&spec.name, view.bytes())?;
            counter.add(view.bytes().len() as u64);
            continue;
        }
        let columns = spec.shape.last().copied().unwrap_or(1).max(1);
        let (rows, step) = (view.elements() / columns, (options.piece() / columns).max(1));
        for first in (0..rows).step_by(step) {
            let rows = first..rows.min(first + step);
            let part = view.part(rows.start * columns..rows.end * columns, &[rows.len(), columns]);
            let values = part.map_or_else(|| Ok(vec![]), |part| part.to_f32())?;
            plan::check(&spec.name, &values, first, columns, spec.dtype == Dtype::F16)?;
            writer.append(&spec.name, &values)?;
            counter.numbers(values.len(), spec.dtype);
        }
    }
    writer.finish()?;
    let warnings = choice.sentence(&tally).into_iter().collect();
    Ok(Converted { warnings, before, after: counter.all, tensors: counted(&specs) })
}

/// How much is written.
struct Counter<'a> {
    done: u64,
    all: u64,
    progress: Progress<'a>,
}

fn size(numbers: usize, dtype: Dtype) -> u64 {
    (numbers / dtype.block() * dtype.bytes()) as u64
}

impl<'a> Counter<'a> {
    fn new(specs: &[TensorSpec], progress: Progress<'a>) -> Self {
        let all = specs.iter().map(|spec| size(spec.shape.iter().product(), spec.dtype)).sum();
        Self { done: 0, all, progress }
    }

    fn add(&mut self, bytes: u64) {
        self.done += bytes;
        (self.progress)(self.done, self.all);
    }

    fn numbers(&mut self, numbers: usize, dtype: Dtype) {
        self.add(size(numbers, dtype));
    }

    /// Writes one tensor.
    fn fill(
        &mut self,
        writer: &mut GgufWriter,
        tensor: &Planned,
        spec: &TensorSpec,
        heads: HeadsApart,
        piece: usize,
    ) -> Result<(), LoadError> {
        for part in &tensor.parts {
            let columns = part.columns();
            part.rows(heads, piece, |first, values| {
                plan::check(&part.path, values, first, columns.max(1), spec.dtype == Dtype::F16)?;
                writer.append(&spec.name, values)?;
                self.numbers(values.len(), spec.dtype);
                Ok(())
            })?;
        }
        Ok(())
    }
}
