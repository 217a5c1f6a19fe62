//! Several LoRA adapters made into one, by the rules and under the names of peft (`add_weighted_adapter`).

use std::collections::{BTreeMap, HashMap};
use std::str::FromStr;
use std::sync::Arc;

use phyla_kernels::decompose::leading;
use phyla_kernels::rng::Rng;
use phyla_nn::adapter::{Change, LowRank, add_product};

use super::fresh::param;
use super::modules::Site;
use super::spec::LoraSpec;
use super::{Adapter, AdapterSpec, Kept, Part};
use crate::LoadError;

/// How numbers of the same place in several adapters become one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rule {
    /// Matrices stand side by side: the weighted sum of the products, exactly. The ranks add up.
    Cat,
    /// The weighted sum (task arithmetic, Ilharco et al. 2023).
    Linear,
    /// The largest numbers of each, and of those the ones of the sign that most have (Yadav et al. 2023).
    Ties,
    /// Random numbers of each, made larger by as much as others are missing (Yu et al. 2024).
    DareLinear,
    /// The same, and of those the ones of the sign that most have.
    DareTies,
    /// The largest numbers of each.
    MagnitudePrune,
}

/// Whose sign is the one that most have.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Majority {
    /// That of the sum.
    #[default]
    Total,
    /// The more frequent one.
    Frequency,
}

/// A rule, and what it is applied to.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Combine {
    /// The rule.
    pub rule: Rule,
    /// Applied to the products, of which the leading directions are kept (`…_svd`), rather than to the two matrices apart.
    pub svd: bool,
    /// The share of numbers that is kept, where the rule leaves some out.
    pub density: Option<f64>,
    /// Whose sign counts.
    pub majority: Majority,
    /// Rank of what comes of `svd`; the largest of the adapters' by default.
    pub rank: Option<usize>,
    /// Decides which numbers `dare` keeps.
    pub seed: u64,
}

/// The names of all rules.
pub const RULES: [&str; 11] = [
    "linear",
    "cat",
    "svd",
    "ties",
    "ties_svd",
    "dare_linear",
    "dare_linear_svd",
    "dare_ties",
    "dare_ties_svd",
    "magnitude_prune",
    "magnitude_prune_svd",
];

impl FromStr for Combine {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        let base = if name == "svd" { "linear" } else { name.strip_suffix("_svd").unwrap_or(name) };
        let rule = match base {
            _ if !RULES.contains(&name) => return Err(format!("`{name}`: expected {}", RULES.join(", "))),
            "cat" => Rule::Cat,
            "ties" => Rule::Ties,
            "dare_linear" => Rule::DareLinear,
            "dare_ties" => Rule::DareTies,
            "magnitude_prune" => Rule::MagnitudePrune,
            _ => Rule::Linear,
        };
        let (svd, majority) = (name.ends_with("svd"), Majority::default());
        Ok(Self { rule, svd, density: None, majority, rank: None, seed: 0 })
    }
}

impl Combine {
    /// Whether the rule leaves numbers out, and so needs a density.
    pub fn is_sparse(&self) -> bool {
        !matches!(self.rule, Rule::Cat | Rule::Linear)
    }

    /// Numbers of the same places in several adapters, as one. `key` names the place, for what is random.
    fn mix(&self, tensors: Vec<Vec<f32>>, weights: &[f32], key: &str) -> Vec<f32> {
        let rng = Rng::new(self.seed).split(key);
        let kept: Vec<Vec<f32>> = (tensors.into_iter().enumerate())
            .map(|(at, tensor)| match self.rule {
                Rule::Ties | Rule::MagnitudePrune => largest(tensor, self.density.unwrap_or(1.)),
                Rule::DareLinear | Rule::DareTies => {
                    some(tensor, self.density.unwrap_or(1.), &mut rng.split(at as u64))
                }
                Rule::Cat | Rule::Linear => tensor,
            })
            .collect();
        let elects = matches!(self.rule, Rule::Ties | Rule::DareTies);
        let place = |at: usize| {
            let here = || kept.iter().map(|tensor| tensor[at]);
            let weighted = here().zip(weights).map(|(x, weight)| x * weight);
            if !elects {
                return weighted.sum();
            }
            let votes: f32 = match self.majority {
                Majority::Total => here().sum(),
                Majority::Frequency => here().map(sign).sum(),
            };
            let elected = if votes >= 0. { 1. } else { -1. };
            let agreeing = || here().map(move |x| sign(x) == elected);
            let sum: f32 = weighted.zip(agreeing()).filter(|(_, agrees)| *agrees).map(|(x, _)| x).sum();
            sum / agreeing().filter(|agrees| *agrees).count().max(1) as f32
        };
        (0..kept.first().map_or(0, Vec::len)).map(place).collect()
    }
}

