//! How far a share may be from the truth, for so few trials.

/// The standard normal distribution's 97.5th percentile.
const Z: f64 = 1.959_963_984_540_054;

/// The 95 % confidence interval of a share of `successes` in `trials` (Wilson 1927): unlike the normal one it stays within 0 and
/// 1, and says something where none or all succeed. Everything, where nothing was tried.
pub fn wilson(successes: u64, trials: u64) -> (f64, f64) {
    if trials == 0 {
        return (0., 1.);
    }
    let (n, p) = (trials as f64, successes.min(trials) as f64 / trials as f64);
    let middle = p + Z * Z / (2. * n);
    let half = Z * (p * (1. - p) / n + Z * Z / (4. * n * n)).sqrt();
    let scale = 1. + Z * Z / n;
    // Exact at the ends, where rounding would leave a trace.
    let low = if successes == 0 { 0. } else { (middle - half) / scale };
    let high = if successes >= trials { 1. } else { (middle + half) / scale };
    (low, high)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_interval_is_that_of_scipy() {
        // scipy 1.17.1, binomtest(k, n).proportion_ci(method="wilson").
        for (successes, trials, low, high) in [
            (0, 10, 0., 0.277_532_799_862_889_5),
            (5, 10, 0.236_593_090_512_564_5, 0.763_406_909_487_435_6),
            (10, 10, 0.722_467_200_137_110_5, 1.),
            (923, 1000, 0.904_810_469_381_826_2, 0.937_952_092_939_394_1),
        ] {
            let found = wilson(successes, trials);
            assert!((found.0 - low).abs() < 1e-12 && (found.1 - high).abs() < 1e-12, "{successes}/{trials}: {found:?}");
        }
        assert_eq!((wilson(0, 0), wilson(0, 6).0, wilson(6, 6).1), ((0., 1.), 0., 1.));
    }
}
