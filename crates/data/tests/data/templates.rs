//! Chat templates against what transformers made of them.

use std::collections::BTreeMap;

use chrono::NaiveDate;
use phyla_data::template::{Chat, Templates};
use phyla_data::tokenizer::{SpecialToken, SpecialTokens};
use serde_json::{Map, Value, json};

fn special() -> SpecialTokens {
    let token = |text: &str, id| Some(SpecialToken { text: text.to_owned(), id });
    SpecialTokens { bos: token("<s>", 1), eos: token("</s>", 2), ..SpecialTokens::default() }
}

fn templates(sources: &[(&str, &str)]) -> Templates {
    let sources = sources.iter().map(|(name, source)| ((*name).to_owned(), (*source).to_owned()));
    Templates::new(sources.collect::<BTreeMap<_, _>>(), &special())
}

/// Renders every case of a file that `tests/golden/templates.py` wrote; returns how many were compared.
fn compare(data: &Value) -> usize {
    let sources = data["templates"].as_object().unwrap();
    let sources: Vec<(&str, &str)> =
        sources.iter().map(|(name, source)| (name.as_str(), source.as_str().unwrap())).collect();
    let templates = templates(&sources);
    let (mut compared, mut wrong) = (0, Vec::new());
    for case in data["cases"].as_array().unwrap() {
        let name = case["template"].as_str().unwrap();
        let chat = Chat {
            messages: data["chats"][case["chat"].as_str().unwrap()].as_array().unwrap(),
            tools: case.get("tools").map(|tools| tools.as_array().unwrap().as_slice()),
            add_generation_prompt: case.get("add_generation_prompt").is_some(),
            continue_final: case.get("continue_final_message").map(|_| "content"),
            variables: data.get("variables").map(|given| given.as_object().unwrap().clone()).unwrap_or_default(),
            now: NaiveDate::from_ymd_opt(2024, 3, 5).unwrap().and_hms_opt(6, 7, 8),
            ..Chat::default()
        };
        let ours = templates.render(Some(name), &chat);
        let same = match (&ours, case.get("text"), case.get("error").and_then(Value::as_str)) {
            (Ok(ours), Some(text), _) => {
                let spans: Vec<[usize; 2]> = ours.generated.iter().map(|span| [span.start, span.end]).collect();
                let text = text.as_str().unwrap();
                (ours.text == text || ours.text == unescaped(text))
                    && case.get("generated").is_none_or(|expected| *expected == json!(spans))
            }
            // What the template itself says must come through; Python's own complaints need not be ours.
            (Err(ours), _, Some(error)) => {
                error.strip_prefix("TemplateError: ").is_none_or(|message| ours.to_string().contains(message))
            }
            (Ok(_), _, Some(error)) => !error.starts_with("TemplateError"),
            _ => false,
        };
        compared += 1;
        if !same {
            let expected = case.get("text").or(case.get("error")).and_then(Value::as_str).unwrap();
            let found =
                ours.map_or_else(|error| error.to_string(), |ours| format!("{}{:?}", ours.text, ours.generated));
            let shared = expected.chars().zip(found.chars()).take_while(|(a, b)| a == b).count();
            let rest = |text: &str| text.chars().skip(shared.saturating_sub(30)).take(100).collect::<String>();
            let chat = case["chat"].as_str().unwrap();
            wrong.push(format!("{name} {chat} at {shared}\n  {:?}\n  {:?}", rest(expected), rest(&found)));
        }
    }
    assert!(wrong.is_empty(), "{} of {compared} differ:\n{}", wrong.len(), wrong.join("\n"));
    compared
}

/// In Python, `"a" | safe + "<"` gives `a&lt;` even where nothing else is escaped. One well-known template trips over
/// that; this engine joins the two as they are.
pub fn unescaped(text: &str) -> String {
    let pairs = [("&#34;", "\""), ("&#39;", "'"), ("&lt;", "<"), ("&gt;", ">"), ("&amp;", "&")];
    pairs.iter().fold(text.to_owned(), |text, (from, to)| text.replace(from, to))
}

#[test]
fn matches_transformers_on_small_templates() {
    let data = serde_json::from_str(include_str!("../templates.json")).unwrap();
    assert_eq!(compare(&data), 239);
}

