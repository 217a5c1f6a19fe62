//! The best of many, against a full sort; draws against their probabilities.

use phyla_kernels::rng::Rng;

use super::*;

fn taken(best: &mut Best) -> Vec<(usize, u32, f32)> {
    let mut into = vec![];
    best.take(&mut into);
    into.iter().map(|c| (c.beam, c.id, c.score)).collect()
}

#[test]
fn the_best_equal_those_of_a_full_sort() {
    let mut rng = Rng::new(3);
    // Few different values: ties everywhere, also at the border. Some ids are ruled out.
    for (vocab, levels) in [(1000, 50.), (129, 5.), (7, 3.), (4000, 1e6)] {
        let value = |rng: &mut Rng| (rng.next_f32() * levels).floor() - levels;
        let rows: Vec<Vec<f32>> = (0..3).map(|_| (0..vocab).map(|_| value(&mut rng)).collect()).collect();
        for count in [1, 2, 8, 40] {
            let mut best = Best::new(count);
            // Twice: it begins anew.
            for bases in [[0., -1., -2.], [-1., f32::NEG_INFINITY, 0.]] {
                let mut all: Vec<(usize, u32, f32)> = vec![];
                for (beam, row) in rows.iter().enumerate() {
                    all.extend(row.iter().enumerate().map(|(id, x)| (beam, id as u32, x + bases[beam])));
                }
                all.retain(|x| x.2 > f32::NEG_INFINITY);
                all.sort_by(|a, b| b.2.total_cmp(&a.2));
                all.truncate(count);
                // The order in which beams are offered decides nothing.
                for beam in [2, 0, 1] {
                    best.offer(beam, bases[beam], &rows[beam]);
                }
                assert_eq!(taken(&mut best), all, "{count} of {vocab}");
            }
        }
    }
}

#[test]
fn draws_come_with_their_probabilities_and_without_replacement() {
    let probabilities = [0.5f32, 0.25, 0.15, 0.1];
    let row = probabilities.map(f32::ln);
    let mut best = Best::new(2);
    let (mut first, mut second, draws) = ([0; 4], [0; 4], 20_000);
    for step in 0..draws {
        best.draw(0, -3., &[row[0], row[1], f32::NEG_INFINITY, row[2], row[3]], &Rng::new(1).split(step));
        let drawn = taken(&mut best);
        let place = |id: u32| if id > 2 { id as usize - 1 } else { id as usize };
        assert!(drawn.len() == 2 && drawn[0].1 != drawn[1].1 && drawn.iter().all(|d| d.1 != 2));
        assert_eq!(drawn[0].2, row[place(drawn[0].1)] - 3.);
        first[place(drawn[0].1)] += 1;
        second[place(drawn[1].1)] += 1;
    }
    for (id, &p) in probabilities.iter().enumerate() {
        // Second: after another one, whose probability is then shared out.
        let after: f32 = (0..4).filter(|&o| o != id).map(|o| probabilities[o] * p / (1. - probabilities[o])).sum();
        for (count, p) in [(first[id], p), (second[id], after)] {
            // Four standard deviations of a count.
            let expected = p * draws as f32;
            assert!((count as f32 - expected).abs() < 4. * (expected * (1. - p)).sqrt(), "{id}: {count}, {expected}");
        }
    }
}
