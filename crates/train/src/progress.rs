//! What a run shows while it works: a bar on a terminal, plain lines elsewhere, nothing when quiet.
//!
//! All of it goes to stderr: stdout belongs to data.

use std::io::{IsTerminal, Write};
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};

/// Least time between two plain lines: often enough to see life, rarely enough for a log file.
const LINE_EVERY: Duration = Duration::from_secs(3);

/// Share of the newest value in the smoothed loss and speed that are shown.
const FRESHNESS: f64 = 0.1;

/// The state after a step.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Tick {
    /// Updates made.
    pub step: u64,
    /// Updates in all; an estimate when the run has a time budget.
    pub total: u64,
    /// Training loss of this step.
    pub loss: f64,
    /// Learning rate of this step.
    pub lr: f64,
    /// Tokens of this step.
    pub tokens: u64,
    /// Time left, where the caller knows better than the pace so far (a time budget).
    pub left: Option<Duration>,
    /// Mean reward of the newest roll-out, where the model learns from its own.
    pub reward: Option<f64>,
    /// Its divergence from the reference, in nats.
    pub kl: Option<f64>,
}

/// Shows ticks.
pub struct Progress {
    view: View,
    last_tick: Instant,
    loss: Option<f64>,
    tokens_per_second: Option<f64>,
    seconds_per_step: Option<f64>,
    last_step: u64,
}

enum View {
    Bar(ProgressBar),
    Lines { out: Box<dyn Write + Send>, last: Option<Instant>, every: Duration },
    Hidden,
}

impl Progress {
    /// A bar when stderr is a terminal, lines when it is not, nothing when `quiet`. `step` is where the
    /// run begins, above 0 when it resumes.
    #[must_use]
    pub fn new(step: u64, quiet: bool) -> Self {
        let view = if quiet {
            View::Hidden
        } else if std::io::stderr().is_terminal() {
            let bar = ProgressBar::new(1);
            let style = ProgressStyle::with_template("{bar:24.cyan/238} {percent:>3}%  {msg}");
            bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()).progress_chars("━╸─"));
            View::Bar(bar)
        } else {
            View::Lines { out: Box::new(std::io::stderr()), last: None, every: LINE_EVERY }
        };
        Self::with_view(view, step)
    }

    fn with_view(view: View, last_step: u64) -> Self {
        let last_tick = Instant::now();
        Self { view, last_tick, loss: None, tokens_per_second: None, seconds_per_step: None, last_step }
    }

    /// Shows the state after a step.
    pub fn tick(&mut self, tick: Tick) {
        let elapsed = self.last_tick.elapsed().as_secs_f64().max(1e-9);
        self.last_tick = Instant::now();
        let steps = tick.step.saturating_sub(self.last_step).max(1) as f64;
        self.last_step = tick.step;
        smooth(&mut self.loss, tick.loss);
        smooth(&mut self.tokens_per_second, tick.tokens as f64 / elapsed);
        smooth(&mut self.seconds_per_step, elapsed / steps);
        match &mut self.view {
            View::Hidden => {}
            View::Bar(bar) => {
                bar.set_length(tick.total.max(1));
                bar.set_position(tick.step);
                bar.set_message(describe(&tick, self.loss, self.tokens_per_second, self.seconds_per_step));
            }
            View::Lines { out, last, every } => {
                let due = last.is_none_or(|last| last.elapsed() >= *every) || tick.step == tick.total;
                if due {
                    *last = Some(Instant::now());
                    let text = describe(&tick, self.loss, self.tokens_per_second, self.seconds_per_step);
                    // A closed stderr is no reason to stop training.
                    writeln!(out, "{text}").ok();
                }
            }
        }
    }

    /// Begins the clock anew: time spent on evaluation or saving is not part of a step.
    pub fn skip_time(&mut self) {
        self.last_tick = Instant::now();
    }

    /// Prints a line of its own above the bar, such as an evaluation.
    pub fn note(&mut self, text: &str) {
        match &mut self.view {
            View::Hidden => {}
            View::Bar(bar) => bar.suspend(|| eprintln!("{text}")),
            View::Lines { out, .. } => {
                writeln!(out, "{text}").ok();
            }
        }
    }

    /// Takes the bar away.
    pub fn finish(&mut self) {
        if let View::Bar(bar) = &self.view {
            bar.finish_and_clear();
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.finish();
    }
}

/// Moves an average towards the newest value; a value that is not finite shows at once and does not
/// stick, so that one bad step does not hide all later ones.
fn smooth(average: &mut Option<f64>, value: f64) {
    *average = Some(match *average {
        Some(old) if old.is_finite() && value.is_finite() => old + FRESHNESS * (value - old),
        _ => value,
    });
}

