//! What the assistant wrote, found in conversations under templates of many styles.

use std::collections::BTreeMap;

use phyla_data::template::{Chat, Templates};
use phyla_data::tokenizer::{SpecialToken, SpecialTokens};
use serde_json::{Value, json};

fn templates(source: &str) -> Templates {
    let token = |text: &str, id| Some(SpecialToken { text: text.to_owned(), id });
    let special = SpecialTokens { bos: token("<s>", 1), eos: token("</s>", 2), ..SpecialTokens::default() };
    Templates::new(BTreeMap::from([("default".to_owned(), source.to_owned())]), &special)
}

fn conversation() -> Vec<Value> {
    vec![
        json!({"role": "system", "content": "Be kind."}),
        json!({"role": "user", "content": "Hello"}),
        json!({"role": "assistant", "content": " Hi! <b>\n"}),
        json!({"role": "user", "content": "Hi! <b>"}),
        json!({"role": "assistant", "content": "<think>\nHm.\n</think>\n\nBye"}),
    ]
}

/// What is learned, turn by turn, and the doubts.
fn learned(source: &str, messages: &[Value], special: &[&str]) -> (Vec<String>, Vec<String>) {
    let special: Vec<String> = special.iter().map(|token| (*token).to_owned()).collect();
    let turns = templates(source).turns(None, &Chat { messages, ..Chat::default() }, &special).unwrap();
    (turns.spans.iter().map(|span| turns.rendered.text[span.clone()].to_owned()).collect(), turns.doubts)
}

const STYLES: [(&str, &str, &[&str], [&str; 2]); 11] = [
    (
        "chatml",
        "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}\
         {% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}",
        &["<|im_start|>", "<|im_end|>"],
        [" Hi! <b>\n<|im_end|>", "<think>\nHm.\n</think>\n\nBye<|im_end|>"],
    ),
    (
        "trimmed, and the system's message inside the user's",
        "{% set s = '' %}{% if messages[0].role == 'system' %}{% set s = messages[0].content + '\n\n' %}\
         {% set messages = messages[1:] %}{% endif %}{% for m in messages %}<turn>{{ m.role }}\n\
         {% if loop.first %}{{ s }}{% endif %}{{ m.content | trim }}<end>\n{% endfor %}\
         {% if add_generation_prompt %}<turn>assistant\n{% endif %}",
        &["<turn>", "<end>"],
        ["Hi! <b><end>", "<think>\nHm.\n</think>\n\nBye<end>"],
    ),
    (
        "the system's message in the last of the user's",
        "{{ bos_token }}{% for m in messages %}{% if m.role == 'user' %}[INST] {% if loop.index0 == (messages | \
         selectattr('role', 'equalto', 'user') | list | length) * 2 - 1 %}{{ messages[0].content }} {% endif %}\
         {{ m.content }}[/INST]{% elif m.role == 'assistant' %} {{ m.content }}</s>{% endif %}{% endfor %}",
        &["<s>", "</s>"],
        ["  Hi! <b>\n</s>", " <think>\nHm.\n</think>\n\nBye</s>"],
    ),
    (
        "reasoning is stripped but for the last turn, and opened by the prompt",
        "{% for m in messages %}<|{{ m.role }}|>{% if m.role == 'assistant' and not loop.last %}\
         {{ m.content.split('</think>')[-1] }}{% else %}{{ m.content }}{% endif %}<|end|>{% endfor %}\
         {% if add_generation_prompt %}<|assistant|><think>\n{% endif %}",
        &["<|user|>", "<|assistant|>", "<|end|>"],
        [" Hi! <b>\n<|end|>", "Hm.\n</think>\n\nBye<|end|>"],
    ),
    (
        "reasoning is always stripped",
        "{% for m in messages %}<|{{ m.role }}|>{{ m.content.split('</think>')[-1] }}<|end|>{% endfor %}\
         {% if add_generation_prompt %}<|assistant|>{% endif %}",
        &["<|user|>", "<|assistant|>", "<|end|>"],
        [" Hi! <b>\n<|end|>", "\n\nBye<|end|>"],
    ),
    (
        "plain words",
        "{% for m in messages %}{{ m.role | upper }}: {{ m.content | trim }}\n{% endfor %}\
         {% if add_generation_prompt %}ASSISTANT: {% endif %}",
        &[],
        ["Hi! <b>\n", "<think>\nHm.\n</think>\n\nBye\n"],
    ),
    (
        "the conversation is closed",
        "{{ bos_token }}{% for m in messages %}<|{{ m.role }}|>\n{{ m.content }}<|end|>\n{% endfor %}\
         {% if add_generation_prompt %}<|assistant|>\n{% else %}<|endoftext|>{% endif %}",
        &[],
        [" Hi! <b>\n<|end|>", "<think>\nHm.\n</think>\n\nBye<|end|>"],
    ),
    (
        "closed, with special tokens",
        "{% for m in messages %}<|{{ m.role }}|>\n{{ m.content }}<|end|>\n{% endfor %}\
         {% if add_generation_prompt %}<|assistant|>\n{% else %}<|endoftext|>{% endif %}",
        &["<|end|>", "<|endoftext|>", "<|user|>"],
        [" Hi! <b>\n<|end|>", "<think>\nHm.\n</think>\n\nBye<|end|>"],
    ),
    (
        "only the last turn is ended",
        "{% for m in messages %}{{ m.role }}: {{ m.content }}{% if loop.last and not add_generation_prompt %}</s>{% else %}\
         \n\n{% endif %}{% endfor %}{% if add_generation_prompt %}assistant: {% endif %}",
        &["</s>"],
        [" Hi! <b>\n", "<think>\nHm.\n</think>\n\nBye</s>"],
    ),
    (
        "no generation prompt",
        "{% for m in messages %}<{{ m.role }}>{{ m.content }}</{{ m.role }}>{% endfor %}",
        &[],
        ["<assistant> Hi! <b>\n</assistant>", "<assistant><think>\nHm.\n</think>\n\nBye</assistant>"],
    ),
    (
        "generation blocks",
        "{% for m in messages %}{{ m.role }}:{% if m.role == 'assistant' %}{% generation %}{{ m.content }}{% endgeneration %}\
         {% endif %}{% endfor %}",
        &[],
        [" Hi! <b>\n", "<think>\nHm.\n</think>\n\nBye"],
    ),
];

