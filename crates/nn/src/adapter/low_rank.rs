//! LoRA (Hu et al. 2021, section 4.1) and what departs from it by a line: rsLoRA (another scale), LoRA-FA (`a` stays as it
//! is), AdaLoRA (a factor for each direction), DoRA (the weight's direction and length apart), PiSSA and OLoRA (what the
//! matrices began with is taken away).

use std::sync::{Arc, Mutex, PoisonError};

use candle_core::Result;
use phyla_ops::{Param, Tensor, Weight};

use super::{Site, add_product};

/// `y + scale · b (importance ∘ (a x))`.
#[derive(Debug)]
pub struct LowRank {
    /// `[rank, input]`.
    pub a: Arc<Param>,
    /// `[output, rank]`.
    pub b: Arc<Param>,
    /// `alpha / rank`; of rsLoRA `alpha / √rank` (Kalajdzievski 2023).
    pub scale: f32,
    /// Dropout of what `a` reads, in training.
    pub dropout: f32,
    /// AdaLoRA's singular values (Zhang et al. 2023, eq. 3), `[rank, 1]`.
    pub importance: Option<Arc<Param>>,
    /// DoRA's lengths.
    pub magnitude: Option<Magnitude>,
    /// Where `a` and `b` began, if that was no product of 0 (PiSSA, Meng et al. 2024; OLoRA, Büyükakyüz 2024): it is taken
    /// away again, which is to train beside what it leaves of the weight.
    pub origin: Option<[Arc<Param>; 2]>,
}

/// DoRA (Liu et al. 2024, eq. 5): rows of the changed weight keep their direction and get a length that learns,
/// `m (w + s b a) / |w + s b a|`, where the lengths below the line take no part in the gradient (section 4.3).
#[derive(Debug)]
pub struct Magnitude {
    /// `[output]`.
    pub lengths: Arc<Param>,
    kept: Mutex<Kept>,
}

/// What follows from weights that seldom change, for the versions that it follows from: it costs as much as `rank` rows of
/// the map, and more.
#[derive(Debug, Default)]
struct Kept {
    /// `|w|²` of each row.
    squares: Option<(u64, Vec<f32>)>,
    /// `1 / |w + s b a|` of each row.
    inverse: Option<([u64; 3], Arc<[f32]>)>,
}

impl Magnitude {
    /// Over these lengths.
    pub fn new(lengths: Arc<Param>) -> Self {
        Self { lengths, kept: Mutex::default() }
    }

    /// Over the same lengths, beside another product.
    pub fn again(&self) -> Self {
        Self::new(self.lengths.clone())
    }

    /// `|w|` of each row: where the lengths begin.
    pub fn of(weight: &Param) -> Result<Vec<f32>> {
        Ok(squares(weight)?.into_iter().map(f32::sqrt).collect())
    }
}

fn squares(weight: &Param) -> Result<Vec<f32>> {
    let (columns, numbers) = (weight.count() / weight.dims()[0].max(1), weight.numbers()?);
    let square = |row: &[f32]| row.iter().map(|&x| x as f64 * x as f64).sum::<f64>() as f32;
    Ok(numbers.chunks_exact(columns.max(1)).map(square).collect())
}

impl LowRank {
    pub(super) fn params(&self) -> Vec<&Arc<Param>> {
        let lengths = self.magnitude.as_ref().map(|magnitude| &magnitude.lengths);
        let origin = self.origin.iter().flatten();
        [&self.a, &self.b].into_iter().chain(&self.importance).chain(lengths).chain(origin).collect()
    }

    pub(super) fn apply(&self, y: Tensor, site: &Site) -> Result<Tensor> {
        if self.a.count() == 0 {
            // AdaLoRA may leave a map no direction.
            return Ok(y);
        }
        let x = site.dropped(self.dropout)?;
        let mut narrow = phyla_ops::linear(&x, &self.a, None)?; // [.., rank]
        if let Some(importance) = &self.importance {
            narrow = phyla_ops::scale_columns(&narrow, importance, None)?;
        }
        if self.scale != 1. {
            narrow = phyla_ops::scale(&narrow, self.scale as f64)?;
        }
        let mut added = phyla_ops::linear(&narrow, &self.b, None)?; // [.., output]
        if let Some([a, b]) = &self.origin {
            // It belongs to the weight, and no dropout is before that.
            let narrow = phyla_ops::scale(&phyla_ops::linear(site.x, a, None)?, -self.scale as f64)?;
            added = phyla_ops::add(&added, &phyla_ops::linear(&narrow, b, None)?)?;
        }
        let Some(magnitude) = &self.magnitude else { return phyla_ops::add(&y, &added) };
        let weight = site.linear.weight();
        let base = match site.linear.has_bias() || site.drops(self.dropout) {
            true => phyla_ops::linear(&x, weight, None)?,
            false => y.clone(),
        };
        let inverse = self.inverse_lengths(magnitude, weight)?;
        let turned = phyla_ops::scale_columns(&phyla_ops::add(&base, &added)?, &magnitude.lengths, Some(inverse))?;
        phyla_ops::add(&y, &phyla_ops::add(&turned, &phyla_ops::scale(&base, -1.)?)?)
    }

