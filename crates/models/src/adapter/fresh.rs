//! New adapters: which maps get one, and how its parameters begin.

use std::collections::HashMap;
use std::sync::Arc;

use candle_core::{Device, Result};
use phyla_kernels::rng::Rng;
use phyla_nn::Act;
use phyla_nn::adapter::{Bottleneck, Change, LowRank, Magnitude, Rescale, Shared};
use phyla_ops::{Data, Param, Weight};

use super::modules::{Site, sites};
use super::spec::{BottleneckSpec, Ia3Spec, LoraSpec, VeraSpec};
use super::start::{self, LoraInit, Start};
use super::{AdaLoraSpec, Adapter, AdapterSpec, Kept, Part, prompt};
use crate::{LoadError, Model};

/// Draws the parameters of one adapter; those of a module that is several maps of ours are shared as peft has them.
struct Maker<'a> {
    params: HashMap<&'a str, &'a Arc<Param>>,
    rng: Rng,
    shared: HashMap<String, Arc<Param>>,
    /// Where the matrices of a module begin, if they are taken from its weight.
    starts: HashMap<String, Start>,
    /// The largest input and output, which VeRA's shared matrices are made for.
    largest: [usize; 2],
}

/// An adapter that leaves the model as it is, until it is trained.
pub(super) fn fresh(model: &Model, spec: &AdapterSpec, seed: u64) -> std::result::Result<Adapter, LoadError> {
    if spec.is_prompt() {
        return prompt::fresh(model, spec, Rng::new(seed).split("adapter"));
    }
    let paths: Vec<&str> = model.slots().iter().map(|slot| slot.path()).collect();
    for pattern in spec.targets().into_iter().chain(spec.exclude()) {
        pattern.require_match(paths.iter().copied()).map_err(|error| LoadError::Adapter(error.to_string()))?;
    }
    let mut chosen = vec![];
    for (site, path) in sites(model).into_iter().zip(paths) {
        let wanted = spec.targets().iter().any(|pattern| pattern.covers(path));
        if wanted && !spec.exclude().iter().any(|pattern| pattern.covers(path)) {
            chosen.push(site?);
        }
    }
    let largest = chosen.iter().fold([0; 2], |[out, input], site| {
        let [rows, columns] = site.slot.sizes();
        [out.max(rows * site.place.part.1), input.max(columns)]
    });
    let params: HashMap<&str, &Arc<Param>> = model.params().iter().map(|param| (param.path(), param)).collect();
    let rng = Rng::new(seed).split("adapter");
    let starts = match spec {
        AdapterSpec::Lora(lora) if lora.init.moves() => start::starts(lora, &chosen, &params, &rng)?,
        _ => HashMap::new(),
    };
    let mut maker = Maker { params, rng, shared: HashMap::new(), starts, largest };
    let mut parts = vec![];
    for site in chosen {
        let change = match spec {
            AdapterSpec::Lora(lora) => maker.lora(lora, &site)?,
            AdapterSpec::AdaLora(adalora) => maker.adalora(adalora, &site)?,
            AdapterSpec::Vera(vera) => maker.vera(vera, &site)?,
            AdapterSpec::Ia3(ia3) => maker.ia3(ia3, &site)?,
            AdapterSpec::Bottleneck(bottleneck) => maker.bottleneck(bottleneck, &site)?,
            // Made above.
            AdapterSpec::Prompt(_) | AdapterSpec::PTuning(_) | AdapterSpec::Prefix(_) => continue,
        };
        parts.push(Part { site, change: Arc::new(change) });
    }
    Ok(Adapter { spec: spec.clone(), parts, prompt: None, saved: saved(model, spec), kept: Kept::new() })
}

/// Parameters of the model that are to be trained whole.
pub(super) fn saved(model: &Model, spec: &AdapterSpec) -> Vec<Arc<Param>> {
    let wanted = |param: &&Arc<Param>| spec.save().iter().any(|pattern| pattern.covers(param.path()));
    model.params().iter().filter(wanted).cloned().collect()
}

