//! What the assistant wrote, found in conversations under templates of many styles.

use std::collections::BTreeMap;

use phyla_data::supervised::records::{Content, Dialogue};
use phyla_data::supervised::table::Table;
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

/// Calls of tools: where the tools stand beside the last question alone, a call replaces the content, a second one opens no
/// turn, and calls end otherwise than answers do.
const CALLING: [(&str, &str, &[&str], [&str; 4]); 3] = [
    (
        "tools beside the last question",
        "{{ bos_token }}{% set asked = messages | selectattr('role', 'equalto', 'user') | list %}{% for m in messages %}\
         {% if m.role == 'user' %}{% if m == asked[-1] %}[TOOLS]{{ tools | tojson }}[/TOOLS]{% endif %}[INST]{{ m.content }}[/INST]\
         {% elif m.tool_calls %}[CALLS]{{ m.tool_calls | map(attribute='function') | list | tojson }}</s>\
         {% elif m.role == 'tool' %}[RESULT]{{ m.content }}[/RESULT]{% else %}{{ m.content }}</s>{% endif %}{% endfor %}",
        &["<s>", "</s>", "[INST]", "[/INST]"],
        [
            "[CALLS][{\"name\": \"look\", \"arguments\": {\"at\": \"Oslo\"}}]</s>",
            "Cold.</s>",
            "[CALLS][{\"name\": \"look\", \"arguments\": {\"at\": \"Rome\"}}]</s>",
            "Warm.</s>",
        ],
    ),
    (
        "a prompt that opens reasoning, and calls that open with the same sign",
        "{% for m in messages %}{% if m.role == 'assistant' %}{% if not m.tool_calls or loop.index < 5 %}<|me|>{% endif %}\
         {% if m.tool_calls %}<|call|>{{ m.tool_calls[0].function.name }}:\
         {{ m.tool_calls[0].function.arguments.at }}<|called|>{% else %}{{ m.content }}{% endif %}<|end|>\
         {% else %}<|{{ m.role }}|>{{ m.content }}<|over|>{% endif %}{% endfor %}\
         {% if add_generation_prompt %}<|me|><think>\n{% endif %}",
        &["<|me|>", "<|call|>", "<|called|>", "<|end|>", "<|over|>"],
        ["<|call|>look:Oslo<|called|><|end|>", "Cold.<|end|>", "<|call|>look:Rome<|called|><|end|>", "Warm.<|end|>"],
    ),
    (
        "content before the call, and an end of its own",
        "{% for m in messages %}<|{{ m.role }}|>\n{{ m.content }}{% if m.tool_calls %}<f>{{ m.tool_calls[0].function | tojson }}\
         </f><|eom|>{% else %}<|eot|>{% endif %}\n{% endfor %}{% if add_generation_prompt %}<|assistant|>\n{% endif %}",
        &["<|eom|>", "<|eot|>", "<|user|>", "<|assistant|>"],
        [
            "<f>{\"name\": \"look\", \"arguments\": {\"at\": \"Oslo\"}}</f><|eom|>",
            "Cold.<|eot|>",
            "<f>{\"name\": \"look\", \"arguments\": {\"at\": \"Rome\"}}</f><|eom|>",
            "Warm.<|eot|>",
        ],
    ),
];

#[test]
fn calls_are_turns_and_their_results_are_not() {
    let call = |at: &str| json!({"type": "function", "function": {"name": "look", "arguments": {"at": at}}});
    let calls = |at: &str| json!({"role": "assistant", "content": "", "tool_calls": [call(at)]});
    let said = |role: &str, content: &str| json!({"role": role, "content": content});
    let messages = [
        said("user", "Oslo?"),
        calls("Oslo"),
        said("tool", "-3"),
        said("assistant", "Cold."),
        said("user", "Rome?"),
        calls("Rome"),
        said("tool", "20"),
        said("assistant", "Warm."),
    ];
    let tools = [json!({"type": "function", "function": {"name": "look"}})];
    for (style, source, special, expected) in CALLING {
        let special: Vec<String> = special.iter().map(|token| (*token).to_owned()).collect();
        let chat = Chat { messages: &messages, tools: Some(&tools), ..Chat::default() };
        let turns = templates(source).turns(None, &chat, &special).unwrap();
        let found: Vec<&str> = turns.spans.iter().map(|span| &turns.rendered.text[span.clone()]).collect();
        assert_eq!((found.as_slice(), &turns.doubts), (&expected[..], &vec![]), "{style}: {}", turns.rendered.text);
    }
}

/// What trl's `datasets` make of conversations: each struct has the fields of all.
#[test]
fn nested_parquet_reads_as_the_same_lines_of_json() {
    let golden = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/golden/sft");
    let read = |name: &str| -> Vec<Dialogue> {
        Table::open(golden.join(name)).unwrap().records().collect::<phyla_data::Result<_>>().unwrap()
    };
    let (table, lines) = (read("dialogues.parquet"), read("dialogues.jsonl"));
    assert_eq!(lines.len(), 4);
    // The order of an object's fields is the table's, and templates write arguments in it.
    assert_eq!(table, lines);
    let Content::Messages(messages) = &table[0].content else { unreachable!() };
    let calls = &messages[1]["tool_calls"];
    assert_eq!(calls[0]["function"]["arguments"].to_string(), r#"{"at":"Oslo"}"#);
    assert_eq!(calls[1]["function"]["arguments"].to_string(), r#"{"zone":1,"exact":true}"#);
    assert!(messages[1]["content"].is_null() && messages[1].get("content").is_some());
    assert!(messages[0].get("tool_calls").is_none());
}

pub fn special_of(source: &str) -> Vec<String> {
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
