//! Reads peft's folders: tensors find their linear maps by the names that transformers gives these.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::Path;
use std::sync::Arc;

use phyla_nn::Act;
use phyla_nn::adapter::{Bottleneck, Change, LowRank, Magnitude, Rescale, Shared};
use phyla_nn::pattern::Pattern;
use phyla_ops::{Param, Weight, cpu};

use super::fresh::{param, slices};
use super::modules::{Site, paths, sites, tensor_of};
use super::peft::{BOTTLENECK, PREFIX, PROMPTS, PeftConfig, WEIGHTS};
use super::spec::{BottleneckSpec, Ia3Spec, LoraSpec, VeraSpec, scale};
use super::{AdaLoraSpec, Adapter, AdapterSpec, Part, prompt};
use crate::checkpoint::{Checkpoint, nearest};
use crate::cut::Cut;
use crate::{LoadError, Model};

/// One folder, while it is read.
struct Reader<'a> {
    model: &'a Model,
    config: PeftConfig,
    checkpoint: Checkpoint,
    used: BTreeSet<String>,
    /// Matrices that several maps share.
    shared: HashMap<String, Arc<Param>>,
}

type Read<T> = Result<T, LoadError>;

pub(super) fn load(model: &Model, folder: &Path) -> Read<Adapter> {
    let config = PeftConfig::read(folder)?;
    if PROMPTS.contains(&config.method.as_str()) {
        return prompt::load(model, folder, &config);
    }
    let checkpoint = Checkpoint::open(folder.join(WEIGHTS))?;
    let (used, shared) = (BTreeSet::new(), HashMap::new());
    let mut reader = Reader { model, config, checkpoint, used, shared };
    let mut parts = vec![];
    for site in sites(model).into_iter().flatten() {
        if let Some(change) = reader.change(&site)? {
            parts.push(Part { site, change: Arc::new(change) });
        }
    }
    let saved = reader.whole()?;
    reader.all_used(folder)?;
    if parts.is_empty() && saved.is_empty() {
        return Err(LoadError::Adapter(format!("{}: an adapter without tensors", folder.display())));
    }
    let (spec, kept) = (reader.spec(&parts, &saved), reader.config.kept()?);
    Ok(Adapter { spec, parts, prompt: None, saved, kept })
}

/// The parameters of a model that are a tensor of transformers each, by what a folder calls those.
pub(super) fn whole(model: &Model, named: impl Fn(&str) -> String) -> Vec<(String, Arc<Param>)> {
    let paths = paths(model);
    let name = |param: &Arc<Param>| Some((named(&tensor_of(model, &paths, param.path())?), param.clone()));
    model.params().iter().filter_map(name).collect()
}

/// Puts a folder's tensor into the model.
pub(super) fn put_whole(checkpoint: &Checkpoint, tensor: &str, param: &Param) -> Read<()> {
    let view = checkpoint.get(tensor)?;
    if view.shape != param.dims() {
        return Err(LoadError::Adapter(format!("{tensor}: expected {:?}, found {:?}", param.dims(), view.shape)));
    }
    let data = cpu::tensor(view.to_f32()?, param.dims())?.to_device(&param.weight().device())?;
    Ok(param.set_weight(Weight::Dense(data))?)
}