/// Needs the output of `tests/golden/templates.py DIR OUT`.
#[test]
fn matches_transformers_on_well_known_templates() {
    let Some(path) = std::env::var_os("PHYLA_TEMPLATE_ORACLE") else {
        println!("skipped: PHYLA_TEMPLATE_ORACLE does not name a file");
        return;
    };
    let data = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
    println!("{} cases compared", compare(&data));
}

#[test]
fn the_template_is_chosen_by_name_then_tools_then_default() {
    let templates = templates(&[("default", "D"), ("tool_use", "T"), ("rag", "R")]);
    let render = |name, tools| templates.render(name, &Chat { tools, ..Chat::default() }).unwrap().text;
    assert_eq!(render(None, None), "D");
    assert_eq!(render(None, Some(&[][..])), "T");
    assert_eq!(render(Some("rag"), Some(&[][..])), "R");
    let error = templates.render(Some("rug"), &Chat::default()).unwrap_err().to_string();
    assert_eq!(error, "chat template `rug`: no template of this name; there are: default, rag, tool_use");
    let error = self::templates(&[]).render(None, &Chat::default()).unwrap_err().to_string();
    assert!(error.contains("came without a chat template"), "{error}");
}

#[test]
fn templates_are_read_from_every_place() {
    let tokenizer = crate::memory(&[
        ("tokenizer.json", TOKENIZER),
        (
            "tokenizer_config.json",
            r#"{"chat_template": [{"name": "default", "template": "old"}, {"name": "tool_use", "template": "tools"}]}"#,
        ),
        ("chat_template.jinja", "new"),
        ("additional_chat_templates/rag.jinja", "rag"),
    ])
    .unwrap();
    let templates = tokenizer.templates();
    let sources: Vec<_> = templates.names().map(|name| (name, templates.source(name).unwrap())).collect();
    assert_eq!(sources, [("default", "new"), ("rag", "rag"), ("tool_use", "tools")]);
    let json = crate::memory(&[("tokenizer.json", TOKENIZER), ("chat_template.json", r#"{"chat_template": "j"}"#)]);
    assert_eq!(json.unwrap().templates().source("default"), Some("j"));
    let error = crate::memory(&[("tokenizer.json", TOKENIZER), ("tokenizer_config.json", r#"{"chat_template": 3}"#)]);
    assert!(error.unwrap_err().to_string().contains("found a number"));
}

pub const TOKENIZER: &str = r#"{"version": "1.0", "added_tokens": [], "normalizer": null, "pre_tokenizer": null,
    "post_processor": null, "decoder": null, "model": {"type": "BPE", "vocab": {"a": 0, "b": 1}, "merges": []}}"#;

#[test]
fn a_hostile_template_ends() {
    for source in [
        "{% for i in range(100000) %}{% for j in range(100000) %}x{% endfor %}{% endfor %}",
        "{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}",
        "{% set ns = namespace(s='x') %}{% for i in range(10000) %}{% set ns.s = ns.s ~ ns.s %}{% endfor %}",
        "{{ 'x' * 100000000000 }}",
        "{{ 'x' | indent(99999999999) }}",
        "{{ strftime_now('%Q') }}",
        "{% include 'default' %}",
        "{{ messages | tojson(indent=999999999) }}",
    ] {
        // Whether it is refused or cut short does not matter, only that it comes back.
        let _ = templates(&[("default", source)]).render(None, &Chat::default());
    }
    let deep = format!("{{{{ {}1{} | tojson }}}}", "[".repeat(5000), "]".repeat(5000));
    assert!(templates(&[("default", &deep)]).render(None, &Chat::default()).is_err());
    let error = templates(&[("default", "a\n{% if %}")]).render(None, &Chat::default()).unwrap_err().to_string();
    assert!(error.contains("line 2"), "{error}");
}

#[test]
fn marks_in_the_conversation_are_refused() {
    let messages = [json!({"role": "user", "content": "\u{FDD0}"})];
    let chat = Chat { messages: &messages, ..Chat::default() };
    let error = templates(&[("default", "{{ messages }}")]).render(None, &chat).unwrap_err().to_string();
    assert!(error.contains("U+FDD0"), "{error}");
}

#[test]
fn variables_reach_the_template() {
    let mut variables = Map::new();
    variables.insert("enable_thinking".to_owned(), json!(false));
    let chat = Chat { variables, ..Chat::default() };
    let templates = templates(&[("default", "{{ enable_thinking is false }}{{ bos_token }}{{ missing is defined }}")]);
    assert_eq!(templates.render(None, &chat).unwrap().text, "True<s>False");
}
