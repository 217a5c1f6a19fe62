//! Which matrices are put into fewer bits when a model is loaded or written, and into which, decided by a parameter's path:
//! llama.cpp's mixtures of kinds; int8 and NF4, which are made on loading alone.

mod mix;

use std::collections::BTreeMap;
use std::fmt;
use std::ops::Range;
use std::str::FromStr;
use std::sync::Arc;

use phyla_kernels::quant::{NF4, Nf4, Nf4Writer, Quant};
use phyla_nn::SublayerSpec;
use phyla_ops::{INT8, Quantised, Weight, cpu};

pub use mix::Mix;

use crate::checkpoint::nearest;
use crate::family::Entry;
use crate::names::place;
use crate::{Arch, LoadError, LoadOptions};

/// What becomes of the matrices of a model.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Quantize {
    /// Blocks of few bits, as GGUF files hold them.
    Gguf(Mix),
    /// NF4 with doubly quantised scales, as QLoRA and bitsandbytes have it; in no file. The linear maps of the layers alone,
    /// as there.
    Nf4,
    /// Bytes with a scale for each row, products of which take activations in bytes, too. The linear maps of the layers
    /// alone: tables are looked up rather than multiplied, and heads answer better in their own type.
    Int8,
}

impl Quantize {
    /// All of them, as they are spelled.
    pub fn names() -> Vec<&'static str> {
        [INT8, NF4].into_iter().chain(Mix::ALL.into_iter().map(Mix::name)).collect()
    }

    /// What rows must be a multiple of, or their matrix stays as it is.
    fn least(self) -> usize {
        match self {
            Quantize::Gguf(_) => 32,
            Quantize::Nf4 => Nf4::BLOCK,
            Quantize::Int8 => 1,
        }
    }
}

impl fmt::Display for Quantize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Quantize::Gguf(mix) => f.write_str(mix.name()),
            Quantize::Nf4 => f.write_str(NF4),
            Quantize::Int8 => f.write_str(INT8),
        }
    }
}

impl FromStr for Quantize {
    type Err = String;

    /// By name, in upper or lower case.
    fn from_str(name: &str) -> Result<Self, String> {
        if name.eq_ignore_ascii_case(INT8) {
            return Ok(Self::Int8);
        }
        if name.eq_ignore_ascii_case(NF4) {
            return Ok(Self::Nf4);
        }
        if let Some(mix) = Mix::from_name(name) {
            return Ok(Self::Gguf(mix));
        }
        let known = Self::names();
        let near = nearest(&name.to_lowercase(), known.iter().copied());
        let near = near.first().map(|name| format!("; did you mean {name}?")).unwrap_or_default();
        Err(format!("there is no such quantisation; known are {}{near}", known.join(", ")))
    }
}

/// What the choice of a matrix's kind depends on besides its path.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Facts {
    /// Of the tower with most of them.
    pub layers: usize,
    /// Heads of queries for each of keys.
    pub group: usize,
    /// Of a mixture; 0 where there is none.
    pub experts: usize,
    /// Whether the token table is the head, too, or there is no head.
    pub tied: bool,
    /// Whether GGUF files hold queries, keys and values as one.
    pub fused: bool,
}

impl Facts {
    pub fn of(arch: &Arch, family: &Entry) -> Self {
        let layers = arch.towers().iter().map(|(_, tower)| tower.layers.len()).max().unwrap_or(0);
        let mut facts = Facts { layers, group: 1, ..Facts::default() };
        facts.tied = arch.tied() || arch.lm_head().is_none();
        for sublayer in arch.main().layers.iter().flat_map(|layer| &layer.sublayers) {
            match sublayer {
                SublayerSpec::Attention(attention) => facts.group = attention.heads / attention.kv_heads.max(1),
                SublayerSpec::Moe(moe) => facts.experts = moe.experts,
                _ => {}
            }
        }
        let fused = |path| place(family.gguf.map_or(&[], |table| table.names), path, |_| false);
        facts.fused = fused("decoder.layers.0.attn.v.weight").is_some_and(|place| place.part.1 > 1);
        facts
    }
}

/// What a matrix is in its model; tables of positions, routers and small heads are none of these.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Role {
    /// The token table.
    Tokens,
    /// The language-model head.
    Head,
    /// The values of attention, or what latent attention makes keys and values of, in this layer.
    Values(usize),
    /// The queries of attention, in this layer.
    Queries(usize),
    /// The keys of attention, in this layer.
    Keys(usize),
    /// What attention gives.
    Output,
    /// The last map of a feed-forward block or an expert, in this layer.
    Down(usize),
    /// Any other linear map.
    Other,
}