/// 1, -1, or 0 of 0.
fn sign(x: f32) -> f32 {
    if x == 0. { 0. } else { x.signum() }
}

/// The numbers of largest magnitude, a share `density` of all; 0 in the others' places.
fn largest(mut tensor: Vec<f32>, density: f64) -> Vec<f32> {
    let kept = (density * tensor.len() as f64) as usize;
    let mut order: Vec<usize> = (0..tensor.len()).collect();
    order.sort_by(|&a, &b| tensor[b].abs().total_cmp(&tensor[a].abs()));
    order.iter().skip(kept).for_each(|&at| tensor[at] = 0.);
    tensor
}

/// Each number with probability `density`, as much larger as it is likely to be missing.
fn some(tensor: Vec<f32>, density: f64, rng: &mut Rng) -> Vec<f32> {
    if density >= 1. {
        return tensor;
    }
    let density = density as f32;
    tensor.into_iter().map(|x| if rng.next_f32() < density { x / density } else { 0. }).collect()
}

/// One module of one adapter.
struct Factors {
    /// `[rank, input]`.
    a: Vec<f32>,
    /// `[output, rank]`, of all parts of the module.
    b: Vec<f32>,
    rank: usize,
    /// Of the product.
    scale: f32,
    /// The adapter's weight.
    weight: f32,
}

/// One adapter of several, each with a weight, which may be negative.
///
/// # Errors
/// Adapters that are no LoRA, ranks that the rule cannot add up, a density that is missing.
pub fn combine(adapters: &[(Arc<Adapter>, f32)], how: &Combine) -> Result<Adapter, LoadError> {
    let wrong = |what: String| Err(LoadError::Adapter(what));
    let mut ranks = vec![];
    for (adapter, _) in adapters {
        match adapter.combinable() {
            Ok(rank) => ranks.push(rank),
            Err(why) => return wrong(why),
        }
    }
    // As peft has it: one adapter is only made larger or smaller.
    let alone = Combine { rule: Rule::Linear, svd: false, ..*how };
    let how = if adapters.len() == 1 { &alone } else { how };
    if how.is_sparse() && !how.density.is_some_and(|density| density > 0. && density <= 1.) {
        return wrong(
            "this way of combining leaves numbers out: say with a density above 0, at most 1, how many stay".into(),
        );
    }
    if how.rule != Rule::Cat && !how.svd && ranks.iter().any(|rank| *rank != ranks[0]) {
        return wrong(format!(
            "adapters of ranks {ranks:?} have matrices of unlike shapes: combine them by cat or …svd"
        ));
    }
    let holding = adapters.iter().filter(|(adapter, _)| !adapter.saved.is_empty());
    if holding.count() > 1 {
        return wrong(
            "several of the adapters replace parameters whole (modules_to_save), which cannot be combined".into(),
        );
    }
    let rank = match how {
        Combine { rule: Rule::Cat, .. } => ranks.iter().sum(),
        Combine { svd: true, rank: Some(rank), .. } => *rank,
        _ => ranks.iter().copied().max().unwrap_or(1),
    };
    let parts = modules(adapters).into_iter().map(|(module, sites)| together(adapters, &module, &sites, how, rank));
    let parts: Vec<Part> = parts.collect::<Result<Vec<_>, _>>()?.into_iter().flatten().collect();
    let Some(AdapterSpec::Lora(first)) = adapters.first().map(|(adapter, _)| adapter.spec.clone()) else {
        return wrong("no adapters to combine".into());
    };
    let saved = adapters.iter().flat_map(|(adapter, _)| adapter.saved.iter().cloned()).collect();
    let spec = LoraSpec { rank, alpha: rank as f64, rslora: false, ..first };
    Ok(Adapter { spec: AdapterSpec::Lora(spec), parts, prompt: None, saved, kept: Kept::new() })
}

