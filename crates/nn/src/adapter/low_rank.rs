//! LoRA (Hu et al. 2021, section 4.1) and what departs from it by a line: rsLoRA (another scale), LoRA-FA (`a` stays as it
//! is), AdaLoRA (a factor for each direction), DoRA (the weight's direction and length apart).

use std::sync::{Arc, OnceLock};

use candle_core::Result;
use phyla_ops::{Param, Tensor};

use super::{Site, add_product, numbers};

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
}

/// DoRA (Liu et al. 2024, eq. 5): rows of the changed weight keep their direction and get a length that learns,
/// `m (w + s b a) / |w + s b a|`, where the lengths below the line take no part in the gradient (section 4.3).
#[derive(Debug)]
pub struct Magnitude {
    /// `[output]`.
    pub lengths: Arc<Param>,
    /// `|w|²` of each row, which stays.
    squares: OnceLock<Vec<f32>>,
}

impl Magnitude {
    /// Over these lengths.
    pub fn new(lengths: Arc<Param>) -> Self {
        Self { lengths, squares: OnceLock::new() }
    }

    /// `|w|` of each row: where the lengths begin.
    pub fn of(weight: &Param) -> Result<Vec<f32>> {
        Ok(squares(weight)?.into_iter().map(f32::sqrt).collect())
    }
}

fn squares(weight: &Param) -> Result<Vec<f32>> {
    let (rows, columns) = (weight.dims()[0], weight.count() / weight.dims()[0].max(1));
    let numbers = numbers(weight)?;
    let square = |row: &[f32]| row.iter().map(|&x| x as f64 * x as f64).sum::<f64>() as f32;
    let squares: Vec<f32> = numbers.chunks_exact(columns.max(1)).map(square).collect();
    debug_assert_eq!(squares.len(), rows);
    Ok(squares)
}

impl LowRank {
    pub(super) fn params(&self) -> Vec<&Arc<Param>> {
        let lengths = self.magnitude.as_ref().map(|magnitude| &magnitude.lengths);
        [&self.a, &self.b].into_iter().chain(&self.importance).chain(lengths).collect()
    }

    pub(super) fn apply(&self, y: Tensor, site: &Site) -> Result<Tensor> {
        let x = site.dropped(self.dropout)?;
        let mut narrow = phyla_ops::linear(&x, &self.a, None)?; // [.., rank]
        if let Some(importance) = &self.importance {
            narrow = phyla_ops::scale_columns(&narrow, importance, None)?;
        }
        if self.scale != 1. {
            narrow = phyla_ops::scale(&narrow, self.scale as f64)?;
        }
        let added = phyla_ops::linear(&narrow, &self.b, None)?; // [.., output]
        let Some(magnitude) = &self.magnitude else { return phyla_ops::add(&y, &added) };
        let weight = site.linear.weight();
        let base = match site.linear.has_bias() || site.drops(self.dropout) {
            true => phyla_ops::linear(&x, weight, None)?,
            false => y.clone(),
        };
        let inverse = self.lengths(magnitude, weight)?.into_iter().map(f32::recip).collect();
        let turned = phyla_ops::scale_columns(&phyla_ops::add(&base, &added)?, &magnitude.lengths, Some(inverse))?;
        phyla_ops::add(&y, &phyla_ops::add(&turned, &phyla_ops::scale(&base, -1.)?)?)
    }

    /// `|w + s b a|` of each row, without ever making that matrix: `|w|² + 2 s (w aᵀ)·b + s² b (a aᵀ) bᵀ`.
    fn lengths(&self, magnitude: &Magnitude, weight: &Arc<Param>) -> Result<Vec<f32>> {
        let squares = match magnitude.squares.get() {
            Some(squares) => squares,
            None => {
                let found = squares(weight)?;
                magnitude.squares.get_or_init(|| found)
            }
        };
        let (rank, output) = (self.a.dims()[0], self.b.dims()[0]);
        phyla_ops::no_grad(|| {
            let a = Tensor::from(self.a.weight().to_f32()?);
            let across = phyla_ops::linear(&a, weight, None)?.data().to_vec2::<f32>()?; // [rank, output]
            let among = phyla_ops::linear(&a, &self.a, None)?.data().to_vec2::<f32>()?; // [rank, rank]
            let (b, s) = (numbers(&self.b)?, self.scale as f64);
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
        let (rank, input, output) = (self.a.dims()[0], self.a.dims()[1], self.b.dims()[0]);
        let (mut a, b) = (numbers(&self.a)?, numbers(&self.b)?);
        if let Some(importance) = &self.importance {
            for (row, factor) in a.chunks_exact_mut(input.max(1)).zip(numbers(importance)?) {
                row.iter_mut().for_each(|x| *x *= factor);
            }
        }
        add_product(weight, &b, &a, self.scale, [output, input, rank])?;
        if let Some(magnitude) = &self.magnitude {
            for (row, length) in weight.chunks_exact_mut(input.max(1)).zip(numbers(&magnitude.lengths)?) {
                let now = row.iter().map(|&x| x as f64 * x as f64).sum::<f64>().sqrt() as f32;
                row.iter_mut().for_each(|x| *x *= length / now);
            }
        }
        Ok(())
    }
}
