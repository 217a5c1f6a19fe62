//! A comparison with one peer: medians, ranges and ratios of neighbouring runs, as a table, as Markdown, as JSON.

use std::io::{self, Write};

use serde_json::{Value, json};

use crate::cli::bench::report::median;
use crate::cli::output::bytes;

/// What was measured of one work with one peer.
pub struct Row {
    pub work: &'static str,
    pub setting: String,
    pub peer: String,
    /// Of each pair the JSON of ours and that of the peer.
    pub pairs: Vec<(Value, Value)>,
}

/// A median with the least and the most.
struct Spread {
    median: f64,
    least: f64,
    most: f64,
}

impl Spread {
    fn of(values: &[f64]) -> Self {
        Self {
            median: median(values),
            least: values.iter().copied().fold(f64::INFINITY, f64::min),
            most: values.iter().copied().fold(f64::NEG_INFINITY, f64::max),
        }
    }

    fn json(&self) -> Value {
        json!({ "median": self.median, "min": self.least, "max": self.most })
    }

    /// `35.1 (34.0 to 36.2)`.
    fn text(&self, digits: impl Fn(f64) -> String) -> String {
        format!("{} ({} to {})", digits(self.median), digits(self.least), digits(self.most))
    }
}

/// Tokens a second, in at least three digits.
fn rate(value: f64) -> String {
    format!("{value:.*}", if value < 100. { 1 } else { 0 })
}

fn ratio(value: f64) -> String {
    format!("{value:.2}")
}

impl Row {
    fn of(&self, value: impl Fn(&Value, &Value) -> Option<f64>) -> Vec<f64> {
        self.pairs.iter().filter_map(|(ours, peer)| value(ours, peer)).collect()
    }

    fn rates(&self) -> (Spread, Spread) {
        let of = |side: fn(&Value, &Value) -> Option<f64>| Spread::of(&self.of(side));
        (of(|ours, _| speed(ours)), of(|_, peer| speed(peer)))
    }

    /// How many times as fast ours is, pair by pair.
    fn ratios(&self) -> Spread {
        Spread::of(&self.of(|ours, peer| Some(speed(ours)? / speed(peer)?)))
    }

    /// The shares of the limit that ours and the peer reach; the limit is that of our type of numbers.
    fn fractions(&self) -> Option<(f64, f64)> {
        let fraction = |ours: &Value| ours["fraction_of_limit"].as_f64();
        let ours = self.of(|ours, _| fraction(ours));
        let peer = self.of(|ours, peer| Some(fraction(ours)? * speed(peer)? / speed(ours)?));
        (!ours.is_empty()).then(|| (median(&ours), median(&peer)))
    }

    /// The highest resident sizes, in bytes.
    fn peaks(&self) -> (Option<u64>, Option<u64>) {
        let peak = |value: &Value| value["peak_rss_mb"].as_f64().map(|mb| mb * 1e6);
        let most = |values: Vec<f64>| values.into_iter().reduce(f64::max).map(|most| most as u64);
        (most(self.of(|ours, _| peak(ours))), most(self.of(|_, peer_| peak(peer_))))
    }

    /// Everything, with the last outputs whole: there the versions of the peer's packages stand.
    pub fn json(&self) -> Value {
        let ((ours, peer), (ours_peak, peer_peak)) = (self.rates(), self.peaks());
        let (fraction, peers_fraction) = self.fractions().unzip();
        let mb = |peak: Option<u64>| peak.map(|peak| peak as f64 * 1e-6);
        json!({
            "work": self.work,
            "setting": self.setting,
            "peer": self.peer,
            "pairs": self.pairs.len(),
            "tokens_per_second": ours.json(),
            "peer_tokens_per_second": peer.json(),
            "ratio": self.ratios().json(),
            "fraction_of_limit": fraction,
            "peer_fraction_of_limit": peers_fraction,
            "peak_rss_mb": mb(ours_peak),
            "peer_peak_rss_mb": mb(peer_peak),
            "last": self.pairs.last().map(|(ours, peer)| json!({ "ours": ours, "peer": peer })),
        })
    }

    /// A line for README's table: work, Phyla, peer, ratio.
    fn markdown(&self) -> String {
        let ((ours, peer), (ours_peak, peer_peak)) = (self.rates(), self.peaks());
        let memory = |peak: Option<u64>| peak.map(|peak| format!(", {}", bytes(peak))).unwrap_or_default();
        let limit = self.fractions().map(|(ours, _)| format!(", {:.0} % of the limit", 100. * ours));
        format!(
            "| {}, {} | {} tokens/s{}{} | {} {} tokens/s{} | {} |",
            self.work,
            self.setting,
            ours.text(rate),
            limit.unwrap_or_default(),
            memory(ours_peak),
            self.peer,
            peer.text(rate),
            memory(peer_peak),
            self.ratios().text(ratio),
        )
    }

