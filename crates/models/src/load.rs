//! From a folder or a GGUF file to a model: every parameter finds its tensor by the family's table of names, in place in the
//! mapped file where that can be.

use std::borrow::Cow;
use std::collections::{BTreeSet, HashMap};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use candle_core::{DType, Device};
use half::{bf16, f16};
use phyla_kernels::quant::Quant;
use phyla_nn::{Init, Source};
use phyla_ops::{Mapped, Param, Quantised, Weight, cpu};
use serde_json::{Map, Value};

use crate::arch::HeadsApart;
use crate::checkpoint::{Checkpoint, CheckpointError, Dtype, TensorView, nearest};
use crate::cut::{Cut, Rows};
use crate::family::Entry;
use crate::fresh::Fresh;
use crate::names::Place;
use crate::naming::{Naming, TiedHead};
use crate::quantize::{Made, Quantize, Quantizer};
use crate::{Arch, ConfigError, Dropouts, Model, Task, config, registry};

/// How to load.
#[derive(Clone, Debug)]
pub struct LoadOptions {
    /// Where the weights go.
    pub device: Device,
    /// The type of matrices; `None` keeps the stored one. Vectors (norms, biases) are f32 on the CPU.
    pub dtype: Option<DType>,
    /// Dropout in place of the configuration's.
    pub dropouts: Dropouts,
    /// Another head than the one that `architectures` names.
    pub head: Option<NewHead>,
    /// What becomes of matrices, in place of `dtype`; on the CPU, and not for training.
    pub quantize: Option<Quantize>,
}

/// A head for a model that was trained with another one, or with none.
#[derive(Clone, Debug, PartialEq)]
pub struct NewHead {
    /// What it answers.
    pub task: Task,
    /// Fields to put into the configuration: `id2label`, `label2id`, `problem_type`.
    pub config: Map<String, Value>,
    /// Seed of the weights that the checkpoint lacks; without one, that they are lacking is an error.
    pub seed: Option<u64>,
}

impl Default for LoadOptions {
    fn default() -> Self {
        Self { device: Device::Cpu, dtype: None, dropouts: Dropouts::default(), head: None, quantize: None }
    }
}

/// Why a model cannot be loaded.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// The configuration.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The weights.
    #[error(transparent)]
    Checkpoint(#[from] CheckpointError),
    /// A tensor that does not fit the configuration, or is not there.
    #[error("{0}")]
    Weights(String),
    /// An adapter that cannot be made, read or used.
    #[error("{0}")]
    Adapter(String),
    /// A tensor operation.
    #[error(transparent)]
    Tensor(#[from] candle_core::Error),
}

/// What loading found besides the model.
#[derive(Debug, Default)]
pub struct LoadReport {
    /// For each parameter, its place in the checkpoint.
    pub places: Vec<(String, Place)>,
    /// Tensors that no parameter asked for.
    pub unused: Vec<String>,
    /// Sentences that a user should see.
    pub warnings: Vec<String>,
    /// Bytes used in place in the mapped file.
    pub mapped_bytes: usize,
}

/// Loads a folder that holds `config.json` and safetensors, or a `.gguf` file.
pub fn load(path: &Path, options: &LoadOptions) -> Result<(Model, LoadReport), LoadError> {
    if crate::adapter::is_adapter(path) {
        return Err(LoadError::Adapter(format!(
            "{} is an adapter, which changes a model: give the model itself, and this folder as --adapter",
            path.display()
        )));
    }
    let mut config = config::read(&config_file(path))?;
    if let Some(head) = &options.head {
        config.extend(head.config.clone());
    }
    let (family, parsed) = registry::parse_as(&config, options.head.as_ref().map(|head| head.task))?;
    let checkpoint = Checkpoint::open(path)?;
    let mut report = LoadReport::default();
    for field in &parsed.unknown {
        report.warnings.push(format!("config.json: {field} is not a field of {} and has no effect", family.model_type));
    }
    let mut arch = parsed.arch;
    arch.set_dropouts(options.dropouts);
    let mut source = FromCheckpoint::new(&checkpoint, family, options, arch.heads_apart());
    source.quantizer = Quantizer::asked(options, &arch, family)?;
    source.settle_head(&mut arch, &mut report)?;
    if options.head.is_some()
        && let Some(name) = family.architecture(arch.task)
    {
        config.insert("architectures".into(), serde_json::json!([name]));
    }
    let model =
        Model::build(arch, family, config, &mut source).map_err(|e| source.failure.take().unwrap_or(e.into()))?;
    source.finish(&mut report);
    Ok((model, report))
}

/// Parameters from a checkpoint.
struct FromCheckpoint<'a> {
    checkpoint: &'a Checkpoint,
    family: &'static Entry,
    options: &'a LoadOptions,
    /// See [`Arch::heads_apart`].
    heads: HeadsApart,
    naming: Naming<'a>,
    params: HashMap<String, Arc<Param>>,
    used: BTreeSet<String>,
    places: Vec<(String, Place)>,
    /// Parameters of a new head.
    drawn: Vec<String>,
    fresh: Option<Fresh>,
    quantizer: Option<Quantizer>,
    mapped_bytes: usize,
    /// The error in full; candle's own type carries only text.
    failure: Option<LoadError>,
}

