//! The report of an evaluation: one HTML file that needs nothing beside it, as a run's report is.

use std::fmt::Write as _;

use super::reason::MethodScore;
use super::{Confusion, Evaluation};

const STYLE: &str = include_str!("page.css");

/// Letters of a text that are shown.
const SHOWN: usize = 600;

/// The page. `title` is usually the model, `subtitle` the data.
pub fn html(evaluation: &Evaluation, title: &str, subtitle: &str) -> String {
    let mut page = String::with_capacity(32 * 1024);
    let heading = escape(title);
    // Writing to a `String` cannot fail, here and below.
    let _ = write!(
        page,
        "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
         <title>{heading}</title>\n<style>\n{STYLE}</style>\n</head>\n<body>\n<main>\n\
         <header><h1>{heading}</h1><p>{}</p></header>\n",
        escape(subtitle)
    );
    cards(evaluation, &mut page);
    methods(&evaluation.methods, &mut page);
    classes(evaluation, &mut page);
    if let Some(confusion) = &evaluation.confusion {
        heat_map(confusion, &mut page);
    }
    mistakes(evaluation, &mut page);
    let said: Vec<&String> = evaluation.notes.iter().chain(&evaluation.signatures).collect();
    if !said.is_empty() {
        page.push_str("<h2>Notes</h2><ul class=\"notes\">");
        said.iter().for_each(|note| _ = write!(page, "<li>{}</li>", escape(note)));
        page.push_str("</ul>\n");
    }
    page.push_str("</main>\n</body>\n</html>\n");
    page
}

/// The figures that one looks for first.
fn cards(evaluation: &Evaluation, page: &mut String) {
    page.push_str("<dl class=\"cards\">");
    let count = format!("{}", evaluation.count);
    let first = evaluation.metrics.iter().map(|metric| (metric.name.replace('_', " "), metric.shown()));
    for (name, value) in first.chain([(evaluation.unit.to_owned(), count)]) {
        let _ = write!(page, "<div><dt>{}</dt><dd>{}</dd></div>", escape(&name), escape(&value));
    }
    page.push_str("</dl>\n");
}

/// A bar for each method, as long as its accuracy, and below it one for each group of problems.
fn methods(methods: &[MethodScore], page: &mut String) {
    if methods.is_empty() {
        return;
    }
    page.push_str(
        "<h2>Methods</h2>\n<table class=\"classes\"><thead><tr><th>method</th><th class=\"bar\">accuracy</th><th>right</th>\
         <th>accuracy</th><th>95 % interval</th><th>answered</th><th>tokens</th></tr></thead><tbody>\n",
    );
    for row in methods {
        let tokens = row.tokens.map_or("–".to_owned(), |tokens| format!("{tokens:.1}"));
        let [low, high] = row.interval;
        let _ = writeln!(
            page,
            "<tr><th>{}</th><td class=\"bar\"><i style=\"width:{:.1}%\"></i></td><td>{} of {}</td><td>{:.3}</td>\
             <td>{low:.3} to {high:.3}</td><td>{:.3}</td><td>{tokens}</td></tr>",
            escape(&row.method),
            100. * row.accuracy,
            row.correct,
            row.count,
            row.accuracy,
            row.answered
        );
        for group in &row.groups {
            let share = group.correct as f64 / group.count.max(1) as f64;
            let _ = writeln!(
                page,
                "<tr><th>&emsp;{}</th><td class=\"bar\"><i style=\"width:{:.1}%\"></i></td><td>{} of {}</td>\
                 <td>{share:.3}</td><td></td><td></td><td></td></tr>",
                escape(&group.name),
                100. * share,
                group.correct,
                group.count
            );
        }
    }
    page.push_str("</tbody></table>\n");
}

/// A bar for each class, as long as its F1, with the numbers beside it.
fn classes(evaluation: &Evaluation, page: &mut String) {
    if evaluation.classes.is_empty() {
        return;
    }
    page.push_str(
        "<h2>Classes</h2>\n<table class=\"classes\"><thead><tr><th>class</th><th class=\"bar\">F1</th><th>precision</th>\
         <th>recall</th><th>F1</th><th>support</th></tr></thead><tbody>\n",
    );
    for class in &evaluation.classes {
        let scores = &class.scores;
        let _ = writeln!(
            page,
            "<tr><th>{}</th><td class=\"bar\"><i style=\"width:{:.1}%\"></i></td><td>{:.3}</td><td>{:.3}</td>\
             <td>{:.3}</td><td>{}</td></tr>",
            escape(&class.name),
            100. * scores.f1,
            scores.precision,
            scores.recall,
            scores.f1,
            scores.support
        );
    }
    page.push_str("</tbody></table>\n");
}