#[test]
fn turns_are_found_under_templates_of_many_styles() {
    let mut wrong = vec![];
    for (style, source, special, expected) in STYLES {
        let found = learned(source, &conversation(), special);
        if found.0 != expected || !found.1.is_empty() {
            wrong.push(format!("{style}: {found:?}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

fn special_of(source: &str) -> Vec<String> {
    let mut found: Vec<String> = vec!["<s>".into(), "</s>".into()];
    for (open, close) in
        [("<|", "|>"), ("<｜", "｜>"), ("<end_of", ">"), ("<start_of", ">"), ("[INST", "]"), ("[/INST", "]")]
    {
        for (at, _) in source.match_indices(open) {
            let rest = &source[at..];
            if let Some(end) = rest.find(close).filter(|&end| end < 40) {
                found.push(rest[..end + close.len()].to_owned());
            }
        }
    }
    found.sort();
    found.dedup();
    found
}

/// Conversations of many shapes: with and without a system's message, one turn or several, odd contents.
fn shapes() -> Vec<Vec<Value>> {
    let said = ["Fine.", " Two\nlines \n", "{\"a\": 1}", "x < y && [z]", "你好 😀", "Fine."];
    let mut all = vec![];
    for turns in 1..=5 {
        for system in [false, true] {
            for shift in 0..3 {
                let mut messages = vec![];
                if system {
                    messages.push(json!({"role": "system", "content": "Answer briefly."}));
                }
                for turn in 0..turns {
                    messages.push(json!({"role": "user", "content": format!("Question {turn}: {}", said[(turn + shift + 1) % 6])}));
                    messages.push(json!({"role": "assistant", "content": said[(turn + shift) % 6]}));
                }
                all.push(messages);
            }
        }
    }
    all
}

/// Needs the templates of well-known models.
#[test]
fn turns_are_found_under_well_known_templates() {
    let Some(folder) = crate::shared::shared("chat_templates") else { return };
    let (mut wrong, mut count, mut refused) = (vec![], 0, 0);
    let files = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let mut files: Vec<_> = files.filter(|path| path.extension().is_some_and(|ending| ending == "jinja")).collect();
    files.sort();
    for path in &files {
        let source = std::fs::read_to_string(path).unwrap();
        let name = path.file_stem().unwrap().to_string_lossy().into_owned();
        let templates = templates(&source);
        for special in [special_of(&source), vec![]] {
            for (number, messages) in shapes().iter().enumerate() {
                let turns = match templates.turns(None, &Chat { messages, ..Chat::default() }, &special) {
                    Ok(turns) => turns,
                    Err(_) => {
                        refused += 1;
                        continue;
                    }
                };
                let text = &turns.rendered.text;
                let contents = messages.iter().filter(|message| message["role"] == "assistant");
                let contents: Vec<&str> = contents.map(|message| message["content"].as_str().unwrap()).collect();
                let spans: Vec<&str> = turns.spans.iter().map(|span| &text[span.clone()]).collect();
                // What opens an answer (`all\n`) is written by the assistant as well; what closes it, is always the same.
                let closing = |span: &str, content: &str| {
                    let at = span.find(content.trim())?;
                    Some(span[at + content.trim().len()..].trim_start().to_owned())
                };
                let pairs = spans.iter().zip(&contents);
                let closings: Vec<Option<String>> = pairs.map(|(span, content)| closing(span, content)).collect();
                count += 1;
                let same = closings.iter().all(|closing| *closing == closings[0]);
                let ended =
                    closings[0].as_ref().is_some_and(|closing| !closing.is_empty() && !closing.contains("START"));
                if spans.len() != contents.len() || !turns.doubts.is_empty() || !same || !(ended || special.is_empty())
                {
                    wrong.push(format!("{name} {number} {}: {spans:?} {:?}", special.len(), turns.doubts));
                    break;
                }
                if number == 29 {
                    println!("{name}: {:?}", spans[0]);
                }
            }
        }
    }
    println!("{count} conversations under {} templates, {refused} refused by their templates", files.len());
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