impl Role {
    /// Of the parameter at `path`; `None` for what stays as it is.
    pub fn of(path: &str) -> Option<Role> {
        let module = path.strip_suffix(".weight")?;
        let (before, last) = module.rsplit_once('.').unwrap_or(("", module));
        let Some((_, inside)) = before.split_once(".layers.") else {
            return match last {
                "tokens" => Some(Role::Tokens),
                "head" => Some(Role::Head),
                // The pooler, and the map before a head that writes.
                "dense" => Some(Role::Other),
                _ => None,
            };
        };
        let layer = inside.split('.').next()?.parse().ok()?;
        match last {
            "v" | "kv_up" => Some(Role::Values(layer)),
            "q" => Some(Role::Queries(layer)),
            "k" => Some(Role::Keys(layer)),
            "o" => Some(Role::Output),
            "down" => Some(Role::Down(layer)),
            "up" | "gate" | "q_up" | "q_down" | "kv_down" | "pos_q" | "pos_k" => Some(Role::Other),
            _ => None,
        }
    }
}

/// Whether the parameter at `path` is a linear map of a layer.
fn of_layer(path: &str, shape: &[usize]) -> bool {
    shape.len() == 2 && path.contains(".layers.") && Role::of(path).is_some()
}

/// Whether it is one that [`Quantize::Int8`] puts into bytes: not that of latent keys and values, which is folded into
/// attention.
fn int8(path: &str, shape: &[usize]) -> bool {
    of_layer(path, shape) && !path.ends_with(".kv_up.weight")
}

/// The kind that holds rows of `columns` numbers in place of `kind`, as llama.cpp chooses it; `None` if no block fits.
pub(crate) fn fitting(kind: Quant, columns: usize) -> Option<Quant> {
    if columns.is_multiple_of(kind.block()) {
        return Some(kind);
    }
    let short = match kind {
        Quant::Q2_K | Quant::Q3_K => Quant::Q4_0,
        Quant::IQ4_XS => Quant::IQ4_NL,
        Quant::Q4_K => Quant::Q5_0,
        Quant::Q5_K => Quant::Q5_1,
        Quant::Q6_K => Quant::Q8_0,
        short => short,
    };
    columns.is_multiple_of(short.block()).then_some(short)
}

/// What a model's matrices became.
#[derive(Clone, Debug, Default)]
pub(crate) struct Tally {
    matrices: usize,
    /// How many are in another kind than was meant for them, by that other kind.
    short: BTreeMap<&'static str, usize>,
    /// How many have rows that no block divides.
    kept: usize,
    /// How many were in other blocks before.
    again: usize,
}

impl Tally {
    /// The kind of a matrix for which `kind` is meant, counted.
    pub fn choose(&mut self, kind: Quant, columns: usize) -> Option<Quant> {
        self.matrices += 1;
        let chosen = fitting(kind, columns);
        match chosen {
            Some(chosen) if chosen != kind => *self.short.entry(chosen.name()).or_default() += 1,
            Some(_) => {}
            None => self.kept += 1,
        }
        chosen
    }

    /// A matrix becomes bytes, from other blocks or not.
    pub fn counted(&mut self, blocks: bool) {
        self.matrices += 1;
        self.again += usize::from(blocks);
    }

    /// A matrix has rows that no block divides.
    pub fn kept(&mut self) {
        self.matrices += 1;
        self.kept += 1;
    }

    /// A matrix was in other blocks before.
    pub fn again(&mut self) {
        self.again += 1;
    }

    /// What a user should know; `kept` says what became of rows that no block divides.
    pub fn sentence(&self, how: &Quantize, kept: &str) -> Option<String> {
        let mut odd = vec![];
        if !self.short.is_empty() {
            let kinds: Vec<String> = self.short.iter().map(|(kind, count)| format!("{count} in {kind}")).collect();
            odd.push(format!(
                "{} have rows that are no multiple of 256 and are in blocks of 32: {}",
                self.short.values().sum::<usize>(),
                kinds.join(", ")
            ));
        }
        if self.kept > 0 {
            odd.push(format!("{} have rows that are no multiple of {} and {kept}", self.kept, how.least()));
        }
        if self.again > 0 {
            odd.push(format!("{} were in other blocks before, and what they lost then stays lost", self.again));
        }
        (!odd.is_empty()).then(|| format!("{how}: of {} matrices {}", self.matrices, odd.join("; ")))
    }
}

