//! Which examples share a row: best fit, the longest first (Ding et al. 2024, "Fewer Truncations Improve Language
//! Modeling").

use std::cmp::Reverse;
use std::collections::{BTreeMap, VecDeque};

/// Puts examples of these lengths, each at most `room`, into rows of `room` tokens; none is cut.
pub fn pack(lengths: &[usize], room: usize) -> Vec<Vec<u32>> {
    let mut order: Vec<usize> = (0..lengths.len()).collect();
    order.sort_by_key(|&index| Reverse(lengths[index]));
    let mut rows: Vec<Vec<u32>> = vec![];
    // Rows by the space that is left in them.
    let mut spaces: BTreeMap<usize, VecDeque<usize>> = BTreeMap::new();
    for index in order {
        let length = lengths[index];
        let tightest = spaces.range(length..).next().map(|(&space, _)| space);
        let row = tightest.and_then(|space| {
            let rows = spaces.get_mut(&space)?;
            let row = rows.pop_front();
            if rows.is_empty() {
                spaces.remove(&space);
            }
            row.map(|row| (row, space))
        });
        let (row, space) = row.unwrap_or_else(|| {
            rows.push(vec![]);
            (rows.len() - 1, room)
        });
        rows[row].push(index as u32);
        spaces.entry(space.saturating_sub(length)).or_default().push_back(row);
    }
    rows
}

#[cfg(test)]
mod tests {
    use super::pack;

    #[test]
    fn the_longest_come_first_and_each_into_the_tightest_row() {
        assert_eq!(pack(&[3, 8, 5, 2, 7, 3], 10), [vec![1, 3], vec![4, 0], vec![2, 5]]);
        assert_eq!(pack(&[10, 1], 10), [[0], [1]]);
        assert_eq!(pack(&[], 4), Vec::<Vec<u32>>::new());
        let lengths: Vec<usize> = (0..1000).map(|at| 1 + at * 37 % 64).collect();
        let rows = pack(&lengths, 64);
        let mut seen: Vec<u32> = rows.concat();
        seen.sort_unstable();
        assert!(seen.iter().copied().eq(0..1000));
        assert!(rows.iter().all(|row| row.iter().map(|&at| lengths[at as usize]).sum::<usize>() <= 64));
        assert!(rows.len() * 64 < lengths.iter().sum::<usize>() * 102 / 100, "{}", rows.len());
    }
}
