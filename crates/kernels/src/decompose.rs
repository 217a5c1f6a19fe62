//! Matrices taken apart: leading singular directions and orthonormal columns, by a library of linear algebra. Done once per
//! matrix, before training or when adapters are joined, and so in f64 throughout.

use nalgebra::{DMatrix, SymmetricEigen};

use crate::rng::Rng;

/// The leading part of a singular value decomposition, largest first: `left · diag(values) · right` is the nearest matrix of
/// that rank (Eckart and Young 1936).
#[derive(Clone, Debug, PartialEq)]
pub struct Leading {
    /// `[rows, rank]`, orthonormal columns; 0 where the value is.
    pub left: Vec<f32>,
    /// `[rank]`.
    pub values: Vec<f32>,
    /// `[rank, columns]`, orthonormal rows.
    pub right: Vec<f32>,
}

/// A value below this share of the largest is rounding: its direction on the other side is not known.
const NOTHING: f64 = 1e-9;

/// The `rank` leading singular directions of `values[rows, columns]`; at most as many as the shorter side has.
pub fn leading(values: &[f32], [rows, columns]: [usize; 2], rank: usize) -> Leading {
    of_matrix(&matrix(values, [rows, columns]), rank)
}

/// As [`leading`], nearly: in a random subspace that is brought towards the leading one `rounds` times (Halko et al. 2011,
/// algorithms 4.4 and 5.1). Costs `rank` products with the matrix rather than as many as it has columns.
pub fn leading_near(
    values: &[f32],
    [rows, columns]: [usize; 2],
    [rank, width]: [usize; 2],
    rounds: usize,
    rng: &mut Rng,
) -> Leading {
    let whole = matrix(values, [rows, columns]);
    let width = width.clamp(rank, rows.min(columns).max(rank));
    let mut draws = vec![0f32; columns * width];
    rng.fill_normal(&mut draws, 0., 1.);
    let mut basis = (&whole * matrix(&draws, [columns, width])).qr().q(); // [rows, width]
    for _ in 0..rounds {
        let across = whole.tr_mul(&basis).qr().q(); // [columns, width]
        basis = (&whole * across).qr().q();
    }
    let within = of_matrix(&basis.tr_mul(&whole), rank); // of [width, columns]
    let left = &basis * matrix(&within.left, [basis.ncols(), within.values.len()]);
    Leading { left: by_rows(&left), ..within }
}

/// The first `rank` columns of `values[rows, columns]` made orthonormal, `q[rows, rank]`, and `qᵀ values`,
/// `[rank, columns]`: the leading part of a QR decomposition.
pub fn orthonormal(values: &[f32], [rows, columns]: [usize; 2], rank: usize) -> [Vec<f32>; 2] {
    let whole = matrix(values, [rows, columns]);
    let q = whole.columns(0, rank.min(columns)).into_owned().qr().q();
    [by_rows(&q), by_rows(&q.tr_mul(&whole))]
}

fn matrix(values: &[f32], [rows, columns]: [usize; 2]) -> DMatrix<f64> {
    DMatrix::from_fn(rows, columns, |row, column| f64::from(values[row * columns + column]))
}

fn by_rows(matrix: &DMatrix<f64>) -> Vec<f32> {
    matrix.row_iter().flat_map(|row| row.iter().map(|&x| x as f32).collect::<Vec<_>>()).collect()
}

