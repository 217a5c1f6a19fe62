//! Spellings of examples, and which tokens of each are learned.
#![expect(clippy::unwrap_used, reason = "tests")]

use std::path::Path;
use std::sync::Arc;

use super::super::records::Record;
use super::super::table::{Column, Row};
use super::super::testing::{bpe, chatml};
use super::*;
use crate::dataset::{Part, Position};

fn read(row: Value) -> std::result::Result<Dialogue, String> {
    with(row, &[])
}

fn with(row: Value, columns: &[(&str, &str)]) -> std::result::Result<Dialogue, String> {
    let file: Arc<Path> = Path::new("chats.jsonl").into();
    let position = Position::at(&file, Part::Line, 3);
    let row = Row { fields: row.as_object().unwrap().clone(), position, numbered: false };
    let columns = columns.iter().map(|(role, name)| ((*role).to_owned(), Column::Name((*name).to_owned())));
    Dialogue::from_row(row, &columns.collect(), &mut Default::default()).map_err(|error| error.to_string())
}

/// What is learned, as text, with `|` where learned tokens are interrupted.
fn learned(tokenizer: &Tokenizer, row: Value, loss_on: Option<LossOn>) -> String {
    let encoded = Encoder::new(tokenizer, loss_on).encode(&read(row).unwrap()).unwrap();
    assert_eq!(encoded.doubts, Vec::<String>::new());
    let runs = encoded.ids.iter().zip(&encoded.learned).collect::<Vec<_>>();
    let runs = runs.chunk_by(|one, next| one.1 == next.1).filter(|run| *run[0].1);
    let text = |run: &[(&u32, &bool)]| tokenizer.decode(&run.iter().map(|(id, _)| **id).collect::<Vec<_>>(), false);
    runs.map(|run| format!("|{}", text(run).unwrap())).collect()
}

fn chat(turns: &[(&str, &str)]) -> Value {
    turns.iter().map(|(role, content)| json!({"role": role, "content": content})).collect()
}

#[test]
fn every_spelling_is_recognised_by_its_keys() {
    let hello = chat(&[("user", "Hi"), ("assistant", "Hello")]);
    let messages = Content::Messages(hello.as_array().unwrap().clone());
    for row in [
        json!({"messages": hello}),
        json!({"conversations": hello, "id": 3, "source": null}),
        json!({"conversations": [{"from": "human", "value": "Hi"}, {"from": "gpt", "value": "Hello"}]}),
        json!({"messages": hello.to_string()}),
        json!({"messages": [{"role": "user", "content": "Hi", "tool_calls": null}, {"role": "assistant", "content": "Hello"}]}),
    ] {
        assert_eq!(read(row).unwrap().content, messages);
    }
    let task = Content::Instruction { instruction: "Add.".into(), input: "1, 2".into(), output: "3".into() };
    assert_eq!(read(json!({"instruction": "Add.", "input": "1, 2", "output": "3"})).unwrap().content, task);
    assert_eq!(read(json!({"instruction": "Add.", "input": "1, 2", "response": "3"})).unwrap().content, task);
    let pair = Content::Completion { prompt: "a".into(), completion: "b".into() };
    assert_eq!(read(json!({"prompt": "a", "completion": "b", "text": "c"})).unwrap().content, pair);
    assert_eq!(
        with(json!({"q": "a", "x": {"y": "b"}}), &[("prompt", "q"), ("completion", "x.y")]).unwrap().content,
        pair
    );
    assert_eq!(read(json!({"text": "t"})).unwrap().content, Content::Text("t".into()));
    let (one, two) = (chat(&[("user", "Hi")]), chat(&[("assistant", "Hello")]));
    let reply = read(json!({"prompt": one, "completion": two})).unwrap();
    assert!(matches!(reply.content, Content::Reply { prompt, completion } if prompt.len() + completion.len() == 2));
    let history = json!({"instruction": "c", "output": "d", "history": [["a", "b"]], "system": "s"});
    let Content::Reply { prompt, completion } = read(history).unwrap().content else { unreachable!() };
    assert_eq!(Value::from(prompt), chat(&[("system", "s"), ("user", "a"), ("assistant", "b"), ("user", "c")]));
    assert_eq!(Value::from(completion), chat(&[("assistant", "d")]));
}

#[test]
fn tools_and_calls_of_share_gpt_become_those_of_templates() {
    let made = read(json!({
        "conversations": [
            {"from": "human", "value": "Weather?"},
            {"from": "function_call", "value": "{\"name\": \"weather\", \"arguments\": {\"place\": \"Oslo\"}}"},
            {"from": "observation", "value": "-3"},
            {"from": "gpt", "value": "Cold."},
        ],
        "tools": "[{\"name\": \"weather\", \"parameters\": {}}]",
        "system": "Be brief.",
    }))
    .unwrap();
    assert_eq!(made.tools.unwrap()[0], json!({"type": "function", "function": {"name": "weather", "parameters": {}}}));
    let Content::Messages(messages) = made.content else { unreachable!() };
    assert_eq!(messages[0], json!({"role": "system", "content": "Be brief."}));
    assert_eq!(messages[2]["tool_calls"][0]["function"]["arguments"]["place"], "Oslo");
    assert_eq!(messages[3], json!({"role": "tool", "content": "-3"}));
}

