//! The report of a run: one HTML file that needs nothing beside it, neither network nor other files.
//!
//! The charts are our own few lines of SVG rather than a plotting crate's: those write fixed colours
//! into every element, where a page that follows the reader's dark or light theme and shows values
//! under the pointer needs classes and the data itself.

mod chart;
mod machine;
mod reliability;
mod scale;

use std::fmt::Write as _;
use std::time::Duration;

use chart::{Chart, Series};
pub use machine::machine;

use crate::metrics::Row;
use crate::progress::{compact, duration};

/// Everything that the page shows.
#[derive(Clone, Debug, Default)]
pub struct Report<'a> {
    /// Heading, usually the name of the run.
    pub title: &'a str,
    /// One line under it: what was trained on what, whether it finished.
    pub subtitle: &'a str,
    /// Trained parameters.
    pub parameters: u64,
    /// What it ran on; see [`machine`].
    pub machine: &'a str,
    /// All metrics rows, in the order of their steps.
    pub rows: &'a [Row],
    /// Text that the model wrote, in the order of its steps.
    pub samples: &'a [SampleText],
    /// The resolved recipe.
    pub recipe: &'a str,
    /// What the reader should know about the run before trusting it.
    pub warnings: &'a [String],
}

/// A text that the model wrote.
#[derive(Clone, Debug, Default, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct SampleText {
    /// Updates made when it was written.
    pub step: u64,
    /// What it was given.
    pub prompt: String,
    /// What it wrote after that.
    pub text: String,
    /// What that was worth, where it is judged.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reward: Option<f64>,
}

const STYLE: &str = include_str!("report/style.css");
const SCRIPT: &str = include_str!("report/hover.js");

impl Report<'_> {
    /// The page. It can be written at any time of a run, also before the first row.
    #[must_use]
    pub fn html(&self) -> String {
        let mut page = String::with_capacity(64 * 1024);
        let title = escape(self.title);
        // Writing to a `String` cannot fail, here and below.
        let _ = write!(
            page,
            "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
             <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
             <title>{title}</title>\n<style>\n{STYLE}</style>\n</head>\n<body>\n<main>\n\
             <header><h1>{title}</h1><p>{}</p></header>\n",
            escape(self.subtitle)
        );
        self.warnings(&mut page);
        self.summary(&mut page);
        self.charts(&mut page);
        if let Some(row) = self.rows.iter().rev().find(|row| !row.reliability.is_empty()) {
            reliability::write(&mut page, &row.reliability, row.step);
        }
        self.samples(&mut page);
        let _ = write!(
            page,
            "<details><summary>Recipe</summary><pre>{}</pre></details>\n\
             <footer>{}</footer>\n</main>\n<script>\n{SCRIPT}</script>\n</body>\n</html>\n",
            escape(self.recipe),
            escape(self.machine)
        );
        page
    }

    fn warnings(&self, page: &mut String) {
        if self.warnings.is_empty() {
            return;
        }
        page.push_str("<section class=\"warnings\"><h2>Warnings</h2><ul>");
        for warning in self.warnings {
            let _ = write!(page, "<li>{}</li>", escape(warning));
        }
        page.push_str("</ul></section>\n");
    }

    /// The figures that one looks for first.
    fn summary(&self, page: &mut String) {
        let last = self.rows.last();
        let last_of = |value: fn(&Row) -> Option<f64>| self.rows.iter().rev().find_map(value);
        let best = self
            .rows
            .iter()
            .filter_map(|row| row.eval_loss.map(|loss| (loss, row.step)))
            .min_by(|a, b| a.0.total_cmp(&b.0));
        page.push_str("<dl class=\"cards\">");
        let mut card = |name: &str, value: String, note: String| {
            let _ = write!(
                page,
                "<div><dt>{name}</dt><dd>{}</dd><small>{}</small></div>",
                escape(&value),
                if note.is_empty() { "&nbsp;".into() } else { escape(&note) }
            );
        };
        card("Parameters", compact(self.parameters as f64), grouped(self.parameters));
        if let Some(last) = last {
            let tokens = last.tokens;
            card("Tokens", compact(tokens as f64), format!("{} steps", grouped(last.step)));
            let speed = if last.time > 0.0 { tokens as f64 / last.time } else { 0.0 };
            let time = Duration::try_from_secs_f64(last.time).unwrap_or_default();
            card("Training time", duration(time), format!("{} tokens/s", compact(speed)));
        }
        if let Some(loss) = smoothed(&self.points(|row| row.loss)).last() {
            card("Training loss", format!("{:.3}", loss.1), "smoothed".into());
        }
        if let (Some(loss), Some((best, step))) = (last_of(|row| row.eval_loss), best) {
            let note = format!("best {best:.3} at step {}", grouped(step));
            card("Validation loss", format!("{loss:.3}"), note);
            if last_of(|row| row.perplexity).is_some() {
                card("Perplexity", significant(loss.exp()), format!("best {}", significant(best.exp())));
            }
        }
        for name in self.scores() {
            let all = || self.rows.iter().filter_map(|row| row.eval_scores.get(&name).copied());
            let (last, best) = (all().next_back().unwrap_or_default(), all().fold(f64::MIN, f64::max));
            // An error is best where it is lowest.
            let best =
                if matches!(&*name, "mse" | "calibration_error") { all().fold(f64::MAX, f64::min) } else { best };
            // What describes completions is neither good nor bad by itself.
            let described =
                name == "reward_std" || ["objective/", "completions/"].iter().any(|of| name.starts_with(of));
            let note = if described { "validation".into() } else { format!("best {best:.4}") };
            card(&spelled(&name), format!("{last:.4}"), note);
        }
        if let Some(peak) = last_of(|row| row.peak_rss_mb) {
            card("Peak memory", format!("{} MiB", grouped(peak.round() as u64)), String::new());
        }
        page.push_str("</dl>\n");
    }

    fn charts(&self, page: &mut String) {
        let loss = self.points(|row| row.loss);
        if loss.is_empty() && self.points(|row| row.eval_loss).is_empty() {
            page.push_str("<p class=\"empty\">No metrics yet.</p>\n");
            return;
        }
        let smooth = smoothed(&loss);
        Chart::large("Loss")
            .series(Series::faint("each row", loss))
            .series(Series::strong("training, smoothed", smooth))
            .series(Series::dotted("validation", self.points(|row| row.eval_loss)))
            .write(page);
        page.push_str("<div class=\"row\">\n");
        Chart::small("Learning rate").with_zero().series(Series::strong("lr", self.points(|row| row.lr))).write(page);
        let norm = self.points(|row| row.grad_norm);
        let smooth = smoothed(&norm);
        Chart::small("Gradient norm")
            .with_zero()
            .series(Series::faint("each row", norm))
            .series(Series::strong("smoothed", smooth))
            .write(page);
        let speed = self.points(|row| row.tokens_per_second);
        let smooth = smoothed(&speed);
        Chart::small("Tokens per second")
            .with_zero()
            .series(Series::faint("each row", speed))
            .series(Series::strong("smoothed", smooth))
            .write(page);
        for name in self.charted() {
            let training = self.points(|row| row.scores.get(&name).copied());
            let smooth = smoothed(&training);
            let validation = self.points(|row| row.eval_scores.get(&name).copied());
            let chart = Chart::small(spelled(&name));
            let chart = match (training.is_empty(), validation.is_empty()) {
                (true, _) => chart.series(Series::strong("validation", validation)),
                (false, true) => {
                    chart.series(Series::faint("each row", training)).series(Series::strong("smoothed", smooth))
                }
                (false, false) => {
                    let chart = chart.series(Series::faint("each row", training));
                    chart
                        .series(Series::strong("training, smoothed", smooth))
                        .series(Series::dotted("validation", validation))
                }
            };
            chart.write(page);
        }
        page.push_str("</div>\n");
    }

    /// Names of what the validation data measures besides the loss.
    fn scores(&self) -> std::collections::BTreeSet<String> {
        self.rows.iter().flat_map(|row| row.eval_scores.keys().cloned()).collect()
    }

    /// The same, and names of what training measures besides the loss.
    fn charted(&self) -> std::collections::BTreeSet<String> {
        let training = self.rows.iter().flat_map(|row| row.scores.keys().cloned());
        training.chain(self.scores()).collect()
    }

    fn samples(&self, page: &mut String) {
        if self.samples.is_empty() {
            return;
        }
        page.push_str("<h2>Samples</h2>\n<section class=\"samples\">\n");
        // The newest first: it is what the model can do now.
        for sample in self.samples.iter().rev() {
            let _ = writeln!(
                page,
                "<article><small>step {}{}</small><p><b>{}</b>{}</p></article>",
                grouped(sample.step),
                sample.reward.map_or_else(String::new, |reward| format!(", reward {reward:.3}")),
                escape(&sample.prompt),
                escape(&sample.text)
            );
        }
        page.push_str("</section>\n");
    }

    /// One column against the step, without its gaps.
    fn points(&self, value: impl Fn(&Row) -> Option<f64>) -> Vec<(f64, f64)> {
        let point = |row: &Row| value(row).filter(|value| value.is_finite()).map(|value| (row.step as f64, value));
        self.rows.iter().filter_map(point).collect()
    }
}