    fn cells(&self) -> [String; 6] {
        let ((ours, peer), (ours_peak, peer_peak)) = (self.rates(), self.peaks());
        let memory = |peak: Option<u64>| peak.map_or("-".into(), bytes);
        let limits = self.fractions().map(|(ours, peer)| format!("{:.0} %, {:.0} %", 100. * ours, 100. * peer));
        [
            self.peer.clone(),
            ours.text(rate),
            peer.text(rate),
            self.ratios().text(ratio),
            limits.unwrap_or("-".into()),
            format!("{}, {}", memory(ours_peak), memory(peer_peak)),
        ]
    }
}

fn speed(value: &Value) -> Option<f64> {
    value["tokens_per_second"].as_f64()
}

/// Lines for README.
pub fn markdown(out: &mut dyn Write, rows: &[Row]) -> io::Result<()> {
    writeln!(out, "| Work | Phyla | Peer | Ratio |\n|---|---|---|---|")?;
    rows.iter().try_for_each(|row| writeln!(out, "{}", row.markdown()))
}

/// A table for eyes: for each work its setting, and a line for each peer.
pub fn table(out: &mut dyn Write, rows: &[Row]) -> io::Result<()> {
    let head = ["peer", "ours, tokens/s", "peer, tokens/s", "ratio", "of the limit", "memory"].map(String::from);
    let cells: Vec<[String; 6]> = std::iter::once(head).chain(rows.iter().map(Row::cells)).collect();
    let width = |at: usize| cells.iter().map(|row| row[at].chars().count()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..6).map(width).collect();
    let line = |cells: &[String; 6]| {
        let padded: Vec<String> = cells.iter().zip(&widths).map(|(cell, width)| format!("{cell:width$}")).collect();
        format!("  {}", padded.join("  ").trim_end())
    };
    let mut last = None;
    for (row, text) in rows.iter().zip(&cells[1..]) {
        let this = (row.work, &row.setting);
        if last.replace(this) != Some(this) {
            writeln!(out, "{}: {}\n{}", row.work, row.setting, line(&cells[0]))?;
        }
        writeln!(out, "{}", line(text))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row() -> Row {
        let pair = |ours: f64, peer: f64| {
            let ours = json!({ "tokens_per_second": ours, "fraction_of_limit": ours / 100., "peak_rss_mb": ours });
            (ours, json!({ "tokens_per_second": peer, "peak_rss_mb": 2. * peer }))
        };
        // The ratios are 2, 1 and 4; their median is not the ratio of the medians, 50 to 20.
        let pairs = vec![pair(50., 25.), pair(20., 20.), pair(60., 15.)];
        Row { work: "decode", setting: "batch 1".into(), peer: "other".into(), pairs }
    }

    #[test]
    fn ratios_are_of_pairs_and_memory_is_the_most() {
        let value = row().json();
        assert_eq!(value["ratio"], json!({ "median": 2., "min": 1., "max": 4. }));
        assert_eq!(value["tokens_per_second"]["median"], 50.);
        assert_eq!((&value["fraction_of_limit"], &value["peer_fraction_of_limit"]), (&json!(0.5), &json!(0.2)));
        assert_eq!((&value["peak_rss_mb"], &value["peer_peak_rss_mb"]), (&json!(60.), &json!(50.)));
    }

    #[test]
    fn tables_show_the_setting_once_and_readme_gets_a_line_each() {
        let (mut plain, mut lines) = (vec![], vec![]);
        let rows = [row(), Row { peer: "another".into(), pairs: vec![], ..row() }];
        table(&mut plain, &rows).ok();
        markdown(&mut lines, &rows[..1]).ok();
        let plain = String::from_utf8_lossy(&plain).into_owned();
        assert_eq!(plain.matches("decode: batch 1").count(), 1, "{plain}");
        assert!(
            plain.contains("other") && plain.contains("50 %, 20 %") && plain.contains("60.0 MB, 50.0 MB"),
            "{plain}"
        );
        let expected = "| decode, batch 1 | 50.0 (20.0 to 60.0) tokens/s, 50 % of the limit, 60.0 MB \
                        | other 20.0 (15.0 to 25.0) tokens/s, 50.0 MB | 2.00 (1.00 to 4.00) |";
        assert_eq!(String::from_utf8_lossy(&lines).lines().last(), Some(expected));
    }
}