impl Maker<'_> {
    fn lora(&mut self, lora: &LoraSpec, site: &Site) -> Result<Change> {
        let ([output, input], path) = (site.slot.sizes(), site.slot.path());
        let (rank, scale) = lora.at(path);
        let start = self.starts.get_mut(&site.module).map(|start| start.take(path));
        let (start_a, start_b) = start.unzip();
        let begin = |rng: &mut Rng, values: &mut [f32]| match (&start_a, lora.init) {
            (Some(a), _) => values.copy_from_slice(a),
            (None, LoraInit::Gaussian) => rng.fill_normal(values, 0., 1. / rank as f32),
            _ => {
                let bound = 1. / (input as f32).sqrt();
                rng.fill_uniform(values, -bound, bound);
            }
        };
        let a = self.shared(&site.module, "lora_A", path, [rank, input], begin)?;
        let b = start_b.clone().unwrap_or_else(|| vec![0.; output * rank]);
        let b = param(format!("{path}.lora_B"), b, &[output, rank])?;
        let origin = match &start_b {
            Some(start) => Some([
                self.shared(&site.module, start::A, path, [rank, input], begin)?,
                param(format!("{path}.{}", start::B), start.clone(), &[output, rank])?,
            ]),
            None => None,
        };
        let magnitude = match (lora.dora, self.weight(path)) {
            (true, Some(weight)) => {
                let lengths = Magnitude::of(weight)?;
                Some(Magnitude::new(param(format!("{path}.lora_magnitude_vector"), lengths, &[output])?))
            }
            _ => None,
        };
        let dropout = lora.dropout as f32;
        Ok(Change::LowRank(LowRank { a, b, scale, dropout, importance: None, magnitude, origin }))
    }

    fn adalora(&mut self, spec: &AdaLoraSpec, site: &Site) -> Result<Change> {
        let ([output, input], path, rank) = (site.slot.sizes(), site.slot.path(), spec.rank);
        let near_nothing = |rng: &mut Rng, values: &mut [f32]| rng.fill_normal(values, 0., 0.02);
        let a = self.shared(&site.module, "lora_A", path, [rank, input], near_nothing)?;
        let values = self.shared(&site.module, "lora_E", path, [rank, 1], |_, values| values.fill(0.))?;
        let mut b = vec![0.; output * rank];
        near_nothing(&mut self.rng.split(format!("{path}.lora_B").as_str()), &mut b);
        let b = param(format!("{path}.lora_B"), b, &[output, rank])?;
        let (scale, dropout) = (spec.scale(), spec.dropout as f32);
        Ok(Change::LowRank(LowRank { a, b, scale, dropout, importance: Some(values), magnitude: None, origin: None }))
    }

    fn vera(&mut self, vera: &VeraSpec, site: &Site) -> Result<Change> {
        let ([output, _], path, rank) = (site.slot.sizes(), site.slot.path(), vera.rank);
        let [largest_output, largest_input] = self.largest;
        // As peft draws them: He's bound for the number of columns.
        let draw = |columns: usize| {
            let bound = (6. / columns as f32).sqrt();
            move |rng: &mut Rng, values: &mut [f32]| rng.fill_uniform(values, -bound, bound)
        };
        let all_a = self.shared("", "vera_A", "", [rank, largest_input], draw(largest_input))?;
        let all_b = self.shared("", "vera_B", "", [largest_output, rank], draw(rank))?;
        let (a, b) = slices(&all_a, &all_b, site)?;
        let inner = self.shared(&site.module, "vera_lambda_d", path, [rank], |_, values| {
            values.fill(vera.d_initial as f32);
        })?;
        let outer = param(format!("{path}.vera_lambda_b"), vec![0.; output], &[output])?;
        Ok(Change::Shared(Shared { a, b, inner, outer, dropout: vera.dropout as f32 }))
    }

    fn ia3(&mut self, ia3: &Ia3Spec, site: &Site) -> Result<Change> {
        let ([output, input], path) = (site.slot.sizes(), site.slot.path());
        let of_input = ia3.feedforward.iter().any(|pattern| pattern.covers(path));
        let factors = match of_input {
            true => self.shared(&site.module, "ia3_l", path, [1, input], |_, values| values.fill(1.))?,
            false => param(format!("{path}.ia3_l"), vec![1.; output], &[output, 1])?,
        };
        Ok(Change::Rescale(Rescale { factors, input: of_input }))
    }

    fn bottleneck(&mut self, bottleneck: &BottleneckSpec, site: &Site) -> Result<Change> {
        let ([output, _], path, inner) = (site.slot.sizes(), site.slot.path(), bottleneck.inner);
        let mut down = vec![0.; inner * output];
        // Near nothing at first (Houlsby et al., section 3.6).
        self.rng.split(path).fill_normal(&mut down, 0., 1e-2);
        let of = |name: &str, values: Vec<f32>, shape: &[usize]| param(format!("{path}.adapter_{name}"), values, shape);
        let down = [of("down", down, &[inner, output])?, of("down_bias", vec![0.; inner], &[inner])?];
        let up = [of("up", vec![0.; output * inner], &[output, inner])?, of("up_bias", vec![0.; output], &[output])?];
        Ok(Change::Bottleneck(Bottleneck { down, up, act: Act::Relu }))
    }

    /// A matrix that all parts of one module have in common; drawn once.
    fn shared<const N: usize>(
        &mut self,
        module: &str,
        name: &str,
        path: &str,
        shape: [usize; N],
        draw: impl FnOnce(&mut Rng, &mut [f32]),
    ) -> Result<Arc<Param>> {
        let key = format!("{module}.{name}");
        if let Some(param) = self.shared.get(&key) {
            if param.dims() != shape {
                candle_core::bail!(
                    "{path}: {module} is one module in transformers, whose parts share {name}: expected {:?} as its other \
                     part has, found {shape:?}",
                    param.dims()
                );
            }
            return Ok(param.clone());
        }
        let mut values = vec![0.; shape.iter().product()];
        draw(&mut self.rng.split(key.as_str()), &mut values);
        let full = if path.is_empty() { name.to_string() } else { format!("{path}.{name}") };
        let made = param(full, values, &shape)?;
        self.shared.insert(key, made.clone());
        Ok(made)
    }

    fn weight(&self, path: &str) -> Option<&Arc<Param>> {
        self.params.get(format!("{path}.weight").as_str()).copied()
    }
}

/// The parts of VeRA's shared matrices that a map takes.
pub(super) fn slices(a: &Param, b: &Param, site: &Site) -> Result<(Arc<Param>, Arc<Param>)> {
    let ([output, input], path) = (site.slot.sizes(), site.slot.path());
    let first = site.place.part.0 * output;
    let columns = a.weight().to_f32()?.narrow(1, 0, input)?.contiguous()?;
    let rows = b.weight().to_f32()?.narrow(0, first, output)?.contiguous()?;
    let fixed = |name: &str, data| Arc::new(Param::new(format!("{path}.{name}"), Weight::Dense(data)));
    Ok((fixed("vera_A", columns), fixed("vera_B", rows)))
}

/// A parameter of these numbers.
pub(super) fn param(path: String, values: Vec<f32>, shape: &[usize]) -> Result<Arc<Param>> {
    Ok(Arc::new(Param::new(path, Weight::Dense(Data::from_vec(values, shape, &Device::Cpu)?))))
}