/// `step 120/2000  loss 2.314  lr 9.8e-4  12.3k tokens/s  1m 20s left`
fn describe(tick: &Tick, loss: Option<f64>, tokens_per_second: Option<f64>, seconds_per_step: Option<f64>) -> String {
    let left = tick.left.unwrap_or_else(|| {
        let seconds = seconds_per_step.unwrap_or(0.0) * tick.total.saturating_sub(tick.step) as f64;
        Duration::try_from_secs_f64(seconds).unwrap_or(Duration::MAX)
    });
    let value = |name: &str, value: Option<f64>| value.map_or_else(String::new, |value| format!("  {name} {value:.3}"));
    format!(
        "step {}/{}  loss {:.3}{}{}  lr {}  {} tokens/s  {} left",
        tick.step,
        tick.total,
        loss.unwrap_or(tick.loss),
        value("reward", tick.reward),
        value("kl", tick.kl),
        learning_rate(tick.lr),
        compact(tokens_per_second.unwrap_or(0.0)),
        duration(left),
    )
}

fn learning_rate(lr: f64) -> String {
    if lr == 0.0 { "0".into() } else { format!("{lr:.2e}") }
}

/// Three digits and a unit: `874`, `12.3k`, `4.56M`.
#[must_use]
pub fn compact(value: f64) -> String {
    let (scaled, unit) = match value.abs() {
        v if v >= 999.5e6 => (value / 1e9, "B"),
        v if v >= 999.5e3 => (value / 1e6, "M"),
        v if v >= 999.5 => (value / 1e3, "k"),
        _ => (value, ""),
    };
    let digits = match scaled.abs() {
        v if unit.is_empty() || v >= 99.95 => 0,
        v if v >= 9.995 => 1,
        _ => 2,
    };
    format!("{scaled:.digits$}{unit}")
}

/// The two largest units: `42s`, `3m 05s`, `2h 07m`, `3d 04h`.
#[must_use]
pub fn duration(time: Duration) -> String {
    let seconds = time.as_secs();
    let (minutes, hours, days) = (seconds / 60, seconds / 3600, seconds / 86400);
    match seconds {
        0..60 => format!("{seconds}s"),
        60..3600 => format!("{minutes}m {:02}s", seconds % 60),
        3600..86400 => format!("{hours}h {:02}m", minutes % 60),
        _ if days < 1000 => format!("{days}d {:02}h", hours % 24),
        _ => "more than 1000 days".into(),
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;
    use std::sync::{Arc, Mutex};

    #[derive(Clone, Default)]
    struct Shared(Arc<Mutex<Vec<u8>>>);

    impl Write for Shared {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.lock().unwrap().extend(bytes);
            Ok(bytes.len())
        }
        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    fn lines(every: Duration, ticks: impl IntoIterator<Item = Tick>) -> Vec<String> {
        let out = Shared::default();
        let mut progress = Progress::with_view(View::Lines { out: Box::new(out.clone()), last: None, every }, 0);
        ticks.into_iter().for_each(|tick| progress.tick(tick));
        progress.note("note");
        let bytes = out.0.lock().unwrap().clone();
        String::from_utf8(bytes).unwrap().lines().map(str::to_owned).collect()
    }

    fn tick(step: u64) -> Tick {
        Tick { step, total: 100, loss: 2.5, lr: 1e-3, tokens: 512, ..Tick::default() }
    }

    #[test]
    fn plain_lines_come_first_last_and_rarely_between() {
        let lines = lines(Duration::from_secs(3600), (1..=100).map(tick));
        assert_eq!(lines.len(), 3, "{lines:?}");
        assert!(lines[0].starts_with("step 1/100  loss 2.500  lr 1.00e-3  "), "{}", lines[0]);
        assert!(lines[1].starts_with("step 100/100") && lines[1].ends_with("0s left"), "{}", lines[1]);
        assert_eq!(lines[2], "note");
    }

    #[test]
    fn the_caller_may_know_the_time_left() {
        let lines = lines(Duration::ZERO, [Tick { left: Some(Duration::from_secs(90)), ..tick(1) }]);
        assert!(lines[0].ends_with("1m 30s left"), "{}", lines[0]);
    }

    #[test]
    fn one_bad_loss_does_not_stick() {
        let mut average = None;
        smooth(&mut average, 2.0);
        smooth(&mut average, f64::NAN);
        assert!(average.unwrap().is_nan());
        smooth(&mut average, 3.0);
        assert_eq!(average, Some(3.0));
    }

    #[test]
    fn numbers_are_short() {
        let pairs = [
            (0.0, "0"),
            (874.4, "874"),
            (999.9, "1.00k"),
            (12_345.0, "12.3k"),
            (4_560_000.0, "4.56M"),
            (1.5e9, "1.50B"),
        ];
        for (value, text) in pairs {
            assert_eq!(compact(value), text);
        }
        for (seconds, text) in
            [(42, "42s"), (185, "3m 05s"), (7620, "2h 07m"), (273_600, "3d 04h"), (u64::MAX, "more than 1000 days")]
        {
            assert_eq!(duration(Duration::from_secs(seconds)), text);
        }
    }
}
