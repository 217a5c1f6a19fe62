//! An inspection as one page of HTML: no script, and nothing is fetched.

use super::{Inspection, tame};

const STYLE: &str = "body{font:16px/1.5 system-ui,sans-serif;max-width:60rem;margin:2rem auto;padding:0 1rem;color:#222;background:#fff}
pre{white-space:pre-wrap;overflow-wrap:anywhere;background:#f4f4f2;padding:.8rem;border-radius:6px;color:#666}
mark{background:#b7e4c7;color:#123;border-radius:3px;box-decoration-break:clone;-webkit-box-decoration-break:clone}
h2{font-size:1rem;margin:1.5rem 0 .3rem}.ids{font-size:.8rem}.doubt{color:#a33}
td{padding:0 .8rem 0 0;text-align:right}.bar{display:inline-block;height:.8rem;background:#52b788}
@media(prefers-color-scheme:dark){body{color:#ddd;background:#181a1b}pre{background:#222526;color:#999}mark{background:#2d6a4f;color:#e8fff2}.doubt{color:#f99}}";

/// The page.
pub fn html(inspection: &Inspection) -> String {
    let mut body = String::new();
    for line in inspection.summary() {
        body += &format!("<p>{}</p>\n", escaped(&line));
    }
    body += "<h2>Tokens of an example</h2>\n<table>\n";
    for (class, count, bar) in inspection.histogram(200) {
        body += &format!(
            "<tr><td>{class}</td><td>{count}</td><td style=\"text-align:left\"><span class=\"bar\" \
             style=\"width:{bar}px\"></span></td></tr>\n"
        );
    }
    body += "</table>\n<p><mark>Marked</mark> text is learned; the rest is read.</p>\n";
    for row in inspection.packed.iter().flat_map(|packed| &packed.shown) {
        body += &format!("<p>{}</p>\n", escaped(&row.describe()));
    }
    for example in &inspection.examples {
        body += &format!("<h2>{}</h2>\n<pre>", escaped(&example.headline()));
        for run in &example.runs {
            let text = escaped(&run.text);
            body += &if run.learned { format!("<mark>{text}</mark>") } else { text };
        }
        body += "</pre>\n";
        for doubt in &example.doubts {
            body += &format!("<p class=\"doubt\">{}</p>\n", escaped(doubt));
        }
        let ids = example.ids.iter().zip(&example.learned);
        let ids = ids.map(|(id, &learned)| if learned { format!("<mark>{id}</mark>") } else { id.to_string() });
        body += &format!(
            "<details class=\"ids\"><summary>ids</summary><pre>{}</pre></details>\n",
            ids.collect::<Vec<_>>().join(" ")
        );
    }
    format!(
        "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
         <meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'\">\n\
         <title>What is learned</title>\n<style>\n{STYLE}\n</style>\n</head>\n<body>\n<h1>What is learned</h1>\n{body}\
         </body>\n</html>\n"
    )
}

/// Text in HTML.
fn escaped(text: &str) -> String {
    tame(text).replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}
