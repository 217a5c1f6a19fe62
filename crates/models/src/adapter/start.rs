//! How LoRA's matrices begin: drawn, or taken from the weights themselves (PiSSA, OLoRA), which then give up as much, or
//! from what their maps read ([`super::eva`]).

use std::collections::HashMap;
use std::sync::Arc;

use phyla_kernels::decompose::{leading, leading_near, orthonormal};
use phyla_kernels::rng::Rng;
use phyla_nn::adapter::{Change, LowRank};
use phyla_ops::Param;
use serde::{Deserialize, Serialize};

use super::Part;
use super::fresh::param;
use super::modules::Site;
use super::spec::LoraSpec;
use crate::LoadError;

/// What the parameters are called that keep where the matrices began.
pub(super) const A: &str = "lora_A_start";
pub(super) const B: &str = "lora_B_start";

/// How LoRA's matrices begin. The model begins as it was in any case.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum LoraInit {
    /// `a` uniform within `1 / √input`, as peft; `b` is 0.
    #[default]
    Default,
    /// `a` normal with standard deviation `1 / rank`; `b` is 0.
    Gaussian,
    /// The weight's leading singular directions (Meng et al. 2024, eq. 2 to 4), nearly, if a number of rounds is given
    /// (section 4, "fast SVD").
    Pissa(Option<usize>),
    /// The first columns of the weight made orthonormal, and what they have to do with the others (Büyükakyüz 2024).
    Olora,
    /// `a` are the directions in which a map's inputs vary most, with ranks where they vary (Paischer et al. 2024); `b` is 0.
    Eva,
}

impl LoraInit {
    /// Whether the matrices begin with a product that the weights give up.
    pub fn moves(self) -> bool {
        matches!(self, Self::Pissa(_) | Self::Olora)
    }
}

impl TryFrom<String> for LoraInit {
    type Error = String;

    fn try_from(name: String) -> Result<Self, String> {
        let rounds = name.strip_prefix("pissa_niter_").map(str::parse);
        Ok(match (name.as_str(), rounds) {
            ("default", _) => Self::Default,
            ("gaussian", _) => Self::Gaussian,
            ("pissa", _) => Self::Pissa(None),
            ("olora", _) => Self::Olora,
            ("eva", _) => Self::Eva,
            (_, Some(Ok(rounds))) => Self::Pissa(Some(rounds)),
            _ => return Err(format!("`{name}`: expected default, gaussian, pissa, pissa_niter_4, olora or eva")),
        })
    }
}

impl From<LoraInit> for String {
    fn from(init: LoraInit) -> Self {
        match init {
            LoraInit::Default => "default".into(),
            LoraInit::Gaussian => "gaussian".into(),
            LoraInit::Pissa(None) => "pissa".into(),
            LoraInit::Pissa(Some(rounds)) => format!("pissa_niter_{rounds}"),
            LoraInit::Olora => "olora".into(),
            LoraInit::Eva => "eva".into(),
        }
    }
}

/// Where the matrices of one module begin.
pub(super) struct Start {
    /// `[rank, input]`, of all its parts.
    a: Vec<f32>,
    /// `[output, rank]` of each part, by its path.
    b: HashMap<String, Vec<f32>>,
}

impl Start {
    /// Both matrices of the part at `path`.
    pub fn take(&mut self, path: &str) -> (Vec<f32>, Vec<f32>) {
        (self.a.clone(), self.b.remove(path).unwrap_or_default())
    }
}

/// The matrices of every module that is adapted, from its weight: parts of ours that are one module share `a`, so the
/// weight that counts is theirs one below the other.
pub(super) fn starts(
    lora: &LoraSpec,
    sites: &[Site],
    params: &HashMap<&str, &Arc<Param>>,
    rng: &Rng,
) -> Result<HashMap<String, Start>, LoadError> {
    let mut modules: Vec<(&str, Vec<&Site>)> = vec![];
    for site in sites {
        match modules.iter_mut().find(|(module, _)| *module == site.module) {
            Some((_, parts)) => parts.push(site),
            None => modules.push((&site.module, vec![site])),
        }
    }
    modules.into_iter().map(|(module, parts)| Ok((module.to_string(), start(lora, &parts, params, rng)?))).collect()
}