impl<'a> FromCheckpoint<'a> {
    fn new(checkpoint: &'a Checkpoint, family: &'static Entry, options: &'a LoadOptions, heads: HeadsApart) -> Self {
        Self {
            checkpoint,
            family,
            options,
            heads,
            naming: Naming::new(checkpoint, family),
            params: HashMap::new(),
            used: BTreeSet::new(),
            places: vec![],
            drawn: vec![],
            fresh: options.head.as_ref().and_then(|head| head.seed).map(|seed| Fresh::new(seed, options)),
            quantizer: None,
            mapped_bytes: 0,
            failure: None,
        }
    }

    /// Takes a head that stands in the file although the configuration ties it; see [`TiedHead`].
    fn settle_head(&mut self, arch: &mut Arch, report: &mut LoadReport) -> Result<(), LoadError> {
        report.warnings.extend(self.naming.settle_pooler(arch));
        let table = arch.table();
        match self.naming.tied_head(arch.tied(), table)? {
            TiedHead::AsConfigured => {}
            TiedHead::Same { head } => _ = self.used.insert(head),
            TiedHead::Lent { head } => {
                let param = self.read(table, &[arch.vocab(), arch.tokens.dim], &head)?;
                self.params.insert(table.into(), param);
            }
            TiedHead::Own { warning } => {
                report.warnings.push(warning);
                arch.untie();
            }
        }
        Ok(())
    }

    fn read(&mut self, path: &str, shape: &[usize], place: &Place) -> Result<Arc<Param>, LoadError> {
        if !self.checkpoint.contains(&place.tensor) {
            return Err(self.missing(path, &place.tensor));
        }
        let view = self.checkpoint.get(&place.tensor)?;
        if !place.fits(shape, &view.shape) {
            return Err(LoadError::Weights(format!(
                "tensor {}: config.json asks for shape {:?}, the file holds {:?}",
                place.tensor,
                place.stored_shape(shape),
                view.shape
            )));
        }
        self.used.insert(place.tensor.clone());
        self.places.push((path.to_string(), place.clone()));
        let weight = match &place.folded {
            Some(rows) => self.folded(path, &view, rows, shape)?,
            None => self.weight(path, &view, shape, place)?,
        };
        if weight.in_place() {
            self.mapped_bytes += weight.bytes();
        }
        Ok(Arc::new(Param::new(path, weight)))
    }

    fn missing(&self, path: &str, tensor: &str) -> LoadError {
        let near = nearest(tensor, self.checkpoint.names());
        let near = if near.is_empty() { String::new() } else { format!("; did you mean {}?", near.join(", ")) };
        LoadError::Weights(format!("no tensor {tensor} (for {path}) in {}{near}", self.checkpoint.path().display()))
    }