/// The modules that any of the adapters changes, in order, with the maps of ours that they are.
fn modules(adapters: &[(Arc<Adapter>, f32)]) -> Vec<(String, Vec<Site>)> {
    let mut found: Vec<(String, Vec<Site>)> = vec![];
    for part in adapters.iter().flat_map(|(adapter, _)| &adapter.parts) {
        let site = &part.site;
        match found.iter_mut().find(|(module, _)| *module == site.module) {
            Some((_, sites)) if sites.iter().all(|known| known.slot.path() != site.slot.path()) => {
                sites.push(site.clone());
            }
            Some(_) => {}
            None => found.push((site.module.clone(), vec![site.clone()])),
        }
    }
    found
}

fn together(
    adapters: &[(Arc<Adapter>, f32)],
    module: &str,
    sites: &[Site],
    how: &Combine,
    rank: usize,
) -> Result<Vec<Part>, LoadError> {
    let mut factors = vec![];
    for (adapter, weight) in adapters {
        factors.extend(adapter.factors(sites, *weight)?);
    }
    let input = sites[0].slot.sizes()[1];
    let [a, b] = match how {
        Combine { rule: Rule::Cat, .. } => side_by_side(&factors),
        Combine { svd: true, .. } => of_products(&factors, how, module, [input, rank])?,
        _ => {
            if factors.iter().any(|part| part.rank != factors[0].rank) {
                let ranks: Vec<usize> = factors.iter().map(|part| part.rank).collect();
                return Err(LoadError::Adapter(format!(
                    "{module}: ranks {ranks:?} have matrices of unlike shapes: combine them by cat or …svd"
                )));
            }
            apart(factors, how, module)
        }
    };
    let rank = a.len() / input.max(1);
    let shared = param(format!("{}.lora_A", sites[0].slot.path()), a, &[rank, input])?;
    let mut rows = b.chunks_exact(rank.max(1));
    let of = |site: &Site| {
        let output = site.slot.sizes()[0];
        let b = rows.by_ref().take(output).flatten().copied().collect();
        let (a, b) = (shared.clone(), param(format!("{}.lora_B", site.slot.path()), b, &[output, rank])?);
        let change = LowRank { a, b, scale: 1., dropout: 0., importance: None, magnitude: None, origin: None };
        Ok(Part { site: site.clone(), change: Arc::new(Change::LowRank(change)) })
    };
    sites.iter().map(of).collect()
}

/// Ranks add up; weights go into the first matrices.
fn side_by_side(factors: &[Factors]) -> [Vec<f32>; 2] {
    let a = factors.iter().flat_map(|part| part.a.iter().map(|x| x * part.weight * part.scale)).collect();
    let rows = factors.first().map_or(0, |part| part.b.len() / part.rank.max(1));
    let row = |at: usize| factors.iter().flat_map(move |part| &part.b[at * part.rank..][..part.rank]).copied();
    [a, (0..rows).flat_map(row).collect()]
}

/// Each of the two matrices for itself, under the roots of the weights; the sign goes into the first.
fn apart(factors: Vec<Factors>, how: &Combine, module: &str) -> [Vec<f32>; 2] {
    let roots: Vec<f32> = factors.iter().map(|part| (part.weight * part.scale).abs().sqrt()).collect();
    let signed: Vec<f32> = factors.iter().zip(&roots).map(|(part, root)| root * part.weight.signum()).collect();
    let (a, b) = factors.into_iter().map(|part| (part.a, part.b)).unzip();
    [how.mix(a, &signed, &format!("{module}.a")), how.mix(b, &roots, &format!("{module}.b"))]
}

/// The products, of which the leading directions make two matrices again.
fn of_products(
    factors: &[Factors],
    how: &Combine,
    module: &str,
    [input, rank]: [usize; 2],
) -> candle_core::Result<[Vec<f32>; 2]> {
    let product = |part: &Factors| {
        let output = part.b.len() / part.rank.max(1);
        let mut sum = vec![0f32; output * input];
        add_product(&mut sum, &part.b, &part.a, part.scale, [output, input, part.rank])?;
        Ok(sum)
    };
    // The scale belongs to the product, before anything is left out.
    let weights: Vec<f32> = factors.iter().map(|part| part.weight).collect();
    let mixed = how.mix(factors.iter().map(product).collect::<candle_core::Result<_>>()?, &weights, module);
    let found = leading(&mixed, [mixed.len() / input, input], rank);
    let rank = found.values.len();
    let b = found.left.iter().enumerate().map(|(at, x)| x * found.values[at % rank.max(1)]).collect();
    Ok([found.right, b])
}

