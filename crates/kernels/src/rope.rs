//! Rotary position embedding (Su et al., "RoFormer", 2021, section 3.2): pairs of features turned by the position.

use crate::chunk;
use crate::vector::per_isa;

/// Which features form pair `i` of `half = rotary_dim / 2`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Style {
    /// `(i, i + half)`: Hugging Face's `rotate_half`, GPT-NeoX, Llama as converted there.
    Half,
    /// `(2 i, 2 i + 1)`: the paper's, GPT-J, DeepSeek-V2, Llama's own weights.
    Interleaved,
}

/// Cosines and sines of every position: `[positions, half]` each, with any scaling of attention folded in.
#[derive(Clone, Copy, Debug)]
pub struct Table<'a> {
    /// `cos(position * frequency)`.
    pub cos: &'a [f32],
    /// `sin(position * frequency)`.
    pub sin: &'a [f32],
}

/// The shape and manner of one rotation.
#[derive(Clone, Copy, Debug)]
pub struct Rope {
    /// Heads of a row.
    pub heads: usize,
    /// Features of a head.
    pub dim: usize,
    /// How many of them, from the first, are turned; even, at most `dim`; the rest pass unchanged.
    pub rotary_dim: usize,
    /// The pairing.
    pub style: Style,
    /// Turn back: the gradient of the rotation.
    pub inverse: bool,
}

impl Rope {
    fn check(&self, len: usize, table: Table, positions: &[u32]) {
        let half = self.rotary_dim / 2;
        assert!(
            self.rotary_dim.is_multiple_of(2) && self.rotary_dim <= self.dim && self.rotary_dim > 0,
            "rope: rotary_dim {} must be even, at least 2 and at most dim {}",
            self.rotary_dim,
            self.dim
        );
        assert!(
            len == positions.len() * self.heads * self.dim,
            "rope: {} rows of {} heads of {} do not make {len} values",
            positions.len(),
            self.heads,
            self.dim
        );
        let known = table.cos.len() / half;
        assert!(table.sin.len() == table.cos.len() && table.cos.len() == known * half, "rope: tables of unequal size");
        let last = positions.iter().max().map_or(0, |p| *p as usize + 1);
        assert!(last <= known, "rope: position {} is beyond the table of {known}", last.saturating_sub(1));
    }
}

/// Turns `x[rows, heads, dim]` in place; row `r` is at `positions[r]`.
pub fn rope(x: &mut [f32], table: Table, positions: &[u32], rope: &Rope) {
    rope.check(x.len(), table, positions);
    let (row, half) = (rope.heads * rope.dim, rope.rotary_dim / 2);
    chunk::each_mut(x, row, |at, x| {
        for (x, &position) in x.chunks_exact_mut(row).zip(&positions[at / row..]) {
            let at = position as usize * half;
            turn(x, &table.cos[at..at + half], &table.sin[at..at + half], rope);
        }
    });
}

/// As [`rope`], from `x` into `y`.
pub fn rope_into(y: &mut [f32], x: &[f32], table: Table, positions: &[u32], rope: &Rope) {
    assert!(y.len() == x.len(), "rope_into: {} values into {}", x.len(), y.len());
    rope.check(x.len(), table, positions);
    let (row, half) = (rope.heads * rope.dim, rope.rotary_dim / 2);
    chunk::each_mut(y, row, |at, y| {
        let rows = y.chunks_exact_mut(row).zip(x[at..].chunks_exact(row));
        for ((y, x), &position) in rows.zip(&positions[at / row..]) {
            // A row fits L1: turning the copy costs no memory traffic.
            y.copy_from_slice(x);
            let at = position as usize * half;
            turn(y, &table.cos[at..at + half], &table.sin[at..at + half], rope);
        }
    });
}

