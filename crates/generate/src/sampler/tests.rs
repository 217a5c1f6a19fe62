//! Picks and draws: ties, damage, frequencies.
#![expect(clippy::unwrap_used, reason = "tests")]

use super::*;

#[test]
fn greedy_takes_the_lowest_of_the_largest() {
    assert_eq!(greedy(&[1., 3., 2., 3.]).unwrap(), 1);
    assert_eq!(greedy(&[f32::NEG_INFINITY, -5., -5.]).unwrap(), 1);
    let mut row = vec![0.; 1000];
    (row[777], row[776]) = (1., 1.);
    assert_eq!(greedy(&row).unwrap(), 776);
}

#[test]
fn damaged_logits_are_errors() {
    let rng = Rng::new(0);
    for row in [vec![1., f32::NAN], vec![f32::NAN; 40], vec![f32::INFINITY, 0.], vec![f32::NEG_INFINITY; 3], vec![]] {
        assert!(greedy(&row).is_err(), "{row:?}");
        assert!(draw(&row, &rng, 0).is_err(), "{row:?}");
    }
}

#[test]
fn a_draw_depends_on_stream_and_step_alone() {
    let row: Vec<f32> = (0..50).map(|i| (i % 7) as f32 * 0.3).collect();
    let rng = Rng::new(3).split(5);
    let once: Vec<u32> = (0..40).map(|step| draw(&row, &rng, step).unwrap()).collect();
    let backwards: Vec<u32> = (0..40).rev().map(|step| draw(&row, &rng, step).unwrap()).collect();
    assert!(once.iter().eq(backwards.iter().rev()));
    let other: Vec<u32> = (0..40).map(|step| draw(&row, &Rng::new(3).split(6), step).unwrap()).collect();
    assert_ne!(once, other);
}

#[test]
fn what_is_ruled_out_is_never_drawn() {
    let row = [f32::NEG_INFINITY, 0., f32::NEG_INFINITY, -200., f32::NEG_INFINITY];
    for step in 0..1000 {
        assert_eq!(draw(&row, &Rng::new(1), step).unwrap(), 1);
    }
}

#[test]
fn frequencies_follow_the_distribution() {
    let row = [0.3f32, -1., 2., 0., 1.2, -3., 0.7, 1.9];
    let (weights, total) = weights(&row);
    let draws = 20_000;
    let mut counts = [0u32; 8];
    // Half of the draws along a stream, half across streams: both are how they are used.
    let rng = Rng::new(42);
    for i in 0..draws / 2 {
        counts[draw(&row, &rng, i).unwrap() as usize] += 1;
        counts[draw(&row, &rng.split(i), 0).unwrap() as usize] += 1;
    }
    let chi: f64 = counts.iter().zip(weights).fold(0., |sum, (&count, weight)| {
        let expected = f64::from(weight) / total * draws as f64;
        sum + (f64::from(count) - expected).powi(2) / expected
    });
    // Chi-square with 7 degrees of freedom lies below 24.3 in 999 of 1000 experiments; this one is fixed by its seed.
    assert!(chi < 24.3, "{chi}, {counts:?}");
    // And it is random: a stratified or repeated draw would fit far too well.
    assert!(chi > 0.6, "{chi}, {counts:?}");
}
