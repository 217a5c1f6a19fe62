//! Axes: which values get a tick, and how a tick is written.

/// A linear axis from data values to pixels.
#[derive(Clone, Copy, Debug)]
pub(super) struct Scale {
    pub low: f64,
    pub high: f64,
    pub from: f64,
    pub to: f64,
}

impl Scale {
    pub(super) fn pixel(&self, value: f64) -> f64 {
        self.from + (value - self.low) / (self.high - self.low) * (self.to - self.from)
    }
}

/// Round values within the range, about `count` of them, and their distance.
pub(super) fn ticks(low: f64, high: f64, count: usize) -> (Vec<f64>, f64) {
    let rough = (high - low) / count.max(1) as f64;
    let power = 10f64.powf(rough.log10().floor());
    let step = [1.0, 2.0, 5.0].iter().map(|m| m * power).find(|step| *step >= rough * 0.999).unwrap_or(10.0 * power);
    let first = (low / step - 1e-9).ceil();
    // Multiples instead of sums: no rounding adds up.
    let ticks = (0..=4 * count).map(|n| (first + n as f64) * step).take_while(|tick| *tick <= high + 1e-9 * step);
    (ticks.collect(), step)
}

/// A range that holds all values with some air, and is never empty.
pub(super) fn range(values: impl Iterator<Item = f64>, from_zero: bool) -> (f64, f64) {
    let (mut low, mut high) =
        values.fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), v| (low.min(v), high.max(v)));
    if low > high {
        return (0.0, 1.0);
    }
    if from_zero {
        low = low.min(0.0);
    }
    if high - low <= 1e-12 * high.abs().max(1e-300) {
        // A constant: put it in the middle.
        let half = if high == 0.0 { 1.0 } else { high.abs() * 0.5 };
        (low, high) = (low - half, high + half);
    }
    let air = (high - low) * 0.05;
    (if from_zero && low == 0.0 { 0.0 } else { low - air }, high + air)
}

/// A tick's label: as many digits as the distance of the ticks needs.
pub(super) fn label(value: f64, step: f64) -> String {
    if value == 0.0 {
        return "0".into();
    }
    let size = value.abs();
    if size >= 1e4 {
        for (unit, name) in [(1e9, "B"), (1e6, "M"), (1e3, "k")] {
            if size >= unit {
                return format!("{}{name}", trimmed(value / unit, 3));
            }
        }
    }
    if size < 1e-3 {
        return format!("{value:.1e}").replace(".0e", "e");
    }
    let digits = (-step.log10().floor()).clamp(0.0, 6.0) as usize;
    trimmed(value, digits)
}

fn trimmed(value: f64, digits: usize) -> String {
    let text = format!("{value:.digits$}");
    if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.').to_owned() } else { text }
}
