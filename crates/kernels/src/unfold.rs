//! The windows of a convolution over time, laid out as rows of a matrix, so that the convolution is a product.

use crate::chunk;

/// A convolution's view on `[batch, time, channels]`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Windows {
    /// Steps of the input.
    pub time: usize,
    /// Channels of the input.
    pub channels: usize,
    /// Steps that a window spans.
    pub taps: usize,
    /// Zeros before the first step.
    pub left: usize,
    /// Windows for each sequence.
    pub windows: usize,
    /// The first channel to use.
    pub first: usize,
    /// How many to use.
    pub count: usize,
}

impl Windows {
    fn check(&self, name: &str, x: usize, u: usize) {
        let (per_sequence, row) = (self.time * self.channels, self.count * self.taps);
        assert!(
            self.first + self.count <= self.channels && x * self.windows * row == u * per_sequence,
            "{name}: {self:?}; found {x} values and {u} in windows"
        );
    }
}

/// `u[batch · windows, count · taps]`: `u[b, t, c, j] = x[b, t + j - left, first + c]`, 0 outside.
///
/// # Panics
/// If the lengths do not fit each other; so does [`fold`].
pub fn unfold(u: &mut [f32], x: &[f32], by: &Windows) {
    by.check("unfold", x.len(), u.len());
    let row = by.count * by.taps;
    if u.is_empty() {
        return;
    }
    chunk::each_mut(u, row, |start, u| {
        for (at, u) in (start / row..).zip(u.chunks_exact_mut(row)) {
            let (batch, t) = (at / by.windows, at % by.windows);
            for j in 0..by.taps {
                let places = u[j..].iter_mut().step_by(by.taps);
                match (t + j).checked_sub(by.left).filter(|&step| step < by.time) {
                    Some(step) => {
                        let x = &x[(batch * by.time + step) * by.channels + by.first..][..by.count];
                        places.zip(x).for_each(|(u, x)| *u = *x);
                    }
                    None => places.for_each(|u| *u = 0.0),
                }
            }
        }
    });
}

/// The gradient of [`unfold`]: each step's channels `first .. first + count` of `dx` are overwritten by the sum over the
/// windows that saw it, in the order of the taps; other channels stay.
pub fn fold(dx: &mut [f32], du: &[f32], by: &Windows) {
    by.check("fold", dx.len(), du.len());
    let row = by.count * by.taps;
    if dx.is_empty() {
        return;
    }
    chunk::each_mut(dx, by.channels, |start, dx| {
        for (at, dx) in (start / by.channels..).zip(dx.chunks_exact_mut(by.channels)) {
            let (batch, step) = (at / by.time, at % by.time);
            let dx = &mut dx[by.first..][..by.count];
            dx.fill(0.0);
            for j in 0..by.taps {
                if let Some(t) = (step + by.left).checked_sub(j).filter(|&t| t < by.windows) {
                    let du = du[(batch * by.windows + t) * row + j..].iter().step_by(by.taps);
                    dx.iter_mut().zip(du).for_each(|(sum, du)| *sum += du);
                }
            }
        }
    });
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rng::Rng;
    use crate::threads::tests::with_threads;

    #[test]
    fn windows_and_their_gradient() {
        // Batch, time, channels, taps, left, right, first, count.
        for [batch, time, channels, taps, left, right, first, count] in [
            [1, 1, 1, 1, 0, 0, 0, 1],
            [2, 5, 3, 3, 1, 1, 0, 3],
            [2, 4, 6, 2, 0, 1, 2, 3],
            [1, 2, 2, 5, 4, 4, 1, 1],
            [3, 200, 70, 3, 2, 0, 10, 60],
            [0, 4, 2, 3, 1, 1, 0, 2],
        ] {
            let windows = time + left + right + 1 - taps;
            let by = Windows { time, channels, taps, left, windows, first, count };
            let mut x = vec![0.0; batch * time * channels];
            Rng::new(1).fill_normal(&mut x, 0.0, 1.0);
            let mut u = vec![9.0; batch * windows * count * taps];
            with_threads(2, || unfold(&mut u, &x, &by));
            let mut du = vec![0.0; u.len()];
            Rng::new(2).fill_normal(&mut du, 0.0, 1.0);
            let mut dx = vec![7.0; x.len()];
            with_threads(2, || fold(&mut dx, &du, &by));
            let mut sums = vec![0f64; x.len()];
            for (i, u) in u.iter().enumerate() {
                let (b, t, c, j) = (i / taps / count / windows, i / taps / count % windows, i / taps % count, i % taps);
                let step = (t + j) as i64 - left as i64;
                if (0..time as i64).contains(&step) {
                    let at = (b * time + step as usize) * channels + first + c;
                    assert_eq!(*u, x[at]);
                    sums[at] += f64::from(du[i]);
                } else {
                    assert_eq!(*u, 0.0);
                }
            }
            for (at, dx) in dx.iter().enumerate() {
                let inside = (first..first + count).contains(&(at % channels));
                let truth = if inside { sums[at] } else { 7.0 };
                // At most five terms of a few units.
                assert!((f64::from(*dx) - truth).abs() < 4e-6, "{dx} {truth}");
            }
        }
    }
}