/// A square of counts, each as dark as its share of its row.
fn heat_map(confusion: &Confusion, page: &mut String) {
    page.push_str(
        "<h2>Confusion</h2>\n<p class=\"soft\">Rows are what is right, columns what the model said; a cell is as dark as \
         its share of the row.</p>\n<div class=\"scroll\"><table class=\"heat\"><thead><tr><th></th>",
    );
    for label in &confusion.labels {
        let _ = write!(page, "<th><span>{}</span></th>", escape(label));
    }
    page.push_str("</tr></thead><tbody>\n");
    for (label, row) in confusion.labels.iter().zip(&confusion.counts) {
        let all = row.iter().sum::<u64>().max(1) as f64;
        let _ = write!(page, "<tr><th>{}</th>", escape(label));
        for (predicted, &count) in confusion.labels.iter().zip(row) {
            let share = count as f64 / all;
            let class = if share > 0.5 { " class=\"dark\"" } else { "" };
            let title = format!("{label} taken for {predicted}: {count}, {:.1} % of the row", 100. * share);
            let _ = write!(page, "<td{class} style=\"--share:{share:.3}\" title=\"{}\">{count}</td>", escape(&title));
        }
        page.push_str("</tr>\n");
    }
    page.push_str("</tbody></table></div>\n");
}

fn mistakes(evaluation: &Evaluation, page: &mut String) {
    if evaluation.mistakes.is_empty() {
        return;
    }
    page.push_str("<h2>Errors, the worst first</h2>\n<section class=\"mistakes\">\n");
    for mistake in &evaluation.mistakes {
        let _ = writeln!(
            page,
            "<article><p>{}</p><dl><dt>right</dt><dd>{}</dd><dt>found</dt><dd class=\"wrong\">{}</dd>\
             <dt>score</dt><dd>{:.3}</dd></dl></article>",
            escape(&brief(&mistake.input)),
            escape(&brief(&mistake.expected)),
            escape(&brief(&mistake.found)),
            mistake.score
        );
    }
    page.push_str("</section>\n");
}

fn brief(text: &str) -> String {
    match text.char_indices().nth(SHOWN) {
        Some((at, _)) => format!("{} …", &text[..at]),
        None => text.to_owned(),
    }
}

/// Text for HTML, in content and attributes; data and models may say anything.
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
mod tests {
    use super::super::{Class, Metric, Mistake};
    use super::*;
    use phyla_metrics::Scores;

    #[test]
    fn the_page_shows_every_part_and_hostile_text_stays_text() {
        let nasty = "</td><script>alert('x')</script>\u{0}&\"";
        let scores = Scores { precision: 0.5, recall: 1., f1: 2. / 3., support: 7 };
        let mistake = Mistake { input: "x".repeat(5000), expected: nasty.into(), found: "other".into(), score: 0.987 };
        let evaluation = Evaluation {
            task: "sequence_classification",
            unit: "texts",
            count: 12_345,
            metrics: vec![Metric::fraction("accuracy", 0.875)],
            classes: vec![Class { name: nasty.into(), scores }],
            confusion: Some(Confusion { labels: vec![nasty.into(), "b".into()], counts: vec![vec![3, 1], vec![0, 0]] }),
            notes: vec![nasty.into()],
            mistakes: vec![mistake],
            ..Evaluation::default()
        };
        let page = html(&evaluation, nasty, nasty);
        for part in ["12345", "0.8750", "width:66.7%", "--share:0.750", "75.0 % of the row", "0.987", "Errors"] {
            assert!(page.contains(part), "{part} is missing");
        }
        assert!(!page.contains("<script") && !page.contains('\u{0}') && !page.contains("NaN"));
        // Nothing is fetched from anywhere, and no text is as long as the data's longest.
        assert!(!page.contains("http") && !page.contains("src=") && !page.contains("@import"));
        assert!(page.len() < 12_000, "{}", page.len());
    }
}
