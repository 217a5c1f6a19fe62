//! An explanation as one HTML file that needs nothing beside it: one steps through it with the arrow keys.
//!
//! The page holds the data, made visible, in a block that no text can leave; its script writes texts as texts alone, and
//! its policy forbids it to fetch anything.

use super::{Decoding, Token, token, visible};

const STYLE: &str = include_str!("page.css");
const SCRIPT: &str = include_str!("page.js");
const BODY: &str = include_str!("page.html");

/// The page.
pub fn html(decoding: &Decoding) -> String {
    let data = data(&shown(decoding));
    let title = escaped(&decoding.model);
    format!(
        "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
         <meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'; \
         script-src 'unsafe-inline'\">\n<title>{title}: how it decoded</title>\n<style>\n{STYLE}</style>\n</head>\n\
         <body>\n{BODY}<script type=\"application/json\" id=\"data\">{data}</script>\n\
         <script>\n{SCRIPT}</script>\n</body>\n</html>\n"
    )
}

/// With texts as one sees them.
fn shown(decoding: &Decoding) -> Decoding {
    let mut shown = decoding.clone();
    let line = |text: &str| text.chars().map(token::shape).collect::<String>();
    let all = |tokens: &mut Vec<Token>| tokens.iter_mut().for_each(|token| token.text = visible(token));
    shown.model = line(&shown.model);
    all(&mut shown.prompt);
    for answer in &mut shown.sequences {
        all(&mut answer.tokens);
        answer.text = answer.text.as_deref().map(line);
    }
    shown.steps.iter_mut().for_each(|step| all(&mut step.candidates));
    shown.guesses.iter_mut().for_each(|guess| all(&mut guess.tokens));
    for candidate in shown.beams.iter_mut().flat_map(|step| &mut step.candidates) {
        candidate.token.text = visible(&candidate.token);
    }
    shown
}

/// JSON in which nothing can end a script, begin a comment, or break a line.
fn data(decoding: &Decoding) -> String {
    // What has only numbers and texts in it can be written.
    let json = serde_json::to_string(decoding).unwrap_or_else(|_| "null".into());
    let mut safe = String::with_capacity(json.len());
    for character in json.chars() {
        match character {
            '<' | '>' | '&' | '\u{2028}' | '\u{2029}' => safe += &format!("\\u{:04x}", u32::from(character)),
            c => safe.push(c),
        }
    }
    safe
}

/// Text in HTML.
fn escaped(text: &str) -> String {
    let text: String = text.chars().map(token::shape).collect();
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

#[cfg(test)]
mod tests {
    use super::super::{Answer, Pass, Pick, Stage, Step};
    use super::*;

    const NASTY: &str = "</script><!--<script>\u{2028}\u{202e}\0\"'&";

    #[test]
    fn hostile_text_stays_text_and_nothing_is_fetched() {
        let token = |id| Token { id, text: NASTY.into() };
        let stage =
            Stage { name: "logits", left: 2, entropy: 1., scores: vec![Some(0.), None], probabilities: vec![1., 0.] };
        let pick = Pick { candidate: 0, why: "likeliest", uniform: None, below: None, weighed: vec![] };
        let decoding = Decoding {
            format: "phyla.explain.decode",
            version: 1,
            model: NASTY.into(),
            method: "greedy",
            seed: 0,
            prompt: vec![token(1)],
            sequences: vec![Answer {
                tokens: vec![token(2)],
                text: Some(NASTY.into()),
                finish_reason: "stop",
                score: None,
            }],
            steps: vec![Step {
                branch: 0,
                step: 0,
                candidates: vec![token(2), token(3)],
                stages: vec![stage],
                pick: Some(pick),
            }],
            beams: vec![],
            guesses: vec![],
            passes: vec![Pass { ids: 1, positions: 1, bytes: 64 }],
            left_out: 0,
        };
        let page = html(&decoding);
        assert_eq!((page.matches("<script").count(), page.matches("</script>").count()), (2, 2));
        assert_eq!(page.matches("<!--").count(), 0);
        for absent in
            ["\0", "\u{2028}", "\u{202e}", "http:", "https:", "src=", "href=", "@import", "url(", "innerHTML", "eval("]
        {
            assert!(!page.contains(absent), "{absent:?}");
        }
        // The data come back whole, with signs in place of what has no shape.
        let data = page.split("id=\"data\">").nth(1).and_then(|rest| rest.split("</script>").next());
        let data: serde_json::Value = serde_json::from_str(data.unwrap_or("")).unwrap_or_default();
        assert_eq!(data["steps"][0]["candidates"][1]["text"], "</script><!--<script>⟨U+2028⟩⟨U+202E⟩␀\"'&");
        assert_eq!(data["steps"][0]["stages"][0]["scores"][1], serde_json::Value::Null);
    }
}