impl Adapter {
    /// Its largest rank, or why it cannot be combined with others.
    fn combinable(&self) -> Result<usize, String> {
        let AdapterSpec::Lora(lora) = &self.spec else {
            return Err(format!("adapters of kind {} cannot be combined, LoRA's alone can", self.spec.name()));
        };
        if lora.dora {
            return Err("adapters of DoRA cannot be combined: what they add is no plain product".into());
        }
        let ranks = self.parts.iter().filter_map(|part| part.rank_and_alpha(lora.rslora));
        Ok(ranks.map(|(rank, _)| rank).fold(lora.rank, usize::max))
    }

    /// What it has for the maps of one module, one below the other; nothing if it leaves them as they are.
    fn factors(&self, sites: &[Site], weight: f32) -> Result<Option<Factors>, LoadError> {
        let own: HashMap<&str, &Part> = self.parts.iter().map(|part| (part.site.slot.path(), part)).collect();
        let mut found: Option<Factors> = None;
        let mut rows: BTreeMap<usize, Vec<f32>> = BTreeMap::new();
        for (at, site) in sites.iter().enumerate() {
            let Some(Change::LowRank(change)) = own.get(site.slot.path()).map(|part| &*part.change) else { continue };
            let [a, b] = change.joined()?;
            rows.insert(at, b.numbers()?);
            if found.is_none() {
                let (rank, scale) = (a.dims()[0], change.scale);
                found = Some(Factors { a: a.numbers()?, b: vec![], rank, scale, weight });
            }
        }
        Ok(found.map(|mut found| {
            for (at, site) in sites.iter().enumerate() {
                let nothing = || vec![0.; site.slot.sizes()[0] * found.rank];
                found.b.extend(rows.remove(&at).unwrap_or_else(nothing));
            }
            found
        }))
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    fn numbers(seed: u64, count: usize) -> Vec<f32> {
        let mut values = vec![0.; count];
        Rng::new(seed).fill_normal(&mut values, 0., 1.);
        values
    }

    #[test]
    fn random_numbers_left_out_leave_the_mean_as_it_is() {
        let tensors = || vec![numbers(1, 50), numbers(2, 50)];
        let weights = [0.7, -0.4];
        let linear = "linear".parse::<Combine>().unwrap().mix(tensors(), &weights, "");
        let dare = |seed, density| {
            let how = Combine { density: Some(density), seed, ..Combine::from_str("dare_linear").unwrap() };
            how.mix(tensors(), &weights, "place")
        };
        assert_eq!(dare(1, 1.), linear);
        let (draws, density) = (4000u64, 0.6);
        let mut mean = vec![0f64; 50];
        for seed in 0..draws {
            mean.iter_mut().zip(dare(seed, density)).for_each(|(mean, x)| *mean += f64::from(x) / draws as f64);
        }
        for (at, (mean, expected)) in mean.iter().zip(&linear).enumerate() {
            // A number is kept or not: variance x² (1 - density) / density; five deviations of the mean.
            let of = |tensor: usize, weight: f32| f64::from(tensors()[tensor][at] * weight).powi(2);
            let deviation = ((of(0, 0.7) + of(1, -0.4)) * (1. - density) / density / draws as f64).sqrt();
            assert!((mean - f64::from(*expected)).abs() < 5. * deviation, "{mean} and {expected}");
        }
        assert_ne!(dare(1, 0.6), dare(2, 0.6));
        assert_eq!(dare(1, 0.6), dare(1, 0.6));
    }

    #[test]
    fn signs_are_elected_by_sum_or_by_number() {
        let tensors = || vec![vec![3., 0.], vec![-1., 0.], vec![-1., -2.]];
        let of = |majority| {
            let how = Combine { density: Some(1.), majority, ..Combine::from_str("ties").unwrap() };
            how.mix(tensors(), &[1., 1., 1.], "")
        };
        assert_eq!(of(Majority::Total), [3., -2.]);
        assert_eq!(of(Majority::Frequency), [-1., -2.]);
    }
}
