//! How far a pass over data has come: a bar on a terminal, plain lines elsewhere, nothing when quiet; on standard error.

use std::io::{IsTerminal, Write};
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};
use phyla_train::progress::{compact, duration};

/// Least time between two plain lines: what ends sooner says nothing.
const LINE_EVERY: Duration = Duration::from_secs(5);

/// Most warnings of one kind before the rest is only counted.
const SHOWN: u64 = 20;

pub struct Progress {
    view: View,
    start: Instant,
    unit: &'static str,
    warned: u64,
}

enum View {
    Bar(ProgressBar),
    Lines(Instant),
    Hidden,
}

impl Progress {
    /// Of so many things of this kind, if that is known.
    pub fn new(unit: &'static str, total: Option<u64>, quiet: bool) -> Self {
        let view = if quiet {
            View::Hidden
        } else if std::io::stderr().is_terminal() {
            let bar = total.map_or_else(ProgressBar::new_spinner, ProgressBar::new);
            View::Bar(styled(bar, total.is_some()))
        } else {
            View::Lines(Instant::now())
        };
        Self { view, start: Instant::now(), unit, warned: 0 }
    }

    /// `done` are done now, of `total` if that is known.
    pub fn set(&mut self, done: u64, total: Option<u64>) {
        let pace = done as f64 / self.start.elapsed().as_secs_f64().max(1e-9);
        let said = |of: String| format!("{done}{of} {}  {} {}/s", self.unit, compact(pace), self.unit);
        match &mut self.view {
            View::Hidden => {}
            View::Bar(bar) => {
                if bar.length().is_none() && total.is_some() {
                    bar.set_length(total.unwrap_or_default());
                    *bar = styled(bar.clone(), true);
                }
                bar.set_position(done);
                bar.set_message(said(String::new()));
            }
            View::Lines(last) if last.elapsed() >= LINE_EVERY => {
                *last = Instant::now();
                let mut text = said(total.map(|total| format!("/{total}")).unwrap_or_default());
                if let Some(total) = total.filter(|_| done > 0) {
                    let left = Duration::from_secs_f64(total.saturating_sub(done) as f64 / pace);
                    text += &format!("  {} left", duration(left));
                }
                // A closed standard error is no reason to stop.
                writeln!(std::io::stderr(), "{text}").ok();
            }
            View::Lines(_) => {}
        }
    }

    /// Says what is wrong with an input, unless much has been said already.
    pub fn warn(&mut self, text: &str) {
        self.warned += 1;
        if self.warned > SHOWN {
            return;
        }
        match &self.view {
            View::Bar(bar) => bar.suspend(|| tracing::warn!("{text}")),
            _ => tracing::warn!("{text}"),
        }
    }

    /// Takes the bar away, and says how many warnings were not shown.
    pub fn finish(&mut self) {
        if let View::Bar(bar) = &self.view {
            bar.finish_and_clear();
        }
        if self.warned > SHOWN {
            tracing::warn!("and {} more", self.warned - SHOWN);
        }
        self.warned = 0;
    }

    /// Time since the beginning.
    pub fn elapsed(&self) -> Duration {
        self.start.elapsed()
    }
}

fn styled(bar: ProgressBar, bounded: bool) -> ProgressBar {
    let template = if bounded { "{bar:24.cyan/238} {percent:>3}%  {msg}  {eta} left" } else { "{spinner} {msg}" };
    let style = ProgressStyle::with_template(template);
    bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()).progress_chars("━╸─"));
    bar
}
