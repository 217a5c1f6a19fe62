//! The thresholds between grades, which learn beside a model that scores texts. They rise, whatever is learned: what learns is
//! the first of them and the logarithms of the distances between neighbours.

use std::path::Path;
use std::sync::Arc;

use candle_core::{Device, Result};
use phyla_data::supervised::graded::Scale;
use phyla_models::checkpoint::atomic_write;
use phyla_ops::{Data, Param, Tensor, Weight};
use serde::{Deserialize, Serialize};

use crate::TrainError;
use crate::objective::preference::{GradeLoss, cumulative};

/// Thresholds of a scale.
#[derive(Debug)]
pub struct Thresholds {
    scale: Scale,
    param: Arc<Param>,
}

/// The path of what learns.
const PATH: &str = "thresholds";

/// By how much they learn faster than weights. Scores grow by all weights of a model together, and the few thresholds have to
/// follow them from where they began: at the weights' rate they hold them back, and probabilities stay far from the shares.
const FASTER: f64 = 30.;

/// A factor on the learning rate of the parameter at a path.
pub(crate) fn lr_scale(path: &str) -> f64 {
    if path == PATH { FASTER } else { 1. }
}

/// Its file in a checkpoint and in the model that comes of a run.
const FILE: &str = "ordinal.json";

/// What the file holds.
#[derive(Debug, Serialize, Deserialize)]
struct Kept {
    /// Grades from the worst to the best.
    grades: Scale,
    /// Between them: a text has the grade that its score lies in.
    thresholds: Vec<f64>,
    /// What learns: the first threshold, and the logarithms of the distances.
    parameters: Vec<f32>,
}

impl Thresholds {
    /// Where they lie for scores of zero and grades that come as often as `counts` says: what a model without any knowledge
    /// of the texts does best with.
    pub fn new(scale: &Scale, counts: &[usize], device: &Device) -> Result<Self> {
        // Half a text more of each, so that grades which never come have a place too.
        let count = |place: usize| counts.get(place).map_or(0.5, |&count| count as f64 + 0.5);
        let all: f64 = (0..scale.count()).map(count).sum();
        let mut below = 0.;
        let thresholds: Vec<f64> = (0..scale.count() - 1)
            .map(|place| {
                below += count(place);
                (below / (all - below)).ln()
            })
            .collect();
        let gaps = thresholds.windows(2).map(|pair| (pair[1] - pair[0]).ln() as f32);
        let parameters: Vec<f32> = thresholds.first().map(|&first| first as f32).into_iter().chain(gaps).collect();
        let places = parameters.len();
        let param = Arc::new(Param::new(PATH, Weight::Dense(Data::from_vec(parameters, places, device)?)));
        param.set_trainable(true)?;
        Ok(Self { scale: scale.clone(), param })
    }

    /// What learns.
    pub fn param(&self) -> &Arc<Param> {
        &self.param
    }

    /// The grades that they divide.
    pub fn scale(&self) -> &Scale {
        &self.scale
    }

    /// Where they lie.
    pub fn values(&self) -> Result<Vec<f64>> {
        Ok(risen(&self.param.numbers()?))
    }

    /// The loss of scores, `[texts]` in whatever shape, whose grades are known, times `scale`; and the scores as numbers.
    pub fn loss(&self, scores: &Tensor, grades: &[i32], scale: f64) -> Result<(Tensor, Vec<f64>)> {
        let numbers = scores.data().to_dtype(candle_core::DType::F32)?.flatten_all()?.to_vec1::<f32>()?;
        let numbers: Vec<f64> = numbers.into_iter().map(f64::from).collect();
        let grades: Vec<usize> = grades.iter().map(|&grade| grade.max(0) as usize).collect();
        if numbers.len() != grades.len() || grades.iter().any(|&grade| grade >= self.scale.count()) {
            candle_core::bail!("{} scores for {} texts with grades", numbers.len(), grades.len());
        }
        let parameters = self.param.numbers()?;
        let GradeLoss { value, scores: slopes, thresholds } = cumulative(&numbers, &grades, &risen(&parameters));
        let slopes = slopes.into_iter().map(|slope| (slope * scale) as f32).collect();
        let of_scores = phyla_ops::reduced(scores, value * scale, slopes)?;
        // A threshold moves with the first one and with every distance below it.
        let mut above = 0.;
        let mut own: Vec<f32> = vec![0.; thresholds.len()];
        for (place, slope) in thresholds.iter().enumerate().rev() {
            above += slope;
            let distance = if place == 0 { 1. } else { f64::from(parameters[place]).exp() };
            own[place] = (above * distance * scale) as f32;
        }
        let ones = Data::ones((1, own.len()), candle_core::DType::F32, scores.device())?;
        let param = phyla_ops::scale_columns(&Tensor::from(ones), &self.param, None)?;
        Ok((phyla_ops::add(&of_scores, &phyla_ops::reduced(&param, 0., own)?)?, numbers))
    }

    /// Writes them into a checkpoint, or beside a model.
    pub fn save(&self, folder: &Path) -> std::result::Result<(), TrainError> {
        let kept = Kept { grades: self.scale.clone(), thresholds: self.values()?, parameters: self.param.numbers()? };
        let text = serde_json::to_vec_pretty(&kept).map_err(|e| TrainError::Settings(format!("{FILE}: {e}")))?;
        Ok(atomic_write(folder.join(FILE), &text)?)
    }