impl Reader<'_> {
    /// What the folder has for one linear map.
    fn change(&mut self, site: &Site) -> Read<Option<Change>> {
        match self.config.method.as_str() {
            "VERA" => self.vera(site),
            "IA3" => self.ia3(site),
            BOTTLENECK => self.bottleneck(site),
            _ => self.low_rank(site),
        }
    }

    fn low_rank(&mut self, site: &Site) -> Read<Option<Change>> {
        let (path, module) = (site.slot.path(), &site.module);
        let [output, input] = site.slot.sizes();
        // Of AdaLoRA the parameters stand bare in their modules.
        let names = |which: &str| [format!("{module}.{which}.weight"), format!("{module}.{which}")];
        let Some(a) = names("lora_A").into_iter().find(|name| self.has(name)) else { return Ok(None) };
        let Some(b) = names("lora_B").into_iter().find(|name| self.has(name)) else {
            return Err(LoadError::Adapter(format!("{PREFIX}{a} is there, and no lora_B beside it")));
        };
        let rank = self.shape(&a)?.first().copied().unwrap_or(0);
        let a = self.common(&a, "lora_A", path, &[rank, input])?;
        let b = self.part(&b, "lora_B", site, &[output, rank])?;
        let (config, adaptive) = (&self.config, self.config.method == "ADALORA");
        let alpha = match config.special("alpha_pattern", module)? {
            Some(alpha) => alpha,
            None => config.number("lora_alpha").unwrap_or(8.),
        };
        let mut factor = scale(alpha, rank, config.on("use_rslora"));
        let dropout = config.number("lora_dropout").unwrap_or(0.) as f32;
        let initial = config.number("init_r").unwrap_or(12.) as f32;
        let mut importance = None;
        if adaptive {
            importance = Some(self.common(&format!("{module}.lora_E"), "lora_E", path, &[rank, 1])?);
            // As peft divides: by the rank that training began with, of which the allocator may have left less.
            let ranknum = self.numbers(&format!("{module}.ranknum"), &[]).map_or(initial, |found| found[0]);
            factor = alpha as f32 / (ranknum + 1e-5);
        }
        let magnitude = match self.config.on("use_dora") {
            true => {
                let names = names("lora_magnitude_vector");
                let name = names.iter().find(|name| self.has(name)).unwrap_or(&names[1]);
                Some(Magnitude::new(self.part(name, "lora_magnitude_vector", site, &[output])?))
            }
            false => None,
        };
        Ok(Some(Change::LowRank(LowRank { a, b, scale: factor, dropout, importance, magnitude, origin: None })))
    }

    fn vera(&mut self, site: &Site) -> Read<Option<Change>> {
        let (path, module) = (site.slot.path(), &site.module);
        let outer = format!("{module}.vera_lambda_b");
        if !self.has(&outer) {
            return Ok(None);
        }
        let name = "base_model.vera_A";
        if !self.checkpoint.contains(name) {
            return Err(LoadError::Adapter(format!(
                "{WEIGHTS}: no {name}: this adapter was saved without its shared matrices (save_projection), which only \
                 PyTorch's own random generator can draw again; save it with save_projection=true"
            )));
        }
        let inner = format!("{module}.vera_lambda_d");
        let rank = self.shape(&inner)?.first().copied().unwrap_or(0);
        let (all_a, all_b) = (self.projection("vera_A")?, self.projection("vera_B")?);
        let [output, input] = site.slot.sizes();
        let fits = all_a.dims()[0] == rank && all_a.dims()[1] >= input && all_b.dims()[0] >= output * site.place.part.1;
        if !fits || all_b.dims()[1] != rank {
            return Err(LoadError::Adapter(format!(
                "{module}: the shared matrices are {:?} and {:?}, too small for rank {rank}, {input} inputs and {output} \
                 outputs",
                all_a.dims(),
                all_b.dims()
            )));
        }
        let (a, b) = slices(&all_a, &all_b, site)?;
        let inner = self.common(&inner, "vera_lambda_d", path, &[rank])?;
        let outer = self.part(&outer, "vera_lambda_b", site, &[output])?;
        let dropout = self.config.number("vera_dropout").unwrap_or(0.) as f32;
        Ok(Some(Change::Shared(Shared { a, b, inner, outer, dropout })))
    }

    /// One of VeRA's shared matrices, whole.
    fn projection(&mut self, name: &str) -> Read<Arc<Param>> {
        if let Some(param) = self.shared.get(name) {
            return Ok(param.clone());
        }
        let tensor = format!("base_model.{name}");
        self.used.insert(tensor.clone());
        let view = self.checkpoint.get(&tensor)?;
        if view.shape.len() != 2 {
            return Err(LoadError::Adapter(format!("{tensor}: expected a matrix, found {:?}", view.shape)));
        }
        let made = param(name.to_string(), view.to_f32()?, &view.shape)?;
        self.shared.insert(name.to_string(), made.clone());
        Ok(made)
    }

    fn ia3(&mut self, site: &Site) -> Read<Option<Change>> {
        let name = format!("{}.ia3_l", site.module);
        if !self.has(&name) {
            return Ok(None);
        }
        let ([output, input], path) = (site.slot.sizes(), site.slot.path());
        let of_input = self.shape(&name)?.first() == Some(&1) && input != 1;
        let factors = match of_input {
            true => self.common(&name, "ia3_l", path, &[1, input])?,
            false => self.part(&name, "ia3_l", site, &[output, 1])?,
        };
        Ok(Some(Change::Rescale(Rescale { factors, input: of_input })))
    }

    fn bottleneck(&mut self, site: &Site) -> Read<Option<Change>> {
        let name = |part: &str| format!("{}.adapter_{part}", site.module);
        if !self.has(&name("down.weight")) {
            return Ok(None);
        }
        let (output, path) = (site.slot.sizes()[0], site.slot.path());
        let inner = self.shape(&name("down.weight"))?.first().copied().unwrap_or(0);
        let down = [
            self.common(&name("down.weight"), "adapter_down", path, &[inner, output])?,
            self.common(&name("down.bias"), "adapter_down_bias", path, &[inner])?,
        ];
        let up = [
            self.common(&name("up.weight"), "adapter_up", path, &[output, inner])?,
            self.common(&name("up.bias"), "adapter_up_bias", path, &[output])?,
        ];
        Ok(Some(Change::Bottleneck(Bottleneck { down, up, act: Act::Relu })))
    }

    /// Parameters of the model that are in the folder whole: they are put into the model.
    fn whole(&mut self) -> Read<Vec<Arc<Param>>> {
        let mut found = vec![];
        for (tensor, param) in whole(self.model, |name| format!("{PREFIX}{name}")) {
            if self.checkpoint.contains(&tensor) {
                put_whole(&self.checkpoint, &tensor, &param)?;
                self.used.insert(tensor);
                found.push(param);
            }
        }
        Ok(found)
    }

    fn all_used(&self, folder: &Path) -> Read<()> {
        let left: Vec<&str> = self.checkpoint.names().filter(|name| !self.used.contains(*name)).collect();
        let Some(first) = left.first() else { return Ok(()) };
        let modules: BTreeMap<String, ()> =
            sites(self.model).into_iter().flatten().map(|site| (format!("{PREFIX}{}", site.module), ())).collect();
        let near = nearest(first, modules.keys().map(String::as_str));
        let near =
            if near.is_empty() { String::new() } else { format!("; linear maps of the model are {}", near.join(", ")) };
        Err(LoadError::Adapter(format!(
            "{}: nothing in this model takes {} of its {} tensors, such as {first}; is it another model's adapter?{near}",
            folder.display(),
            left.len(),
            self.checkpoint.names().len()
        )))
    }

    fn has(&self, name: &str) -> bool {
        self.checkpoint.contains(&format!("{PREFIX}{name}"))
    }

    fn shape(&self, name: &str) -> Read<Vec<usize>> {
        Ok(self.checkpoint.get(&format!("{PREFIX}{name}"))?.shape)
    }

    fn numbers(&mut self, name: &str, shape: &[usize]) -> Read<Vec<f32>> {
        let tensor = format!("{PREFIX}{name}");
        let view = self.checkpoint.get(&tensor)?;
        let count: usize = shape.iter().product();
        if view.shape.iter().product::<usize>() != count || !(view.shape == shape || shape.len() < 2) {
            return Err(LoadError::Adapter(format!("{tensor}: expected {shape:?}, found {:?}", view.shape)));
        }
        self.used.insert(tensor);
        Ok(view.to_f32()?)
    }

    /// A tensor that all parts of a module have in common.
    fn common(&mut self, name: &str, ours: &str, path: &str, shape: &[usize]) -> Read<Arc<Param>> {
        if let Some(param) = self.shared.get(name) {
            return Ok(param.clone());
        }
        let made = param(format!("{path}.{ours}"), self.numbers(name, shape)?, shape)?;
        self.shared.insert(name.to_string(), made.clone());
        Ok(made)
    }

    /// Our rows of a tensor; `shape` is of ours.
    fn part(&mut self, name: &str, ours: &str, site: &Site, shape: &[usize]) -> Read<Arc<Param>> {
        let mut whole = shape.to_vec();
        whole[0] *= site.place.part.1;
        let values = self.numbers(name, &whole)?;
        let rows = [shape[0], shape.iter().skip(1).product()];
        let cut = Cut::new(&rows, &site.place, self.model.arch.heads_apart());
        Ok(param(format!("{}.{ours}", site.slot.path()), cut.take(&values, 0.), shape)?)
    }

    /// How such an adapter would be made anew.
    fn spec(&self, parts: &[Part], saved: &[Arc<Param>]) -> AdapterSpec {
        let exact = |path: &str| Pattern::parse(path).ok();
        let targets = || parts.iter().filter_map(|part| exact(part.site.slot.path())).collect();
        let save = saved.iter().filter_map(|param| exact(param.path())).collect();
        let number = |key: &str, default: f64| self.config.number(key).unwrap_or(default);
        match self.config.method.as_str() {
            "VERA" => AdapterSpec::Vera(VeraSpec {
                rank: number("r", 256.) as usize,
                d_initial: number("d_initial", 0.1),
                dropout: number("vera_dropout", 0.),
                targets: targets(),
                exclude: vec![],
                save,
            }),
            "IA3" => {
                let of = |input: bool| {
                    let wanted = move |part: &&Part| matches!(&*part.change, Change::Rescale(r) if r.input == input);
                    parts.iter().filter(wanted).filter_map(|part| exact(part.site.slot.path())).collect()
                };
                AdapterSpec::Ia3(Ia3Spec { targets: of(false), feedforward: of(true), exclude: vec![], save })
            }
            BOTTLENECK => AdapterSpec::Bottleneck(BottleneckSpec {
                inner: number("inner", 64.) as usize,
                targets: targets(),
                save,
            }),
            "ADALORA" => AdapterSpec::AdaLora(AdaLoraSpec {
                rank: number("init_r", 12.) as usize,
                target_rank: number("target_r", 8.) as usize,
                alpha: number("lora_alpha", 8.),
                dropout: number("lora_dropout", 0.),
                targets: targets(),
                exclude: vec![],
                tinit: number("tinit", 0.) as u64,
                tfinal: number("tfinal", 0.) as u64,
                delta_t: number("deltaT", 1.) as u64,
                total_step: self.config.number("total_step").map(|steps| steps as u64),
                beta1: number("beta1", 0.85),
                beta2: number("beta2", 0.85),
                orth_reg_weight: number("orth_reg_weight", 0.5),
                save,
            }),
            _ => AdapterSpec::Lora(LoraSpec {
                rank: number("r", 8.) as usize,
                alpha: number("lora_alpha", 8.),
                dropout: number("lora_dropout", 0.),
                targets: targets(),
                rslora: self.config.on("use_rslora"),
                dora: self.config.on("use_dora"),
                save,
                ..LoraSpec::default()
            }),
        }
    }
}