    fn weight(&mut self, path: &str, view: &TensorView, shape: &[usize], place: &Place) -> Result<Weight, LoadError> {
        let cut = Cut::new(shape, place, self.heads);
        let mut keep = self.options.dtype.is_none() && shape.len() > 1 && self.options.device.is_cpu();
        if let Some(quantizer) = &mut self.quantizer {
            let blocks = if let Dtype::Quant(kind) = view.dtype { Some(kind) } else { None };
            match quantizer.weight(path, shape, blocks, || {
                let rows = Rows::new(view, &cut, shape)?;
                Ok(move |range| Ok(rows.read(range)?))
            })? {
                Made::Weight(weight) => return Ok(weight),
                Made::AsItIs => keep = true,
                Made::AsItWas => {}
            }
        }
        let stored = match view.dtype {
            Dtype::F32 => Some(DType::F32),
            Dtype::BF16 => Some(DType::BF16),
            Dtype::F16 => Some(DType::F16),
            _ => None,
        };
        let wanted = match self.options.dtype {
            _ if shape.len() < 2 && self.options.device.is_cpu() => DType::F32,
            Some(dtype) => dtype,
            None => stored.unwrap_or(DType::F32),
        };
        if let Dtype::Quant(kind) = view.dtype {
            return self.quantised(view, kind, shape, &cut, keep);
        }
        let run = cut.run().and_then(|run| view.part(run, shape));
        // A vector used in place would keep a whole file in memory of which nothing else is used.
        let in_place = shape.len() > 1 || self.options.dtype.is_none() && self.quantizer.is_none();
        if let Some(run) = run.as_ref().filter(|_| in_place)
            && self.options.device.is_cpu()
            && stored == Some(wanted)
            && let Some(mapped) = Mapped::new(run.slice.clone(), wanted, shape.to_vec())
        {
            return Ok(Weight::Mapped(Arc::new(mapped)));
        }
        let (view, whole) = run.as_ref().map_or((view, false), |run| (run, true));
        let data = match (stored, view.as_bf16(), view.as_f16()) {
            (Some(DType::BF16), Some(values), _) if wanted == DType::BF16 && !whole => {
                cpu::tensor(cut.take(values, bf16::ZERO), shape)?
            }
            (Some(DType::F16), _, Some(values)) if wanted == DType::F16 && !whole => {
                cpu::tensor(cut.take(values, f16::ZERO), shape)?
            }
            _ => {
                let values = view.to_f32()?;
                let values = if whole { values } else { cut.take(&values, 0.) };
                cpu::tensor(values, shape)?.to_dtype(wanted)?
            }
        };
        Ok(Weight::Dense(data.to_device(&self.options.device)?))
    }

    /// Quantised blocks: to `keep` them is to use them as they are, in place where they lie as we hold them.
    fn quantised(
        &self,
        view: &TensorView,
        kind: Quant,
        shape: &[usize],
        cut: &Cut,
        keep: bool,
    ) -> Result<Weight, LoadError> {
        let wanted = match self.options.dtype {
            Some(dtype) if shape.len() > 1 => dtype,
            _ => DType::F32,
        };
        let run = cut.run().and_then(|run| view.part(run, shape));
        if let Some(run) = run.as_ref().filter(|_| keep)
            && let Some(mapped) = Quantised::mapped(run.slice.clone(), kind, shape.to_vec())
        {
            return Ok(Weight::Blocks(Arc::new(mapped)));
        }
        let blocks = match &run {
            Some(run) => Cow::Borrowed(run.bytes()),
            // Rows are whole blocks: another order of rows needs no other blocks.
            None => Cow::Owned(cut.rows(view.bytes(), cut.columns / kind.block() * kind.bytes())),
        };
        if keep && let Some(owned) = Quantised::owned(blocks.to_vec(), kind, shape.to_vec()) {
            return Ok(Weight::Blocks(Arc::new(owned)));
        }
        let mut values = vec![0f32; shape.iter().product()];
        kind.dequantize_rows(&blocks, &mut values);
        Ok(Weight::Dense(cpu::tensor(values, shape)?.to_dtype(wanted)?.to_device(&self.options.device)?))
    }