    /// Goes on from there; false where nothing is there, or the thresholds of other grades.
    pub fn load(&self, folder: &Path) -> std::result::Result<bool, TrainError> {
        let Ok(text) = std::fs::read(folder.join(FILE)) else { return Ok(false) };
        let error =
            |reason: String| TrainError::Resume { path: folder.to_owned(), reason: format!("{FILE}: {reason}") };
        let kept: Kept = serde_json::from_slice(&text).map_err(|e| error(e.to_string()))?;
        if kept.grades != self.scale {
            return Ok(false);
        }
        if kept.parameters.len() != self.param.count() || kept.parameters.iter().any(|x| !x.is_finite()) {
            return Err(error(format!("expected {} finite parameters", self.param.count())));
        }
        self.put(kept.parameters)?;
        Ok(true)
    }

    /// Puts them where they lay on average in some checkpoints.
    pub fn average<'a>(&self, folders: impl ExactSizeIterator<Item = &'a Path>) -> std::result::Result<(), TrainError> {
        let mut sums = vec![0f32; self.param.count()];
        let share = 1. / folders.len().max(1) as f32;
        for folder in folders {
            if !self.load(folder)? {
                return Err(TrainError::Settings(format!("{} has no thresholds of these grades", folder.display())));
            }
            sums.iter_mut().zip(self.param.numbers()?).for_each(|(sum, value)| *sum += share * value);
        }
        Ok(self.put(sums)?)
    }

    fn put(&self, parameters: Vec<f32>) -> Result<()> {
        let (places, device) = (parameters.len(), self.param.weight().device());
        self.param.set_weight(Weight::Dense(Data::from_vec(parameters, places, &device)?))
    }
}

/// Thresholds of their parameters.
fn risen(parameters: &[f32]) -> Vec<f64> {
    let mut at = 0.;
    let step = |(place, &parameter): (usize, &f32)| {
        at += if place == 0 { f64::from(parameter) } else { f64::from(parameter).exp() };
        at
    };
    parameters.iter().enumerate().map(step).collect()
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    fn scale(grades: usize) -> Scale {
        Scale::new((1..=grades).map(|grade| grade.to_string()).collect()).unwrap()
    }

    #[test]
    fn they_begin_where_the_grades_are_as_frequent_as_they_are() {
        let made = Thresholds::new(&scale(3), &[99, 299, 599], &Device::Cpu).unwrap();
        let share = |threshold: f64| 1. / (1. + (-threshold).exp());
        let shares: Vec<f64> = made.values().unwrap().into_iter().map(share).collect();
        // Half a text more of each grade.
        assert!((shares[0] - 99.5 / 998.5).abs() < 1e-6 && (shares[1] - 399. / 998.5).abs() < 1e-6, "{shares:?}");
        assert!(Thresholds::new(&scale(5), &[0, 0, 0, 0, 7], &Device::Cpu).unwrap().values().unwrap().is_sorted());
    }

    #[test]
    fn loss_and_slopes_are_those_of_autograd() {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/golden/preference.json");
        let cases: serde_json::Value = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
        let mut largest = 0f64;
        for case in cases["ordinal"].as_array().unwrap() {
            let numbers = |name: &str| -> Vec<f64> { serde_json::from_value(case[name].clone()).unwrap() };
            let single = |name: &str| -> Vec<f32> { numbers(name).into_iter().map(|x| x as f32).collect() };
            let grades = case["grades"].as_u64().unwrap() as usize;
            let made = Thresholds::new(&scale(grades), &vec![1; grades], &Device::Cpu).unwrap();
            made.put(single("parameters")).unwrap();
            let scores = single("scores");
            let texts = scores.len();
            let scores = Tensor::leaf(Data::from_vec(scores, (texts, 1), &Device::Cpu).unwrap());
            let label: Vec<i32> = serde_json::from_value(case["label"].clone()).unwrap();
            let (loss, _) = made.loss(&scores, &label, 1. / texts as f64).unwrap();
            let mut close = |found: f64, expected: f64, what: &str| {
                let error = (found - expected).abs() / expected.abs().max(1.);
                largest = largest.max(error);
                assert!(error < 1e-5, "{grades} grades, {what}: found {found}, expected {expected}");
            };
            close(f64::from(loss.data().to_scalar::<f32>().unwrap()), case["loss"].as_f64().unwrap(), "loss");
            made.param.zero_grad();
            loss.backward().unwrap();
            let slopes = |data: Data| data.flatten_all().unwrap().to_vec1::<f32>().unwrap();
            for (found, name) in [
                (slopes(scores.grad().unwrap()), "gradient"),
                (slopes(made.param.grad().unwrap()), "gradient_of_parameters"),
            ] {
                assert_eq!(found.len(), numbers(name).len());
                found.iter().zip(numbers(name)).for_each(|(&found, expected)| close(f64::from(found), expected, name));
            }
            made.values().unwrap().iter().zip(numbers("thresholds")).for_each(|(a, b)| close(*a, b, "thresholds"));
        }
        println!("largest difference {largest:.1e}");
    }

    #[test]
    fn they_are_read_back_bit_for_bit_where_the_grades_are_the_same() {
        let folder = tempfile::tempdir().unwrap();
        let made = Thresholds::new(&scale(4), &[3, 1, 4, 1], &Device::Cpu).unwrap();
        made.put(vec![0.1, -1.7, 0.3]).unwrap();
        made.save(folder.path()).unwrap();
        let fresh = Thresholds::new(&scale(4), &[1, 1, 1, 1], &Device::Cpu).unwrap();
        assert!(fresh.load(folder.path()).unwrap());
        assert_eq!(fresh.param.numbers().unwrap(), [0.1, -1.7, 0.3]);
        assert!(!Thresholds::new(&scale(3), &[1; 3], &Device::Cpu).unwrap().load(folder.path()).unwrap());
        std::fs::write(folder.path().join(FILE), "{").unwrap();
        assert!(fresh.load(folder.path()).is_err());
    }
}