/// Puts the matrices of a model into fewer bits.
#[derive(Clone, Debug)]
pub(crate) struct Quantizer {
    how: Quantize,
    facts: Facts,
    tally: Tally,
}

impl Quantizer {
    /// What `options` ask for, of a model of `arch`.
    ///
    /// # Errors
    /// Another device than the CPU: there alone are there products over blocks.
    pub fn asked(options: &LoadOptions, arch: &Arch, family: &Entry) -> Result<Option<Self>, LoadError> {
        let Some(how) = options.quantize else { return Ok(None) };
        if !options.device.is_cpu() {
            return Err(LoadError::Weights(format!(
                "{how}: quantised weights are multiplied on the CPU alone, and the device is {:?}: take the CPU, or leave \
                 the weights as they are",
                options.device.location()
            )));
        }
        Ok(Some(Self { how, facts: Facts::of(arch, family), tally: Tally::default() }))
    }

    /// The kind of blocks for the parameter at `path`, counted; `None` if it stays as it is.
    fn blocks(&mut self, path: &str, shape: &[usize]) -> Option<Quant> {
        let Quantize::Gguf(mix) = self.how else { return None };
        let (&[_, columns], Some(role)) = (shape, Role::of(path)) else { return None };
        self.tally.choose(mix.kind(role, &self.facts), columns)
    }

    /// Bytes of the matrix at `path`; `None` if it stays as it is.
    pub fn bytes(&self, path: &str, shape: &[usize]) -> Option<usize> {
        if self.how == Quantize::Int8 && int8(path, shape) {
            return phyla_ops::int8_room(shape[0], shape[1]);
        }
        if self.how == Quantize::Nf4 && of_layer(path, shape) {
            let fits = shape[1].is_multiple_of(Nf4::BLOCK);
            return fits.then(|| shape[0].checked_mul(shape[1]).and_then(Nf4::room)).flatten();
        }
        let kind = self.clone().blocks(path, shape)?;
        shape
            .iter()
            .try_fold(1usize, |all, &n| all.checked_mul(n))?
            .checked_div(kind.block())?
            .checked_mul(kind.bytes())
    }

    /// The weight at `path`, of shape `shape`, from its rows: `open` gives what reads them, a few at a time and in order.
    /// `stored` are the blocks that it is in already: the same kind is kept.
    ///
    /// # Errors
    /// Those of `open` and of reading, and numbers that are not finite.
    pub fn weight<R: FnMut(Range<usize>) -> Result<Vec<f32>, LoadError>>(
        &mut self,
        path: &str,
        shape: &[usize],
        stored: Option<Quant>,
        open: impl FnOnce() -> Result<R, LoadError>,
    ) -> Result<Made, LoadError> {
        if self.how == Quantize::Int8 && int8(path, shape) {
            self.tally.counted(stored.is_some());
            let values = open()?(0..shape[0])?;
            finite(path, &values, 0, shape[1].max(1))?;
            let dense = Weight::Dense(cpu::tensor(values, shape)?);
            return match dense.to_int8() {
                Ok(made) => Ok(Made::Weight(made)),
                Err(error) => Err(LoadError::Weights(format!("{path}: {error}"))),
            };
        }
        if self.how == Quantize::Nf4 && of_layer(path, shape) {
            return self.nf4(path, shape, stored.is_some(), open);
        }
        let Some(kind) = self.blocks(path, shape) else { return Ok(Made::AsItWas) };
        if stored == Some(kind) {
            return Ok(Made::AsItIs);
        }
        if stored.is_some() {
            self.tally.again();
        }
        let bytes = shape.iter().product::<usize>() / kind.block() * kind.bytes();
        let mut blocks = Vec::new();
        if blocks.try_reserve_exact(bytes).is_err() {
            return Err(LoadError::Weights(format!("{path}: no memory for {bytes} bytes of blocks")));
        }
        in_blocks(path, shape, kind, PIECE, open()?, |piece| {
            blocks.extend_from_slice(piece);
            Ok(())
        })?;
        match Quantised::owned(blocks, kind, shape.to_vec()) {
            Some(made) => Ok(Made::Weight(Weight::Blocks(Arc::new(made)))),
            None => Err(LoadError::Weights(format!("{path}: {shape:?} is not whole blocks of {}", kind.name()))),
        }
    }

