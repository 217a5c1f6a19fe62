//! Line charts as SVG: axes, ticks, a legend, and the data itself for the values under the pointer.

use std::fmt::Write as _;

use super::escape;
use super::scale::{Scale, label, range, ticks};

/// More points than this are thinned: no screen shows them, and the page stays small.
const MAX_POINTS: usize = 600;

/// One curve.
pub(super) struct Series {
    name: &'static str,
    /// Its class in the style sheet.
    class: &'static str,
    points: Vec<(f64, f64)>,
}

impl Series {
    /// The noisy original behind a smoothed curve.
    pub(super) fn faint(name: &'static str, points: Vec<(f64, f64)>) -> Self {
        Self { name, class: "faint", points: thinned(&points, true) }
    }

    /// The main curve.
    pub(super) fn strong(name: &'static str, points: Vec<(f64, f64)>) -> Self {
        Self { name, class: "strong", points: thinned(&points, false) }
    }

    /// A second curve of few points.
    pub(super) fn dotted(name: &'static str, points: Vec<(f64, f64)>) -> Self {
        Self { name, class: "second", points: thinned(&points, false) }
    }
}

/// A chart over the steps of the run.
pub(super) struct Chart {
    title: String,
    size: (f64, f64),
    ticks: (usize, usize),
    from_zero: bool,
    series: Vec<Series>,
}

impl Chart {
    pub(super) fn large(title: impl Into<String>) -> Self {
        Self { title: title.into(), size: (940.0, 380.0), ticks: (8, 6), from_zero: false, series: Vec::new() }
    }

    pub(super) fn small(title: impl Into<String>) -> Self {
        Self { title: title.into(), size: (300.0, 190.0), ticks: (3, 4), from_zero: false, series: Vec::new() }
    }

    /// Lets the vertical axis begin at zero.
    pub(super) fn with_zero(mut self) -> Self {
        self.from_zero = true;
        self
    }

    pub(super) fn series(mut self, series: Series) -> Self {
        if !series.points.is_empty() {
            self.series.push(series);
        }
        self
    }

    /// Appends the figure to the page; nothing when it has no points.
    pub(super) fn write(self, page: &mut String) {
        if self.series.is_empty() {
            return;
        }
        let (width, height) = self.size;
        let points = || self.series.iter().flat_map(|series| &series.points);
        let last = points().map(|(x, _)| *x).fold(1.0, f64::max);
        let (low, high) = range(points().map(|(_, y)| *y), self.from_zero);
        let x = Scale { low: 0.0, high: last, from: 46.0, to: width - 18.0 };
        let y = Scale { low, high, from: height - 26.0, to: 10.0 };

        // Writing to a `String` cannot fail, here and below.
        let wide = width > 500.0;
        let class = if wide { "wide" } else { "" };
        let _ = write!(page, "<figure class=\"{class}\"><figcaption>{}", escape(&self.title));
        // A small chart's two curves explain themselves, and a legend would not fit.
        if self.series.len() > 1 && wide {
            for series in &self.series {
                let _ = write!(page, "<span class=\"key {}\">{}</span>", series.class, escape(series.name));
            }
        }
        let _ = write!(
            page,
            "</figcaption>\n<svg viewBox=\"0 0 {width} {height}\" role=\"img\" aria-label=\"{} over {last} steps\" \
             data-x=\"0 {last} {} {}\" data-y=\"{low} {high} {} {}\">\n",
            escape(&self.title),
            x.from,
            x.to,
            y.from,
            y.to
        );
        self.axes(page, x, y);
        for series in &self.series {
            series.write(page, x, y);
        }
        page.push_str("<line class=\"cursor\"/></svg>\n<script type=\"application/json\">[");
        for (index, series) in self.series.iter().enumerate() {
            let comma = if index > 0 { "," } else { "" };
            let _ = write!(page, "{comma}{{\"name\":\"{}\",\"class\":\"{}\",\"points\":[", series.name, series.class);
            for (index, (x, y)) in series.points.iter().enumerate() {
                let comma = if index > 0 { "," } else { "" };
                let _ = write!(page, "{comma}[{x},{}]", rounded(*y));
            }
            page.push_str("]}");
        }
        page.push_str("]</script><div class=\"tip\" hidden></div></figure>\n");
    }

    fn axes(&self, page: &mut String, x: Scale, y: Scale) {
        let (values, step) = ticks(y.low, y.high, self.ticks.1);
        for value in values {
            let at = y.pixel(value);
            let _ = writeln!(
                page,
                "<path class=\"grid\" d=\"M{:.1} {at:.1}H{:.1}\"/><text class=\"y\" x=\"{:.1}\" y=\"{:.1}\">{}</text>",
                x.from,
                x.to,
                x.from - 8.0,
                at + 4.0,
                label(value, step)
            );
        }
        let (values, step) = ticks(x.low, x.high, self.ticks.0);
        for value in values {
            let _ = writeln!(
                page,
                "<text class=\"x\" x=\"{:.1}\" y=\"{:.1}\">{}</text>",
                x.pixel(value),
                y.from + 19.0,
                label(value, step)
            );
        }
        let _ = writeln!(page, "<path class=\"axis\" d=\"M{:.1} {:.1}H{:.1}\"/>", x.from, y.from, x.to);
    }
}

impl Series {
    fn write(&self, page: &mut String, x: Scale, y: Scale) {
        let _ = write!(page, "<path class=\"line {}\" d=\"", self.class);
        for (index, (step, value)) in self.points.iter().enumerate() {
            let command = if index == 0 { 'M' } else { 'L' };
            let _ = write!(page, "{command}{:.1} {:.1}", x.pixel(*step), y.pixel(*value));
        }
        page.push_str("\"/>\n");
        // A lone point makes no line; few points are measurements that deserve a mark each.
        if self.points.len() == 1 || (self.class == "second" && self.points.len() <= 60) {
            for (step, value) in &self.points {
                let _ = write!(
                    page,
                    "<circle class=\"{}\" cx=\"{:.1}\" cy=\"{:.1}\" r=\"3.5\"/>",
                    self.class,
                    x.pixel(*step),
                    y.pixel(*value)
                );
            }
        }
    }
}

/// At most [`MAX_POINTS`] points: of each stretch its lowest and highest where the spread matters,
/// else its last.
fn thinned(points: &[(f64, f64)], spread: bool) -> Vec<(f64, f64)> {
    if points.len() <= MAX_POINTS {
        return points.to_vec();
    }
    let buckets = if spread { MAX_POINTS / 2 } else { MAX_POINTS };
    let mut kept = Vec::with_capacity(MAX_POINTS + 1);
    for bucket in 0..buckets {
        let stretch = &points[bucket * points.len() / buckets..(bucket + 1) * points.len() / buckets];
        if spread {
            let by_value = |a: &&(f64, f64), b: &&(f64, f64)| a.1.total_cmp(&b.1);
            let mut ends: Vec<_> =
                stretch.iter().min_by(by_value).into_iter().chain(stretch.iter().max_by(by_value)).collect();
            ends.sort_by(|a, b| a.0.total_cmp(&b.0));
            kept.extend(ends);
        } else {
            kept.extend(stretch.last());
        }
    }
    kept
}

/// Five significant digits, in a form that JSON reads.
fn rounded(value: f64) -> String {
    format!("{value:.4e}")
}