#[inline(always)]
fn turn_loop(x: &mut [f32], cos: &[f32], sin: &[f32], rope: &Rope) {
    let (half, sign) = (cos.len(), if rope.inverse { -1.0 } else { 1.0 });
    for head in x.chunks_exact_mut(rope.dim) {
        match rope.style {
            Style::Half => {
                let (low, high) = head.split_at_mut(half);
                for (((a, b), &cos), &sin) in low.iter_mut().zip(high).zip(cos).zip(sin) {
                    let (x, y, sin) = (*a, *b, sin * sign);
                    *a = x * cos - y * sin;
                    *b = y * cos + x * sin;
                }
            }
            Style::Interleaved => {
                let (pairs, _) = head.as_chunks_mut::<2>();
                for ((pair, &cos), &sin) in pairs.iter_mut().zip(cos).zip(sin) {
                    let ([x, y], sin) = (*pair, sin * sign);
                    *pair = [x * cos - y * sin, y * cos + x * sin];
                }
            }
        }
    }
}

per_isa! { fn turn(x: &mut [f32], cos: &[f32], sin: &[f32], rope: &Rope) = plain turn_loop; }

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rng::Rng;

    fn table(positions: usize, half: usize) -> (Vec<f32>, Vec<f32>) {
        let angles = || {
            (0..positions * half).map(move |i| ((i / half) as f64) * 10_000f64.powf(-((i % half) as f64) / half as f64))
        };
        (angles().map(|a| a.cos() as f32).collect(), angles().map(|a| a.sin() as f32).collect())
    }

    #[test]
    fn turns_each_pair_by_its_angle_and_back() {
        for (heads, dim, rotary_dim) in [(1, 2, 2), (3, 10, 6), (2, 66, 66), (12, 64, 32)] {
            for style in [Style::Half, Style::Interleaved] {
                let positions: Vec<u32> = (0..37).map(|i| i * 7 % 23).collect();
                let (cos, sin) = table(23, rotary_dim / 2);
                let table = Table { cos: &cos, sin: &sin };
                let mut x = vec![0.0; positions.len() * heads * dim];
                Rng::new(9).fill_normal(&mut x, 0.0, 1.0);
                let spec = Rope { heads, dim, rotary_dim, style, inverse: false };
                let mut y = vec![0.0; x.len()];
                rope_into(&mut y, &x, table, &positions, &spec);
                let half = rotary_dim / 2;
                for at in 0..x.len() / dim {
                    let (position, head) = (positions[at / heads] as usize, &x[at * dim..(at + 1) * dim]);
                    let mut expect = head.to_vec();
                    for i in 0..half {
                        let (a, b) = if style == Style::Half { (i, i + half) } else { (2 * i, 2 * i + 1) };
                        let angle = position as f64 * 10_000f64.powf(-(i as f64) / half as f64);
                        let (p, q) = (f64::from(head[a]), f64::from(head[b]));
                        expect[a] = (p * angle.cos() - q * angle.sin()) as f32;
                        expect[b] = (q * angle.cos() + p * angle.sin()) as f32;
                    }
                    // Rounded tables and two products: a few ulps of values near 1.
                    assert!(y[at * dim..].iter().zip(&expect).all(|(y, e)| (y - e).abs() < 2e-6));
                }
                let mut same = x.clone();
                rope(&mut same, table, &positions, &spec);
                assert_eq!(same, y);
                rope(&mut same, table, &positions, &Rope { inverse: true, ..spec });
                assert!(same.iter().zip(&x).all(|(a, b)| (a - b).abs() < 2e-6));
            }
        }
    }

    #[test]
    #[should_panic(expected = "position 4 is beyond the table of 4")]
    fn a_position_beyond_the_table_is_named() {
        let (cos, sin) = table(4, 1);
        let spec = Rope { heads: 1, dim: 2, rotary_dim: 2, style: Style::Half, inverse: false };
        rope(&mut [0.0; 2], Table { cos: &cos, sin: &sin }, &[4], &spec);
    }
}