    /// `a` and `b` with what is taken away as further rows and columns: `b a - b₀ a₀` as one product. As peft converts
    /// such adapters (`subtract_mutated_init`), to work beside the weight as it is.
    pub fn joined(&self) -> Result<[Arc<Param>; 2]> {
        let Some([a0, b0]) = &self.origin else { return Ok([self.a.clone(), self.b.clone()]) };
        let (rank, rank0, output) = (self.a.dims()[0], a0.dims()[0], self.b.dims()[0]);
        let a = [self.a.numbers()?, a0.numbers()?].concat();
        let (b, b0) = (self.b.numbers()?, b0.numbers()?);
        let rows = b.chunks_exact(rank).zip(b0.chunks_exact(rank0));
        let b: Vec<f32> = rows.flat_map(|(b, b0)| b.iter().copied().chain(b0.iter().map(|x| -x))).collect();
        let made = |like: &Param, values, shape: &[usize]| {
            let data = phyla_ops::cpu::tensor(values, shape)?;
            Ok::<_, candle_core::Error>(Arc::new(Param::new(like.path().to_string(), Weight::Dense(data))))
        };
        Ok([made(&self.a, a, &[rank + rank0, self.a.dims()[1]])?, made(&self.b, b, &[output, rank + rank0])?])
    }

    /// `1 / |w + s b a|` of each row.
    fn inverse_lengths(&self, magnitude: &Magnitude, weight: &Arc<Param>) -> Result<Arc<[f32]>> {
        let versions = [weight, &self.a, &self.b].map(|param| param.version());
        let mut kept = magnitude.kept.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, inverse)) = kept.inverse.as_ref().filter(|(known, _)| *known == versions) {
            return Ok(inverse.clone());
        }
        let squares = match kept.squares.take().filter(|(known, _)| *known == versions[0]) {
            Some((_, squares)) => squares,
            None => squares(weight)?,
        };
        let inverse: Arc<[f32]> = self.lengths(&squares, weight)?.into_iter().map(f32::recip).collect();
        *kept = Kept { squares: Some((versions[0], squares)), inverse: Some((versions, inverse.clone())) };
        Ok(inverse)
    }

    /// `|w + s b a|` of each row, without ever making that matrix: `|w|² + 2 s (w aᵀ)·b + s² b (a aᵀ) bᵀ`.
    fn lengths(&self, squares: &[f32], weight: &Arc<Param>) -> Result<Vec<f32>> {
        let [a_all, b_all] = self.joined()?;
        let (rank, output) = (a_all.dims()[0], b_all.dims()[0]);
        phyla_ops::no_grad(|| {
            let a = Tensor::from(a_all.weight().to_f32()?);
            let across = phyla_ops::linear(&a, weight, None)?.data().to_vec2::<f32>()?; // [rank, output]
            let among = phyla_ops::linear(&a, &a_all, None)?.data().to_vec2::<f32>()?; // [rank, rank]
            let (b, s) = (b_all.numbers()?, self.scale as f64);
            let length = |row: usize| {
                let b = &b[row * rank..][..rank];
                let mut square = squares[row] as f64;
                for (i, &bi) in b.iter().enumerate() {
                    square += 2. * s * bi as f64 * across[i][row] as f64;
                    let inner: f64 = b.iter().zip(&among[i]).map(|(&bj, &g)| bj as f64 * g as f64).sum();
                    square += s * s * bi as f64 * inner;
                }
                square.max(0.).sqrt() as f32
            };
            Ok((0..output).map(length).collect())
        })
    }

    pub(super) fn merge(&self, weight: &mut [f32]) -> Result<()> {
        let [a, b] = self.joined()?;
        let (rank, input, output) = (a.dims()[0], a.dims()[1], b.dims()[0]);
        let (mut a, b) = (a.numbers()?, b.numbers()?);
        if let Some(importance) = &self.importance {
            for (row, factor) in a.chunks_exact_mut(input.max(1)).zip(importance.numbers()?) {
                row.iter_mut().for_each(|x| *x *= factor);
            }
        }
        add_product(weight, &b, &a, self.scale, [output, input, rank])?;
        if let Some(magnitude) = &self.magnitude {
            for (row, length) in weight.chunks_exact_mut(input.max(1)).zip(magnitude.lengths.numbers()?) {
                let now = row.iter().map(|&x| x as f64 * x as f64).sum::<f64>().sqrt() as f32;
                row.iter_mut().for_each(|x| *x *= length / now);
            }
        }
        Ok(())
    }
}
