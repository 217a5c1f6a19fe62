//! How far directions are from orthonormal.

use std::sync::Arc;

use phyla_ops::{Directions, Param, Tensor, Weight, cpu, orthogonality};

use crate::check::{Case, param};

#[test]
fn rows_and_columns_of_one_matrix_and_of_several() {
    let rows = |_: &[Tensor], p: &[Arc<Param>]| orthogonality(Directions::Rows(&p[0]), 0.7);
    let columns = |_: &[Tensor], p: &[Arc<Param>]| orthogonality(Directions::Columns(p), 0.7);
    for (count, len) in [(1, 1), (1, 9), (4, 16), (5, 33), (12, 130)] {
        let three = vec![param(1, &[len, count]), param(2, &[len, count]), param(3, &[2 * len, count])];
        for mut case in [
            Case::new(format!("rows {count} {len}"), vec![], vec![param(1, &[count, len])], &rows),
            Case::new(format!("columns {count} {len}"), vec![], vec![param(1, &[len, count])], &columns),
            Case::new(format!("columns of three {count} {len}"), vec![], three, &columns),
        ] {
            // Parameters are read as f32, and differences of so large a norm are then exact to some 1e-4 alone.
            case.numeric = false;
            case.check();
        }
    }
}

#[test]
fn what_is_orthonormal_has_no_slope_and_what_does_not_fit_is_refused() {
    let numbers: Vec<f32> = (0..15).map(|at| f32::from(at % 6 == 0)).collect();
    let unit = Arc::new(Param::new("w", Weight::Dense(cpu::tensor(numbers, &[3, 5][..]).unwrap())));
    unit.set_trainable(true).unwrap();
    let loss = orthogonality(Directions::Rows(&unit), 1.).unwrap();
    assert_eq!(loss.data().to_scalar::<f32>().unwrap(), 0.);
    loss.backward().unwrap();
    assert!(unit.grad().is_none());
    let message = orthogonality(Directions::Columns(&[unit, param(1, &[3, 4])]), 1.).unwrap_err().to_string();
    assert!(message.contains("expected a matrix of 5 directions, found [3, 4]"), "{message}");
}
