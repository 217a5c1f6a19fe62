//! Embedding look-up: rows gathered from a table of any float format, and the gradient scattered back.

use crate::chunk::{self, Parts};
use crate::elementwise::{self, bf16_to_f32_isa, f16_to_f32_isa};
use crate::product::MatRef;
use crate::threads;

/// An id that the table has no row for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IdError {
    /// The place of the id.
    pub position: usize,
    /// The id.
    pub id: u32,
    /// How many rows the table has.
    pub rows: usize,
}

impl std::fmt::Display for IdError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { position, id, rows } = self;
        write!(f, "id {id} at position {position}: the table has {rows} rows; do tokenizer and model belong together?")
    }
}

impl std::error::Error for IdError {}

fn check(name: &str, len: usize, table: usize, ids: &[u32], dim: usize) -> Result<(), IdError> {
    assert!(
        dim > 0 && len == ids.len() * dim && table.is_multiple_of(dim),
        "{name}: {} ids, dim={dim}, {len} values, a table of {table}",
        ids.len()
    );
    let rows = table / dim;
    match ids.iter().position(|id| *id as usize >= rows) {
        Some(position) => Err(IdError { position, id: ids[position], rows }),
        None => Ok(()),
    }
}

/// `y[ids, dim]`: the rows `ids` of `table[rows, dim]`.
///
/// # Errors
/// An id is not below `rows`; nothing has been written then.
pub fn gather(y: &mut [f32], table: MatRef, ids: &[u32], dim: usize) -> Result<(), IdError> {
    check("gather", y.len(), table.len(), ids, dim)?;
    chunk::each_mut(y, dim, |at, y| {
        for (y, &id) in y.chunks_exact_mut(dim).zip(&ids[at / dim..]) {
            let row = id as usize * dim..(id as usize + 1) * dim;
            match table {
                MatRef::F32(table) => y.copy_from_slice(&table[row]),
                MatRef::Bf16(table) => bf16_to_f32_isa(y, &table[row]),
                MatRef::F16(table) => f16_to_f32_isa(y, &table[row]),
                MatRef::Blocks(table) => table.slice(row).widen(y),
                MatRef::Bytes(table) => table.widen(row, y),
            }
        }
    });
    Ok(())
}

/// Columns per piece of [`scatter_add`]: 512 bytes, so that pieces share few cache lines and 768 columns make six.
const COLUMNS: usize = 128;

/// `dtable[ids[i]] += dy[i]` for every `i`: the gradient of [`gather`], in the order of the ids whatever the threads.
///
/// # Errors
/// An id is not below the table's rows; nothing has been added then.
pub fn scatter_add(dtable: &mut [f32], dy: &[f32], ids: &[u32], dim: usize) -> Result<(), IdError> {
    check("scatter_add", dy.len(), dtable.len(), ids, dim)?;
    // Threads share out the columns: no element is written by two, and each sums in the order of the ids.
    let table = Parts::new(dtable);
    threads::for_each(dim.div_ceil(COLUMNS), dy.len() * 4, |piece| {
        let columns = piece * COLUMNS..dim.min((piece + 1) * COLUMNS);
        for (dy, &id) in dy.chunks_exact(dim).zip(ids) {
            let at = id as usize * dim;
            // SAFETY: these columns belong to this piece alone, and the rows come one after another.
            let row = unsafe { table.at(at + columns.start..at + columns.end) };
            for (sum, &dy) in row.iter_mut().zip(&dy[columns.clone()]) {
                *sum += dy;
            }
        }
    });
    Ok(())
}

/// A copy of `table` in f32.
pub fn widen(y: &mut [f32], table: MatRef) {
    match table {
        MatRef::F32(table) => y.copy_from_slice(table),
        MatRef::Bf16(table) => elementwise::bf16_to_f32(y, table),
        MatRef::F16(table) => elementwise::f16_to_f32(y, table),
        MatRef::Blocks(table) => table.widen_rows(y),
        MatRef::Bytes(table) => table.widen(0..table.sizes().iter().product(), y),
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use super::*;
    use crate::rng::Rng;
    use half::{bf16, f16};

    #[test]
    fn gathers_and_scatters_what_plain_loops_do() {
        for (rows, dim, n) in [(1, 1, 3), (7, 5, 20), (300, 130, 999), (50, 770, 64)] {
            let mut table = vec![0.0; rows * dim];
            Rng::new(3).fill_normal(&mut table, 0.0, 1.0);
            let mut rng = Rng::new(4);
            let ids: Vec<u32> = (0..n).map(|_| rng.below(rows as u64) as u32).collect();
            let brains: Vec<bf16> = table.iter().map(|x| bf16::from_f32(*x)).collect();
            let halves: Vec<f16> = table.iter().map(|x| f16::from_f32(*x)).collect();
            for table in [MatRef::F32(&table), MatRef::Bf16(&brains), MatRef::F16(&halves)] {
                let mut y = vec![9.0; n * dim];
                gather(&mut y, table, &ids, dim).unwrap();
                assert!((0..n * dim).all(|i| y[i] == table.get(ids[i / dim] as usize * dim + i % dim)));
                let mut wide = vec![9.0; rows * dim];
                widen(&mut wide, table);
                assert!((0..rows * dim).all(|i| wide[i] == table.get(i)));
            }
            let mut dy = vec![0.0; n * dim];
            rng.fill_normal(&mut dy, 0.0, 1.0);
            let mut expect = table.clone();
            for (i, dy) in dy.iter().enumerate() {
                expect[ids[i / dim] as usize * dim + i % dim] += dy;
            }
            // The same order of additions: the same bits.
            scatter_add(&mut table, &dy, &ids, dim).unwrap();
            assert_eq!(table, expect);
        }
    }

    #[test]
    fn an_id_outside_is_an_error_and_changes_nothing() {
        let mut y = [7.0; 4];
        let error = gather(&mut y, MatRef::F32(&[1.0; 6]), &[2, 3], 2).unwrap_err();
        assert_eq!(error, IdError { position: 1, id: 3, rows: 3 });
        assert!(error.to_string().contains("id 3 at position 1"), "{error}");
        let mut table = [1.0; 6];
        assert!(scatter_add(&mut table, &y, &[0, u32::MAX], 2).is_err());
        assert!(y == [7.0; 4] && table == [1.0; 6]);
    }
}