/// Through the eigenvectors of the smaller of `m mᵀ` and `mᵀ m`: f64 leaves the leading directions of f32 numbers exact.
fn of_matrix(m: &DMatrix<f64>, rank: usize) -> Leading {
    let wide = m.nrows() <= m.ncols();
    let square = if wide { m * m.transpose() } else { m.tr_mul(m) };
    let eigen = SymmetricEigen::new(square);
    let mut order: Vec<usize> = (0..eigen.eigenvalues.len()).collect();
    order.sort_by(|&a, &b| eigen.eigenvalues[b].total_cmp(&eigen.eigenvalues[a]));
    order.truncate(rank);
    let near = DMatrix::from_fn(m.nrows().min(m.ncols()), order.len(), |row, at| eigen.eigenvectors[(row, order[at])]);
    let values: Vec<f64> = order.iter().map(|&at| eigen.eigenvalues[at].max(0.).sqrt()).collect();
    let least = values.first().copied().unwrap_or(0.) * NOTHING;
    let mut far = if wide { m.tr_mul(&near) } else { m * &near };
    for (mut column, &value) in far.column_iter_mut().zip(&values) {
        column.scale_mut(if value > least { value.recip() } else { 0. });
    }
    let (left, right) = if wide { (near, far) } else { (far, near) };
    Leading {
        left: by_rows(&left),
        values: values.into_iter().map(|value| value as f32).collect(),
        right: by_rows(&right.transpose()),
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    fn random([rows, columns]: [usize; 2], seed: u64) -> Vec<f32> {
        let mut values = vec![0.; rows * columns];
        Rng::new(seed).fill_normal(&mut values, 0., 1.);
        values
    }

    fn product(found: &Leading, shape: [usize; 2]) -> Vec<f32> {
        let rank = found.values.len();
        let left = matrix(&found.left, [shape[0], rank]);
        let scale = DMatrix::from_fn(rank, rank, |i, j| if i == j { f64::from(found.values[i]) } else { 0. });
        by_rows(&(left * scale * matrix(&found.right, [rank, shape[1]])))
    }

    fn apart(a: &[f32], b: &[f32]) -> f32 {
        assert_eq!(a.len(), b.len());
        a.iter().zip(b).map(|(a, b)| (a - b).abs()).fold(0., f32::max)
    }

    #[test]
    fn all_directions_make_the_matrix_again() {
        for shape in [[5, 3], [3, 5], [4, 4], [1, 6], [6, 1], [17, 9]] {
            let values = random(shape, 1);
            let found = leading(&values, shape, 99);
            assert_eq!(found.values.len(), shape[0].min(shape[1]));
            assert!(found.values.is_sorted_by(|a, b| a >= b));
            assert!(apart(&product(&found, shape), &values) < 1e-5, "{shape:?}");
        }
    }

    #[test]
    fn leading_directions_are_those_of_the_library() {
        for shape in [[7, 12], [12, 7]] {
            let values = random(shape, 2);
            let theirs = matrix(&values, shape).svd(true, true);
            let found = leading(&values, shape, 3);
            let expected: Vec<f32> = theirs.singular_values.iter().take(3).map(|&x| x as f32).collect();
            assert!(apart(&found.values, &expected) < 1e-5);
            let left = theirs.u.unwrap().columns(0, 3).into_owned();
            let scaled = left * DMatrix::from_diagonal(&theirs.singular_values.rows(0, 3).into_owned());
            let expected = by_rows(&(scaled * theirs.v_t.unwrap().rows(0, 3)));
            assert!(apart(&product(&found, shape), &expected) < 1e-5);
        }
    }

    #[test]
    fn a_random_subspace_comes_near_the_leading_one() {
        for shape in [[40, 30], [30, 40]] {
            let values = random(shape, 3);
            let exact = product(&leading(&values, shape, 4), shape);
            let near = |rounds| {
                let found = leading_near(&values, shape, [4, 4], rounds, &mut Rng::new(4));
                apart(&product(&found, shape), &exact)
            };
            assert!(near(200) < 1e-4 && near(200) < near(1), "{} {}", near(1), near(200));
        }
    }

    #[test]
    fn fewer_directions_than_asked_for_are_told_from_rounding() {
        // Of rank 1: every row is a multiple of the first.
        let row = random([1, 6], 5);
        let values: Vec<f32> = (1..=4).flat_map(|times| row.iter().map(move |x| x * times as f32)).collect();
        let found = leading(&values, [4, 6], 3);
        assert!(found.values[1] < 1e-5 * found.values[0]);
        assert!(apart(&product(&found, [4, 6]), &values) < 1e-5);
        assert!(leading(&[0.; 12], [3, 4], 2).left.iter().chain(&found.left).all(|x| x.is_finite()));
    }

    #[test]
    fn orthonormal_columns_give_the_first_columns_back() {
        for shape in [[6, 9], [9, 6]] {
            let values = random(shape, 6);
            let [q, r] = orthonormal(&values, shape, 3);
            let (q, r) = (matrix(&q, [shape[0], 3]), matrix(&r, [3, shape[1]]));
            let unit = q.tr_mul(&q) - DMatrix::identity(3, 3);
            assert!(unit.amax() < 1e-6);
            let first = (q * r).columns(0, 3) - matrix(&values, shape).columns(0, 3);
            assert!(first.amax() < 1e-5);
        }
    }
}