    /// Head by head the columns of one tensor, then the rows of another; see [`Place::folded`].
    fn folded(&mut self, path: &str, columns: &TensorView, rows: &str, shape: &[usize]) -> Result<Weight, LoadError> {
        if !self.checkpoint.contains(rows) {
            return Err(self.missing(path, rows));
        }
        let rows = self.checkpoint.get(rows)?;
        let sizes = match (columns.shape.as_slice(), rows.shape.as_slice()) {
            (&[heads, width, first], &[heads_too, second, width_too])
                if heads == heads_too && width == width_too && shape == [heads * (first + second), width] =>
            {
                Some((heads, width, first, second))
            }
            _ => None,
        };
        let Some((heads, width, first, second)) = sizes else {
            return Err(LoadError::Weights(format!(
                "tensors {} and {}: config.json asks for {shape:?} of both, the file holds {:?} and {:?}",
                columns.name, rows.name, columns.shape, rows.shape
            )));
        };
        self.used.insert(rows.name.clone());
        let (columns, rows) = (columns.to_f32()?, rows.to_f32()?);
        let mut values = Vec::with_capacity(rows.len() + columns.len());
        for head in 0..heads {
            let columns = &columns[head * width * first..][..width * first];
            values.extend((0..first * width).map(|at| columns[at % width * first + at / width]));
            values.extend_from_slice(&rows[head * second * width..][..second * width]);
        }
        if let Some(quantizer) = &mut self.quantizer
            && let Made::Weight(weight) = quantizer.weight(path, shape, None, || {
                let values = &values;
                Ok(move |rows: Range<usize>| Ok(values[rows.start * width..rows.end * width].to_vec()))
            })?
        {
            return Ok(weight);
        }
        let wanted = self.options.dtype.unwrap_or(DType::F32);
        Ok(Weight::Dense(cpu::tensor(values, shape)?.to_dtype(wanted)?.to_device(&self.options.device)?))
    }

    fn finish(self, report: &mut LoadReport) {
        report.warnings.extend(self.quantizer.as_ref().and_then(Quantizer::sentence));
        report.unused = self.naming.unused(&self.used, &self.places);
        if !self.drawn.is_empty() {
            report.warnings.push(format!(
                "{} weights of the new head are not in the checkpoint and begin at random: {}",
                self.drawn.len(),
                self.drawn.join(", ")
            ));
        }
        if !report.unused.is_empty() {
            let shown: Vec<&str> = report.unused.iter().take(5).map(String::as_str).collect();
            let more = report.unused.len().saturating_sub(shown.len());
            let more = if more > 0 { format!(" and {more} more") } else { String::new() };
            report.warnings.push(format!(
                "{} tensors are not used by this model: {}{more}",
                report.unused.len(),
                shown.join(", ")
            ));
        }
        report.places = self.places;
        report.mapped_bytes = self.mapped_bytes;
    }
}

impl Source for FromCheckpoint<'_> {
    fn param(&mut self, path: &str, shape: &[usize], init: Init) -> candle_core::Result<Arc<Param>> {
        if let Some(param) = self.params.get(path) {
            return Ok(param.clone());
        }
        let place = self.naming.place(path);
        let missing = |place: &Place| !self.checkpoint.contains(&place.tensor);
        if init == Init::Fixed && place.as_ref().is_some_and(missing) {
            // Nobody trains a buffer: one that is all 0 need not be stored.
            return Fresh::new(0, self.options).param(path, shape, init);
        }
        if !path.starts_with("encoder.")
            && !path.starts_with("decoder.")
            && !path.starts_with("tokens.")
            && place.as_ref().is_some_and(missing)
            && let Some(fresh) = &mut self.fresh
        {
            self.drawn.push(path.to_string());
            return fresh.param(path, shape, init);
        }
        let read = match place {
            Some(place) => self.read(path, shape, &place),
            None => {
                Err(LoadError::Weights(format!("{}: no name for {path} in the family's table", self.family.model_type)))
            }
        };
        match read {
            Ok(param) => {
                self.params.insert(path.to_string(), param.clone());
                Ok(param)
            }
            Err(error) => {
                let text = error.to_string();
                self.failure = Some(error);
                candle_core::bail!("{text}")
            }
        }
    }
}

/// Reads only the configuration of a folder, a `config.json` file or a `.gguf` file.
pub fn read_config(path: &Path) -> Result<(Map<String, Value>, PathBuf), ConfigError> {
    let file = if path.is_dir() { path.join("config.json") } else { path.to_path_buf() };
    Ok((config::read(&file)?, file))
}

/// The file that holds a model's configuration.
fn config_file(path: &Path) -> PathBuf {
    if path.is_file() { path.to_path_buf() } else { path.join("config.json") }
}