/// The mean over about a twentieth of the curve around each point.
///
/// Centred, because a trailing average lags far above a loss that falls fast. Near the beginning the
/// window shrinks from both sides; at the end, where the curve is flat and its last value gets quoted,
/// only what lies ahead is missing.
fn smoothed(points: &[(f64, f64)]) -> Vec<(f64, f64)> {
    let reach = (points.len() / 40).max(2);
    let mut sums = vec![0.0];
    sums.extend(points.iter().scan(0.0, |sum, (_, y)| {
        *sum += y;
        Some(*sum)
    }));
    let mean = |index: usize| {
        let reach = reach.min(index);
        let (from, to) = (index - reach, (index + reach + 1).min(points.len()));
        (sums[to] - sums[from]) / (to - from) as f64
    };
    points.iter().enumerate().map(|(index, (x, _))| (*x, mean(index))).collect()
}

/// `masked_accuracy` as `Masked accuracy`.
fn spelled(name: &str) -> String {
    let text = name.replace('_', " ");
    let mut characters = text.chars();
    characters.next().map_or_else(String::new, |first| first.to_uppercase().chain(characters).collect())
}

/// Four significant digits, without decimals beyond two.
fn significant(value: f64) -> String {
    match value {
        v if v >= 1000.0 => grouped(v.round().min(1e15) as u64),
        v if v >= 100.0 => format!("{v:.1}"),
        v => format!("{v:.2}"),
    }
}

/// `1234567` as `1,234,567`.
fn grouped(value: u64) -> String {
    let digits = value.to_string();
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// Text for HTML, in content and attributes. Samples come from a model: they may hold anything.
fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            // Not allowed in HTML even as a reference.
            c if c.is_control() && !matches!(c, '\n' | '\t') => out.push('\u{fffd}'),
            c => out.push(c),
        }
    }
    out
}

#[cfg(test)]
mod tests;