fn start(lora: &LoraSpec, parts: &[&Site], params: &HashMap<&str, &Arc<Param>>, rng: &Rng) -> Result<Start, LoadError> {
    let (path, input) = (parts[0].slot.path(), parts[0].slot.sizes()[1]);
    let ((rank, scale), mut weight) = (lora.at(path), vec![]);
    for part in parts {
        if let Some(param) = params.get(format!("{}.weight", part.slot.path()).as_str()) {
            weight.extend(param.numbers()?);
        }
    }
    let shape = [weight.len() / input.max(1), input];
    if rank > shape[0].min(shape[1]) {
        return Err(LoadError::Adapter(format!(
            "{path}: init = \"{}\" takes rank {rank} from a weight of {shape:?}, which has {} directions: lower the rank, or \
             set another with rank_pattern",
            String::from(lora.init),
            shape[0].min(shape[1])
        )));
    }
    let (a, b) = match lora.init {
        LoraInit::Olora => {
            let [q, r] = orthonormal(&weight, shape, rank);
            (r, q)
        }
        LoraInit::Pissa(rounds) => {
            let found = match rounds {
                Some(rounds) => leading_near(&weight, shape, [rank; 2], rounds, &mut rng.split(path).split("pissa")),
                None => leading(&weight, shape, rank),
            };
            let roots: Vec<f32> = found.values.iter().map(|value| (value / scale).sqrt()).collect();
            let a = found.right.iter().enumerate().map(|(at, x)| x * roots[at / input]).collect();
            (a, found.left.iter().enumerate().map(|(at, x)| x * roots[at % rank]).collect())
        }
        _ => (vec![], vec![]),
    };
    let mut rows = b.chunks_exact(rank);
    let mut of = |part: &&Site| rows.by_ref().take(part.slot.sizes()[0]).flatten().copied().collect();
    let b = parts.iter().map(|part| (part.slot.path().to_string(), of(part))).collect();
    Ok(Start { a, b })
}

/// Saved parts as they were while they were trained: with the scale that the settings say, and where they began apart, which
/// is the second half of what was saved.
pub(super) fn further(parts: Vec<Part>, lora: &LoraSpec) -> Result<Vec<Part>, LoadError> {
    let mut shared: HashMap<*const Param, [Arc<Param>; 2]> = HashMap::new();
    let mut found = vec![];
    for Part { site, change } in parts {
        let path = site.slot.path();
        let change = match Arc::try_unwrap(change) {
            Ok(Change::LowRank(change)) => {
                let change = if lora.init.moves() { halves(change, path, &mut shared)? } else { change };
                Change::LowRank(LowRank { scale: lora.scale_of(path, change.a.dims()[0]), ..change })
            }
            Ok(change) => change,
            Err(_) => return Err(LoadError::Adapter("an adapter in use cannot be given other settings".into())),
        };
        found.push(Part { site, change: Arc::new(change) });
    }
    Ok(found)
}

fn halves(
    change: LowRank,
    path: &str,
    shared: &mut HashMap<*const Param, [Arc<Param>; 2]>,
) -> Result<LowRank, LoadError> {
    let ([both, input], output) = ([change.a.dims()[0], change.a.dims()[1]], change.b.dims()[0]);
    if both % 2 != 0 {
        return Err(LoadError::Adapter(format!("{path}: rank {both} of a saved adapter, expected two times its own")));
    }
    let rank = both / 2;
    let [a, a0] = match shared.get(&Arc::as_ptr(&change.a)) {
        Some(known) => known.clone(),
        None => {
            let numbers = change.a.numbers()?;
            let (first, second) = numbers.split_at(rank * input);
            let start = format!("{}_start", change.a.path());
            let made = [
                param(change.a.path().to_string(), first.to_vec(), &[rank, input])?,
                param(start, second.to_vec(), &[rank, input])?,
            ];
            shared.insert(Arc::as_ptr(&change.a), made.clone());
            made
        }
    };
    let numbers = change.b.numbers()?;
    let half = |second: bool| {
        let rows = numbers.chunks_exact(both).flat_map(|row| &row[if second { rank..both } else { 0..rank }]);
        rows.map(|x| if second { -x } else { *x }).collect::<Vec<f32>>()
    };
    let b = param(change.b.path().to_string(), half(false), &[output, rank])?;
    let b0 = param(format!("{path}.{B}"), half(true), &[output, rank])?;
    Ok(LowRank { a, b, origin: Some([a0, b0]), ..change })
}

impl LoraSpec {
    /// Settings of what is written: matrices beside which their beginnings stand have twice the rank, at the same scale.
    pub(super) fn as_saved(&self) -> Self {
        let twice = if self.rslora { std::f64::consts::SQRT_2 } else { 2. };
        match self.init.moves() {
            true => Self { rank: 2 * self.rank, alpha: twice * self.alpha, ..self.clone() },
            false => self.clone(),
        }
    }
}