#[test]
fn what_is_not_recognised_is_named() {
    for (row, expected) in [
        (json!({"a": 1, "b": 2}), "this row has `a`, `b`"),
        (json!({"prompt": "a", "answer": "b"}), "`prompt` without `completion`"),
        (json!({"prompt": "a", "completion": []}), "found a string and a list"),
        (json!({"instruction": "a"}), "`instruction` without `output`"),
        (json!({"messages": []}), "`messages` is empty"),
        (json!({"messages": [{"from": "martian", "value": "x"}]}), "message 1: `from` is \"martian\""),
        (json!({"messages": [{"author": "x"}]}), "found `author`"),
        (json!({"messages": [3]}), "found a number"),
        (json!({"conversations": [{"from": "function_call", "value": "x"}]}), "should be JSON"),
        (json!({"text": " "}), "`text` is blank"),
        (json!({"text": "a", "tools": 3}), "`tools` should be a list"),
    ] {
        let error = read(row).unwrap_err();
        assert!(error.contains(expected) && error.contains("chats.jsonl, line 3"), "{error}");
    }
    let error = with(json!({"a": "x"}), &[("text", "b")]).unwrap_err();
    assert!(error.contains("no column `b` for text; this row has `a`"), "{error}");
}

#[test]
fn each_kind_of_example_is_masked_as_asked() {
    let (plain, chatml) = (bpe(), chatml());
    let turns = chat(&[("user", "Hi"), ("assistant", "Hello, fox!"), ("user", "é"), ("assistant", "é 😀")]);
    let row = || json!({"messages": turns});
    assert_eq!(learned(&chatml, row(), None), "|Hello, fox!<|im_end|>|é 😀<|im_end|>");
    assert_eq!(learned(&chatml, row(), Some(LossOn::Completion)), "|é 😀<|im_end|>\n");
    assert!(learned(&chatml, row(), Some(LossOn::All)).starts_with("|<|im_start|>user\nHi<|im_end|>\n<|im"));
    let pair = || json!({"prompt": "Say hello to", "completion": " the fox."});
    assert_eq!(learned(&plain, pair(), None), "| the fox.<|endoftext|>");
    assert_eq!(learned(&plain, pair(), Some(LossOn::Assistant)), "| the fox.<|endoftext|>");
    assert_eq!(learned(&plain, pair(), Some(LossOn::All)), "|Say hello to the fox.<|endoftext|>");
    assert_eq!(learned(&plain, json!({"text": "Hello<|endoftext|>"}), None), "|Hello<|endoftext|>");
    let task = || json!({"instruction": "Say hello.", "input": "", "output": "Hello!"});
    assert_eq!(learned(&plain, task(), None), "|Hello!<|endoftext|>");
    assert_eq!(learned(&chatml, task(), None), "|Hello!<|im_end|>\n");
    assert_eq!(learned(&chatml, task(), Some(LossOn::Assistant)), "|Hello!<|im_end|>");
    let (prompt, completion) = (chat(&[("user", "a"), ("assistant", "b"), ("user", "c")]), chat(&[("assistant", "d")]));
    let reply = json!({"prompt": prompt, "completion": completion});
    assert_eq!(learned(&chatml, reply, Some(LossOn::Assistant)), "|d<|im_end|>");
}

#[test]
fn a_mask_that_an_example_has_no_room_for_is_refused() {
    let error = |tokenizer: &Tokenizer, row: Value, loss_on| {
        Encoder::new(tokenizer, Some(loss_on)).encode(&read(row).unwrap()).unwrap_err().to_string()
    };
    let found = error(&bpe(), json!({"text": "a"}), LossOn::Assistant);
    assert!(found.contains("chats.jsonl, line 3: a text has nothing but itself"), "{found}");
    let found = error(&bpe(), json!({"messages": chat(&[("user", "a")])}), LossOn::Assistant);
    assert!(found.contains("needs a chat template"), "{found}");
    let found = error(&chatml(), json!({"messages": chat(&[("user", "a")]), "tools": [{"name": "f"}]}), LossOn::All);
    assert!(found.contains("no place for tools"), "{found}");
}

#[test]
fn every_byte_of_the_text_belongs_to_a_token() {
    let made = Encoder::new(&chatml(), None)
        .encode(&read(json!({"messages": chat(&[("user", " a\n\n é😀"), ("assistant", "  \n")])})).unwrap())
        .unwrap();
    let mut covered = vec![false; made.text.len()];
    made.bytes.iter().for_each(|bytes| covered[bytes.clone()].fill(true));
    assert!(covered.iter().all(|&covered| covered));
}
