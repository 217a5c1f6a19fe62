//! Conversations with calls of tools: what the assistant wrote of them, against what transformers' own text says.

use std::collections::BTreeMap;

use chrono::NaiveDate;
use phyla_data::template::{Chat, Templates};
use phyla_data::tokenizer::{SpecialToken, SpecialTokens};
use serde_json::Value;

use crate::dialogues::special_of;
use crate::templates::unescaped;

fn templates(source: &str) -> Templates {
    let token = |text: &str, id| Some(SpecialToken { text: text.to_owned(), id });
    let special = SpecialTokens { bos: token("<s>", 1), eos: token("</s>", 2), ..SpecialTokens::default() };
    Templates::new(BTreeMap::from([("default".to_owned(), source.to_owned())]), &special)
}

/// What is wrong with one conversation; nothing where text and turns are as they should be.
fn fault(case: &Value, templates: &Templates, variables: &Value, special: &[String]) -> Option<String> {
    let chat = Chat {
        messages: case["messages"].as_array().unwrap(),
        tools: case["tools"].as_array().map(Vec::as_slice),
        variables: variables.as_object().unwrap().clone(),
        now: NaiveDate::from_ymd_opt(2024, 3, 5).unwrap().and_hms_opt(6, 7, 8),
        ..Chat::default()
    };
    let turns = match (templates.turns(None, &chat, special), case["text"].as_str()) {
        (Ok(turns), Some(text)) if turns.rendered.text == text || turns.rendered.text == unescaped(text) => turns,
        (Ok(turns), Some(text)) => return Some(format!("another text: {}\n{text}", turns.rendered.text)),
        (Err(error), Some(_)) => return Some(error.to_string()),
        (Ok(_), None) => return Some("rendered where transformers refuses".to_owned()),
        (Err(_), None) => return None,
    };
    let text = &turns.rendered.text;
    let spans: Vec<&str> = turns.spans.iter().map(|span| &text[span.clone()]).collect();
    let tell = |what: String| Some(format!("{what} in {spans:?} {:?}\n{text}", turns.doubts));
    let wanted = case["turns"].as_array().unwrap();
    if spans.len() != wanted.len() || !turns.doubts.is_empty() {
        return tell(format!("{} turns expected", wanted.len()));
    }
    for (words, learned) in [("said", true), ("heard", false)] {
        for word in case[words].as_array().unwrap().iter().map(|word| word.as_str().unwrap()) {
            let inside = |at: usize| turns.spans.iter().any(|span| span.contains(&at));
            if text.match_indices(word).any(|(at, _)| inside(at) != learned) {
                return tell(format!("{word}, which was {words}, is {}learned", if learned { "not " } else { "" }));
            }
        }
    }
    // Bytes of a text that Python escapes elsewhere stand at other places.
    if case["text"].as_str() != Some(text) {
        return None;
    }
    for (span, wanted) in turns.spans.iter().zip(wanted).filter(|(_, wanted)| !wanted.is_null()) {
        let [start, end] = [0, 1].map(|side| wanted[side].as_u64().unwrap() as usize);
        // What a template writes behind the token that ends a turn, the end of the conversation too, the model need not write.
        let rest = text.get(span.end..end).map(str::trim);
        if span.start != start || !matches!(rest, Some("" | "</s>")) {
            return tell(format!("{:?} expected, found {:?}", &text[start..end], &text[span.clone()]));
        }
    }
    None
}

/// Needs the output of `tests/golden/turns.py DIR OUT`.
#[test]
fn calls_are_learned_and_results_are_not() {
    let Some(path) = std::env::var_os("PHYLA_TURNS_ORACLE") else {
        println!("skipped: PHYLA_TURNS_ORACLE does not name a file");
        return;
    };
    let data: Value = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
    let (mut wrong, mut told) = (vec![], BTreeMap::<&str, [usize; 4]>::new());
    for (number, case) in data["cases"].as_array().unwrap().iter().enumerate() {
        let name = case["template"].as_str().unwrap();
        let source = data["templates"][name].as_str().unwrap();
        let (templates, special) = (templates(source), special_of(source));
        let count = told.entry(name).or_default();
        count[0] += usize::from(!case["text"].is_null());
        let turns = case["turns"].as_array().into_iter().flatten();
        count[1] += turns.clone().count();
        count[2] += turns.filter(|turn| !turn.is_null()).count();
        if let Some(fault) = fault(case, &templates, &data["variables"], &special) {
            count[3] += 1;
            if count[3] <= 2 {
                wrong.push(format!("{name} {number}: {fault}"));
            }
        }
    }
    for (name, [conversations, turns, exact, faults]) in &told {
        println!("{name}: {conversations} conversations, {turns} turns, {exact} of them to the byte; {faults} faults");
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n\n"));
    assert!(told.values().all(|[conversations, ..]| *conversations >= 30));
}