    /// [`Quantizer::weight`] in NF4.
    fn nf4<R: FnMut(Range<usize>) -> Result<Vec<f32>, LoadError>>(
        &mut self,
        path: &str,
        shape: &[usize],
        blocks: bool,
        open: impl FnOnce() -> Result<R, LoadError>,
    ) -> Result<Made, LoadError> {
        if !shape[1].is_multiple_of(Nf4::BLOCK) {
            self.tally.kept();
            return Ok(Made::AsItWas);
        }
        self.tally.counted(blocks);
        let Some(mut writer) = Nf4Writer::with_room(shape.iter().product()) else {
            return Err(LoadError::Weights(format!("{path}: no memory for {shape:?} in {NF4}")));
        };
        in_pieces(path, shape, PIECE, open()?, |values| {
            writer.push(values);
            Ok(())
        })?;
        match Quantised::nf4(writer.finish(), shape.to_vec()) {
            Some(made) => Ok(Made::Weight(Weight::Blocks(Arc::new(made)))),
            None => Err(LoadError::Weights(format!("{path}: {shape:?} is not whole blocks of {NF4}"))),
        }
    }

    /// What a user should know.
    pub fn sentence(&self) -> Option<String> {
        self.tally.sentence(&self.how, "stay as they are")
    }
}

/// Bytes that a parameter of a model of `arch` takes when it is quantised so; `None` for one that stays as it is.
pub fn quantised_bytes(how: Quantize, arch: &Arch, family: &Entry, path: &str, shape: &[usize]) -> Option<usize> {
    Quantizer { how, facts: Facts::of(arch, family), tally: Tally::default() }.bytes(path, shape)
}

/// What [`Quantizer::weight`] makes of a weight.
pub(crate) enum Made {
    /// Nothing: it is read as if nothing were to be quantised.
    AsItWas,
    /// Nothing: its blocks are of the kind that is wanted.
    AsItIs,
    /// A weight in fewer bits.
    Weight(Weight),
}

/// Numbers that are turned into blocks at a time.
const PIECE: usize = 1 << 20;

/// The blocks of a matrix, a few rows at a time, about `piece` numbers each: from `rows` to `write`.
///
/// # Errors
/// Those of `rows` and `write`; a number that is not finite, since no block can hold it.
pub(crate) fn in_blocks(
    name: &str,
    shape: &[usize],
    kind: Quant,
    piece: usize,
    rows: impl FnMut(Range<usize>) -> Result<Vec<f32>, LoadError>,
    mut write: impl FnMut(&[u8]) -> Result<(), LoadError>,
) -> Result<(), LoadError> {
    let mut blocks = vec![];
    in_pieces(name, shape, piece, rows, |values| {
        blocks.resize(values.len() / kind.block() * kind.bytes(), 0);
        kind.quantize_rows(values, &mut blocks);
        write(&blocks)
    })
}

/// The rows of a matrix, about `piece` numbers at a time, from `rows` to `take`.
fn in_pieces(
    name: &str,
    shape: &[usize],
    piece: usize,
    mut rows: impl FnMut(Range<usize>) -> Result<Vec<f32>, LoadError>,
    mut take: impl FnMut(&[f32]) -> Result<(), LoadError>,
) -> Result<(), LoadError> {
    let (count, columns) = (shape.first().copied().unwrap_or(0), shape.iter().skip(1).product::<usize>().max(1));
    let step = (piece / columns).max(1);
    for first in (0..count).step_by(step) {
        let values = rows(first..count.min(first + step))?;
        finite(name, &values, first, columns)?;
        take(&values)?;
    }
    Ok(())
}

/// An error that names the first number that is not finite, among rows from `first` on.
pub(crate) fn finite(name: &str, values: &[f32], first: usize, columns: usize) -> Result<(), LoadError> {
    match values.iter().position(|x| !x.is_finite()) {
        None => Ok(()),
        Some(at) => Err(LoadError::Weights(format!(
            "{name}: row {}, column {} is {}, which cannot be quantised: expected finite numbers; is the checkpoint of a \
             run that failed?",
            first + at / columns,
            at % columns,
            values[at]
        ))),
    }
}

#[cfg(test)]
mod tests;
