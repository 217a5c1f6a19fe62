//! `predict`, `eval`, `fill-mask`, `translate` and `embed` as a user meets them, on models made here.
#![expect(clippy::unwrap_used, reason = "tests")]

mod common;

use std::fs;
use std::io::Write;
use std::path::Path;
use std::process::Stdio;

use common::{command, matches_snapshot, phyla, said, transcript};
use phyla::data::supervised::lengths::LengthBatches;
use phyla::models::checkpoint::Checkpoint;
use phyla::task::Runner;
use phyla::task::likelihood::Measure;
use phyla::{Input, Session};
use serde_json::{Map, Value, json};

/// Words of the texts below, and their pieces: whatever else is spelled letter by letter.
const WORDS: [&str; 12] = ["good", "bad", "fox", "the", "a", "sat", "by", "river", "anna", "berlin", "in", "saw"];

/// As [`said`], with this on standard input.
fn said_with(folder: &Path, args: &[&str], input: &str) -> String {
    let mut child =
        command(folder, args).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    // Texts of tests are far shorter than a pipe is wide.
    child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.success() && stderr.is_empty(), "{args:?}: {stderr}");
    String::from_utf8(output.stdout).unwrap()
}

/// A folder with a fresh model of these settings and a WordPiece tokenizer.
fn model(folder: &Path, name: &str, config: Value) {
    let mut vocabulary: Vec<String> = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "##s"]
        .iter()
        .chain(&WORDS)
        .map(|word| word.to_string())
        .collect();
    for letter in ('a'..='z').chain(['.', ',', '?', '!', 'ä', 'ö']) {
        vocabulary.extend([letter.to_string(), format!("##{letter}")]);
    }
    vocabulary.sort();
    vocabulary.dedup();
    // The padding is id 0, as models take it to be.
    vocabulary.retain(|token| token != "[PAD]");
    vocabulary.insert(0, "[PAD]".into());
    let mut full = json!({
        "model_type": "bert", "vocab_size": vocabulary.len(), "hidden_size": 16, "intermediate_size": 24,
        "num_hidden_layers": 2, "num_attention_heads": 4, "max_position_embeddings": 24, "initializer_range": 0.5,
        "pad_token_id": 0,
    });
    full.as_object_mut().unwrap().extend(config.as_object().unwrap().clone());
    full.as_object_mut().unwrap().retain(|_, value| !value.is_null());
    fs::write(folder.join("c.json"), full.to_string()).unwrap();
    said(folder, &["init", "--config", "c.json", "--output", name, "--seed", "3"]);
    fs::write(folder.join(name).join("vocab.txt"), vocabulary.join("\n")).unwrap();
    let settings = json!({ "tokenizer_class": "BertTokenizer", "do_lower_case": true, "strip_accents": false });
    fs::write(folder.join(name).join("tokenizer_config.json"), settings.to_string()).unwrap();
}

fn classifier(folder: &Path) {
    let labels = json!({ "0": "neg", "1": "neu", "2": "pos" });
    model(folder, "cls", json!({ "architectures": ["BertForSequenceClassification"], "id2label": labels }));
}

fn t5() -> Value {
    json!({
        "model_type": "t5", "architectures": ["T5ForConditionalGeneration"], "d_model": 16, "d_kv": 4, "d_ff": 24,
        "num_layers": 2, "num_heads": 4, "decoder_start_token_id": 0, "eos_token_id": 3, "initializer_factor": 2.0,
        "hidden_size": null, "intermediate_size": null, "num_hidden_layers": null, "num_attention_heads": null,
        "max_position_embeddings": null, "initializer_range": null,
    })
}

/// Texts of 1 to `longest` words, the same ones each time.
fn texts(count: usize, longest: usize) -> Vec<String> {
    let mut state = 7u64;
    let mut next = |below: usize| {
        state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        (state >> 33) as usize % below
    };
    (0..count).map(|_| (0..1 + next(longest)).map(|_| WORDS[next(WORDS.len())]).collect::<Vec<_>>().join(" ")).collect()
}

fn lines(text: &str) -> Vec<Value> {
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn near(a: &Value, b: f32) -> bool {
    // Sums of f32 in another order: rows come with others here, and alone there.
    (a.as_f64().unwrap() as f32 - b).abs() < 2e-5
}

fn open(folder: &Path, name: &str) -> Session {
    Session::open(folder.join(name).to_str().unwrap()).unwrap()
}

/// A model's numbers for one text alone.
fn alone(session: &Session, text: &str, max_len: usize) -> (Vec<u32>, Vec<f32>) {
    let mut ids = session.tokenizer.as_ref().unwrap().encode(text, true).unwrap();
    if ids.len() > max_len {
        let last = ids.pop().unwrap();
        ids.truncate(max_len - 1);
        ids.push(last);
    }
    let output = session.forward(&Input::row(&ids)).unwrap();
    let logits = output.get("logits").unwrap().flatten_all().unwrap().to_vec1().unwrap();
    (ids, logits)
}

fn softmax(scores: &[f32]) -> Vec<f32> {
    let sum: f32 = scores.iter().map(|score| score.exp()).sum();
    scores.iter().map(|score| score.exp() / sum).collect()
}

#[test]
fn help_says_what_the_commands_do() {
    let folder = tempfile::tempdir().unwrap();
    for command in ["predict", "eval", "fill-mask", "translate", "embed"] {
        matches_snapshot(&format!("help-{command}"), &said(folder.path(), &[command, "--help"]));
    }
}

#[test]
fn ten_thousand_mixed_texts_come_back_in_order_and_as_if_alone() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path();
    classifier(path);
    let texts = texts(10_000, 40);
    fs::write(path.join("texts.txt"), texts.join("\n")).unwrap();
    let output = phyla(path, &["predict", "--model", "cls", "texts.txt", "--all-scores"]);
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.success() && stderr.contains("inputs were cut"), "{stderr}");
    let results = lines(&String::from_utf8(output.stdout).unwrap());
    assert_eq!(results.len(), texts.len());
    let session = open(path, "cls");
    for at in (0..texts.len()).step_by(97) {
        let scores = softmax(&alone(&session, &texts[at], 24).1);
        for (class, name) in ["neg", "neu", "pos"].iter().enumerate() {
            assert!(near(&results[at]["scores"][name], scores[class]), "{at}: {} {scores:?}", results[at]);
        }
        let best = results[at]["label"].as_str().unwrap();
        assert!(near(&results[at]["score"], scores.iter().copied().fold(0., f32::max)), "{best}");
    }
}

#[test]
fn classifiers_that_read_a_last_token_find_it_behind_filling_and_without_any() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path();
    let texts = texts(60, 12);
    fs::write(path.join("t.txt"), texts.join("\n")).unwrap();
    // Without an id of padding nothing tells where a row ends, and only rows of one length may come together.
    for pad in [json!(0), Value::Null] {
        let gpt2 = json!({
            "model_type": "gpt2", "architectures": ["GPT2ForSequenceClassification"], "n_embd": 16, "n_layer": 2,
            "n_head": 4, "n_positions": 24, "hidden_size": null, "intermediate_size": null, "num_hidden_layers": null,
            "num_attention_heads": null, "max_position_embeddings": null, "initializer_range": 0.3, "pad_token_id": pad,
        });
        fs::remove_dir_all(path.join("gpt2")).ok();
        model(path, "gpt2", gpt2);
        let found = lines(&said(path, &["predict", "--model", "gpt2", "t.txt", "--all-scores", "-q"]));
        let session = open(path, "gpt2");
        for (text, one) in texts.iter().zip(&found) {
            let scores = softmax(&alone(&session, text, 24).1);
            assert!(near(&one["scores"]["LABEL_0"], scores[0]), "{pad} {text}: {one} {scores:?}");
        }
    }
    model(path, "nsp", json!({ "architectures": ["BertForNextSentencePrediction"] }));
    let pair = "{\"text_a\": \"the fox sat\", \"text_b\": \"by the river\"}";
    let found = lines(&said_with(path, &["predict", "--model", "nsp", "-", "--format", "jsonl", "--all-scores"], pair));
    let scores = &found[0]["scores"];
    assert!((scores["next"].as_f64().unwrap() + scores["random"].as_f64().unwrap() - 1.).abs() < 1e-6, "{found:?}");
}

#[test]
fn a_bad_input_has_its_line_and_the_rest_is_done() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path();
    classifier(path);
    fs::write(path.join("a.txt"), b"good fox\n\nbad \xFF\nthe fox\n").unwrap();
    let text = transcript(path, &["predict", "--model", "cls", "a.txt"]);
    assert!(
        text.contains("a.txt, line 2: the text is blank") && text.contains("a.txt, line 3: invalid UTF-8"),
        "{text}"
    );
    assert!(text.contains("error: 2 of 4 inputs could not be used") && text.ends_with("exit code 2\n"), "{text}");
    assert_eq!(text.matches("{\"label\"").count(), 2);
    let allowed = transcript(path, &["predict", "--model", "cls", "a.txt", "--allow-faults", "--shape", "tsv"]);
    assert!(allowed.contains("label\tscore\n") && allowed.ends_with("exit code 0\n"), "{allowed}");
    // Rows of a table, from standard input, with a pair of texts.
    let rows = "{\"sentence1\": \"good fox\", \"sentence2\": \"bad\"}\n{\"sentence1\": 3, \"sentence2\": \"bad\"}\n";
    let output =
        said_with(path, &["predict", "--model", "cls", "-", "--format", "jsonl", "--allow-faults", "-q"], rows);
    assert_eq!(lines(&output).len(), 2);
    assert!(output.contains("should be a string, found a number"), "{output}");
    let same = transcript(path, &["predict", "--model", "cls", "a.txt", "--output", "./a.txt"]);
    assert!(same.contains("which is also read") && same.ends_with("exit code 2\n"), "{same}");
    assert!(!fs::read(path.join("a.txt")).unwrap().is_empty());
}

#[test]
fn entities_stand_where_they_say() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path();
    let labels = json!({ "0": "O", "1": "B-PER", "2": "I-PER", "3": "B-LOC", "4": "I-LOC" });
    model(path, "ner", json!({ "architectures": ["BertForTokenClassification"], "id2label": labels }));
    // Longer than the model reads at once, with letters of two bytes before them.
    let text = format!("Ä ö {}.", "good".to_owned() + " anna saw the fox, in berlin by the river!".repeat(6).as_str());
    let found = lines(&said_with(path, &["predict", "--model", "ner", "-"], &text));
    let entities = found[0]["entities"].as_array().unwrap();
    assert!(entities.len() > 5, "{found:?}");
    let letters: Vec<char> = text.chars().collect();
    for entity in entities {
        let place = entity["start"].as_u64().unwrap() as usize..entity["end"].as_u64().unwrap() as usize;
        assert_eq!(letters[place].iter().collect::<String>(), entity["text"].as_str().unwrap());
    }
    // Words given divided: a tag for each, as the model alone says of a word's first piece.
    let words = "anna saw foxes in berlin";
    let tags = lines(&said_with(path, &["predict", "--model", "ner", "-", "--words"], words));
    let session = open(path, "ner");
    let (ids, logits) = alone(&session, words, 24);
    let detailed = session.tokenizer.as_ref().unwrap().encode_detailed(words, true).unwrap();
    let names = ["O", "B-PER", "I-PER", "B-LOC", "I-LOC"];
    let mut expected = vec![];
    for at in 0..ids.len() {
        if detailed.words[at].is_some() && detailed.words[at] != detailed.words[at - 1] {
            let row = &logits[at * 5..][..5];
            expected.push(names[(0..5).max_by(|&a, &b| row[a].total_cmp(&row[b])).unwrap()]);
        }
    }
    assert_eq!(tags[0]["tags"], json!(expected));
}

#[test]
fn answers_choices_and_masks_are_those_of_the_model() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path();
    model(path, "qa", json!({ "architectures": ["BertForQuestionAnswering"] }));
    let context = "anna saw the fox by the river in berlin, the good fox sat by the river. ".repeat(3);
    let asked = json!({ "id": "q1", "question": "the fox?", "context": context }).to_string();
    let args = ["predict", "--model", "qa", "-", "--format", "jsonl", "--null-threshold"];
    let found = &lines(&said_with(path, &[&args[..], &["1000"]].concat(), &asked))[0];
    let place = found["start"].as_u64().unwrap() as usize..found["end"].as_u64().unwrap() as usize;
    assert_eq!((found["id"].as_str(), found["answer"].as_str()), (Some("q1"), Some(&context[place])));
    assert!(found["best"].as_array().unwrap().len() > 1);
    let none = &lines(&said_with(path, &[&args[..], &["-1000"]].concat(), &asked))[0];
    assert_eq!(none["answer"], "");

    model(path, "mc", json!({ "architectures": ["BertForMultipleChoice"] }));
    let choices = ["good", "bad fox", "river by the river"];
    let asked = json!({ "question": "the fox", "choices": choices }).to_string();
    let found = &lines(&said_with(path, &["predict", "--model", "mc", "-", "--format", "jsonl"], &asked))[0];
    let session = open(path, "mc");
    let tokenizer = session.tokenizer.as_ref().unwrap();
    let score = |choice: &str| {
        let (ids, types) = tokenizer.encode_pair("the fox", choice, true).unwrap();
        let input = Input { token_types: Some(types), ..Input::row(&ids) };
        session.forward(&input).unwrap().get("logits").unwrap().flatten_all().unwrap().to_vec1::<f32>().unwrap()[0]
    };
    let scores = softmax(&choices.map(score));
    assert!(found["scores"].as_array().unwrap().iter().zip(&scores).all(|(a, b)| near(a, *b)), "{found} {scores:?}");

    model(path, "mlm", json!({ "architectures": ["BertForMaskedLM"] }));
    let found = &lines(&said(path, &["fill-mask", "--model", "mlm", "the <mask> sat by the [MASK]", "--json"]))[0];
    let session = open(path, "mlm");
    let (ids, logits) = alone(&session, "the [MASK] sat by the [MASK]", 24);
    let mask = session.tokenizer.as_ref().unwrap().mask().unwrap();
    let vocab = logits.len() / ids.len();
    let masks: Vec<usize> = (0..ids.len()).filter(|&at| ids[at] == mask).collect();
    assert_eq!((masks.len(), found["masks"].as_array().unwrap().len()), (2, 2));
    for (number, at) in masks.into_iter().enumerate() {
        let scores = softmax(&logits[at * vocab..][..vocab]);
        let best = &found["masks"][number][0];
        assert!(near(&best["score"], scores.iter().copied().fold(0., f32::max)), "{best}");
        assert!(near(&best["score"], scores[best["id"].as_u64().unwrap() as usize]), "{best}");
    }
    let among = said(path, &["fill-mask", "--model", "mlm", "the [MASK] sat", "--targets", "fox,river"]);
    assert!(among.contains("fox\n") && among.contains("river\n") && among.lines().count() == 3, "{among}");
}

#[test]
fn translations_keep_their_lines_and_equal_single_ones() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path();
    model(path, "t5", t5());
    let sources = texts(12, 9);
    fs::write(path.join("in.txt"), format!("{}\n\n{}", sources[..5].join("\n"), sources[5..].join("\n"))).unwrap();
    let args = ["translate", "--model", "t5", "--beams", "3", "--max-new-tokens", "8", "-q"];
    said(path, &[&args[..], &["--input", "in.txt", "--output", "out.txt", "--batch-tokens", "20"]].concat());
    let out = fs::read_to_string(path.join("out.txt")).unwrap();
    let out: Vec<&str> = out.split('\n').collect();
    assert_eq!((out.len(), out[5]), (14, ""));
    for (at, source) in [(0, 0), (4, 4), (6, 5), (12, 11)] {
        assert_eq!(said(path, &[&args[..], &[&sources[source]]].concat()).trim_end_matches('\n'), out[at]);
    }
    // A model measured on its own translations is perfect; such a small one may say nothing of some, which is no
    // reference.
    let lines = out.iter().enumerate().filter(|(at, _)| *at != 5).map(|(_, line)| *line);
    let pairs: Vec<(&String, &str)> = sources.iter().zip(lines).filter(|(_, line)| !line.is_empty()).collect();
    let count = pairs.len();
    assert!(count > 5, "{out:?}");
    let read: Vec<&str> = pairs.iter().map(|(source, _)| source.as_str()).collect();
    fs::write(path.join("src.txt"), read.join("\n")).unwrap();
    let measure = |wrong: usize| -> Value {
        let mut lines: Vec<&str> = pairs.iter().map(|(_, line)| *line).collect();
        lines[..wrong].fill("something else");
        fs::write(path.join("ref.txt"), lines.join("\n")).unwrap();
        let args = ["eval", "--model", "t5", "--source", "src.txt", "--reference", "ref.txt", "--beams", "3"];
        serde_json::from_str(&said(path, &[&args[..], &["--max-new-tokens", "8", "--json", "-q"]].concat())).unwrap()
    };
    let (all, some) = (measure(0), measure(3));
    assert_eq!(all["metrics"]["exact_match"], 1.0);
    assert_eq!(some["metrics"]["exact_match"], (count - 3) as f64 / count as f64);
    assert!(
        all["metrics"]["chrf2"].as_f64().unwrap() > 99.9 && some["metrics"]["bleu"].as_f64().unwrap() < 100.,
        "{all}"
    );
    assert!(all["signatures"][0].as_str().unwrap().starts_with("BLEU|nrefs:1|case:mixed|eff:no|tok:13a|smooth:exp"));
    assert_eq!(some["mistakes"].as_array().unwrap().len(), 3);
}

#[test]
fn evaluations_count_what_is_wrong() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path();
    classifier(path);
    let texts = texts(200, 12);
    fs::write(path.join("t.txt"), texts.join("\n")).unwrap();
    let labels: Vec<String> = lines(&said(path, &["predict", "--model", "cls", "t.txt", "-q"]))
        .iter()
        .map(|one| one["label"].as_str().unwrap().to_owned())
        .collect();
    let other = |label: &str| if label == "pos" { "neg" } else { "pos" };
    let rows: Vec<String> = (texts.iter().zip(&labels).enumerate())
        .map(|(at, (text, label))| format!("{text}\t{}", if at % 10 == 0 { other(label) } else { label }))
        .collect();
    fs::write(path.join("dev.tsv"), format!("sentence\tlabel\n{}", rows.join("\n"))).unwrap();
    let args = ["eval", "--model", "cls", "--data", "dev.tsv", "--html", "r.html"];
    let value: Value = serde_json::from_str(&said(path, &[&args[..], &["--json"]].concat())).unwrap();
    assert_eq!((&value["metrics"]["accuracy"], &value["count"]), (&json!(0.9), &json!(200)));
    assert!(
        value["metrics"]["matthews"].as_f64().is_some() && value["confusion"]["counts"].as_array().unwrap().len() == 3
    );
    assert_eq!(value["mistakes"].as_array().unwrap().len(), 20);
    let page = fs::read_to_string(path.join("r.html")).unwrap();
    assert!(page.contains("<table class=\"heat\">") && page.contains("0.9000") && !page.contains("http"));
    let shown = said(path, &args);
    assert!(shown.contains("accuracy") && shown.contains("rows: what is right"), "{shown}");
    // Labels that the model does not know are named; ids count as labels.
    fs::write(path.join("odd.tsv"), "sentence\tlabel\ngood\tpos\nbad\tterrible\nfox\tterrible\nfox\tgreat\n").unwrap();
    let odd = transcript(path, &["eval", "--model", "cls", "--data", "odd.tsv"]);
    assert!(odd.contains("2 labels that the model does not know: `great` (1), `terrible` (2)"), "{odd}");
    assert!(odd.ends_with("exit code 2\n"), "{odd}");
    let renamed = ["eval", "--model", "cls", "--data", "odd.tsv", "--labels", "terrible,great,pos", "--json"];
    assert_eq!(serde_json::from_str::<Value>(&said(path, &renamed)).unwrap()["count"], 4);
}

#[test]
fn answers_tags_and_choices_are_scored_by_their_own_rules() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path();
    let eval = |model: &str, data: &str, more: &[&str]| -> Map<String, Value> {
        let args = [&["eval", "--model", model, "--data", data, "--json", "-q"], more].concat();
        let value: Value = serde_json::from_str(&said(path, &args)).unwrap();
        value["metrics"].as_object().unwrap().clone()
    };
    model(path, "qa", json!({ "architectures": ["BertForQuestionAnswering"] }));
    let questions: Vec<Value> = texts(30, 12)
        .iter()
        .enumerate()
        .map(|(at, text)| json!({ "id": at.to_string(), "question": "the fox?", "context": format!("river {text}") }))
        .collect();
    let write = |name: &str, rows: &[Value]| {
        fs::write(path.join(name), rows.iter().map(|row| format!("{row}\n")).collect::<String>()).unwrap();
    };
    write("q.jsonl", &questions);
    let found = lines(&said(path, &["predict", "--model", "qa", "q.jsonl", "-q"]));
    let mut gold = questions.clone();
    for (at, (question, answer)) in gold.iter_mut().zip(&found).enumerate() {
        let text = if at < 6 { "zzz" } else { answer["answer"].as_str().unwrap() };
        question["answers"] = json!([{ "text": text, "answer_start": answer["start"] }]);
    }
    write("gold.jsonl", &gold);
    let scores = eval("qa", "gold.jsonl", &[]);
    // What is nothing but articles is no answer by the rules of SQuAD 1.1: a few may score 0 in F1.
    assert_eq!(scores["exact_match"], 80.0);
    assert!(scores["f1"].as_f64().unwrap() <= 80.0 && !scores.contains_key("no_answer_f1"));
    assert_eq!(eval("qa", "gold.jsonl", &["--lang", "zh"])["exact_match"], 80.0);
    gold[0]["answers"] = json!([]);
    write("v2.jsonl", &gold);
    assert_eq!(eval("qa", "v2.jsonl", &["--null-threshold", "1000"])["no_answer_exact"], 0.0);

    let labels = json!({ "0": "O", "1": "B-PER", "2": "I-PER" });
    model(path, "ner", json!({ "architectures": ["BertForTokenClassification"], "id2label": labels }));
    fs::write(path.join("w.txt"), texts(40, 8).join("\n")).unwrap();
    let tagged = lines(&said(path, &["predict", "--model", "ner", "w.txt", "--words", "-q"]));
    let conll = |wrong: &str| {
        let sentences = texts(40, 8);
        let rows = sentences.iter().zip(&tagged).map(|(text, tags)| {
            let tags = tags["tags"].as_array().unwrap().iter().map(|tag| tag.as_str().unwrap());
            let rows = text.split(' ').zip(tags).map(|(word, tag)| format!("{word} {}", tag.replace("B-PER", wrong)));
            rows.collect::<Vec<_>>().join("\n")
        });
        rows.collect::<Vec<_>>().join("\n\n")
    };
    fs::write(path.join("same.conll"), conll("B-PER")).unwrap();
    assert_eq!(eval("ner", "same.conll", &[])["f1"], 1.0);
    fs::write(path.join("other.conll"), conll("O")).unwrap();
    assert!(eval("ner", "other.conll", &[])["f1"].as_f64().unwrap() < 1.0);
    fs::write(path.join("odd.conll"), conll("B-ORG")).unwrap();
    let odd = transcript(path, &["eval", "--model", "ner", "--data", "odd.conll"]);
    assert!(odd.contains("does not know: `B-ORG`") && odd.ends_with("exit code 2\n"), "{odd}");

    model(path, "mc", json!({ "architectures": ["BertForMultipleChoice"] }));
    let asked: Vec<Value> = texts(20, 5)
        .iter()
        .map(|text| json!({ "question": text, "choices": ["good", "bad fox", "by the river", "anna"], "answer": 0 }))
        .collect();
    write("c.jsonl", &asked);
    let chosen = lines(&said(path, &["predict", "--model", "mc", "c.jsonl", "-q"]));
    let right = chosen.iter().filter(|one| one["choice"] == 0).count() as f64 / 20.;
    let scores = eval("mc", "c.jsonl", &[]);
    assert_eq!((&scores["accuracy"], &scores["chance"]), (&json!(right), &json!(0.25)));
}

#[test]
fn regressions_and_several_labels_are_scored() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path();
    let one = json!({ "architectures": ["BertForSequenceClassification"], "num_labels": 1 });
    model(path, "reg", one);
    let texts = texts(50, 10);
    fs::write(path.join("t.txt"), texts.join("\n")).unwrap();
    let values = lines(&said(path, &["predict", "--model", "reg", "t.txt", "-q"]));
    let shifted = |one: &Value| one["value"].as_f64().unwrap() * 2. + 1.;
    let rows = texts.iter().zip(&values).map(|(text, one)| json!({ "text": text, "label": shifted(one) }).to_string());
    fs::write(path.join("r.jsonl"), rows.collect::<Vec<_>>().join("\n")).unwrap();
    let args = ["eval", "--model", "reg", "--data", "r.jsonl", "--json", "-q"];
    let scores: Value = serde_json::from_str(&said(path, &args)).unwrap();
    // A straight line, but for the rounding of seven digits.
    assert!(scores["metrics"]["pearson"].as_f64().unwrap() > 0.999999, "{scores}");
    assert!(
        scores["metrics"]["spearman"].as_f64().unwrap() > 0.9999 && scores["metrics"]["mse"].as_f64().unwrap() > 0.1
    );

    let many = json!({ "architectures": ["BertForSequenceClassification"], "problem_type": "multi_label_classification",
        "id2label": { "0": "x", "1": "y", "2": "z" } });
    model(path, "many", many);
    let found = lines(&said(path, &["predict", "--model", "many", "t.txt", "--threshold", "0.4", "-q"]));
    let rows = texts.iter().zip(&found).map(|(text, one)| {
        let labels: Vec<&Value> = one["labels"].as_array().unwrap().iter().map(|label| &label["label"]).collect();
        json!({ "text": text, "labels": labels }).to_string()
    });
    fs::write(path.join("m.jsonl"), rows.collect::<Vec<_>>().join("\n")).unwrap();
    let args = ["eval", "--model", "many", "--data", "m.jsonl", "--threshold", "0.4", "--json", "-q"];
    let scores: Value = serde_json::from_str(&said(path, &args)).unwrap();
    assert_eq!(scores["metrics"]["subset_accuracy"], 1.0, "{scores}");
}

#[test]
fn perplexity_is_that_of_every_token_in_its_window() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path();
    let gpt2 = json!({
        "model_type": "gpt2", "architectures": ["GPT2LMHeadModel"], "n_embd": 16, "n_layer": 2, "n_head": 4,
        "n_positions": 24, "hidden_size": null, "intermediate_size": null, "num_hidden_layers": null,
        "num_attention_heads": null, "max_position_embeddings": null, "initializer_range": 0.3,
    });
    model(path, "gpt2", gpt2);
    model(path, "mlm", json!({ "architectures": ["BertForMaskedLM"] }));
    let text = texts(20, 12).join(" ");
    fs::write(path.join("p.txt"), &text).unwrap();
    let eval = |model: &str, more: &[&str]| -> Value {
        let args = [&["eval", "--model", model, "--data", "p.txt", "--json", "-q"], more].concat();
        serde_json::from_str::<Value>(&said(path, &args)).unwrap()["metrics"].clone()
    };
    let found = eval("gpt2", &["--max-len", "20", "--stride", "8"]);
    let session = open(path, "gpt2");
    let ids = session.tokenizer.as_ref().unwrap().encode(&text, true).unwrap();
    let (mut nats, mut done, mut start) = (0f64, 1, 0);
    while done < ids.len() {
        let end = ids.len().min(start + 20);
        let output = session.forward(&Input::row(&ids[start..end])).unwrap();
        let logits: Vec<Vec<f32>> = output.get("logits").unwrap().squeeze(0).unwrap().to_vec2().unwrap();
        for at in done..end {
            nats -= f64::from(softmax(&logits[at - 1 - start])[ids[at] as usize]).ln();
        }
        (done, start) = (end, start + 8);
    }
    let loss = nats / (ids.len() - 1) as f64;
    // Sums of f32 in another order.
    assert!((found["loss"].as_f64().unwrap() - loss).abs() < 1e-5 * loss, "{found} {loss}");
    assert_eq!(found["tokens"], (ids.len() - 1) as f64);
    // Through a cache: the same where it keeps all, a little off where it rounds.
    let through = |more: &[&str]| {
        let loss = eval("gpt2", &[&["--max-len", "20", "--stride", "8"], more].concat())["loss"].as_f64().unwrap();
        (loss - found["loss"].as_f64().unwrap()).abs() / loss
    };
    assert!(through(&["--cache-dtype", "f32"]) < 1e-5);
    let off = through(&["--cache-dtype", "f16"]);
    assert!(off > 1e-7 && off < 1e-3, "{off}");
    let masked = phyla(path, &["eval", "--model", "mlm", "--data", "p.txt", "--cache-dtype", "f16"]);
    assert!(String::from_utf8(masked.stderr).unwrap().contains("reads texts whole, without a cache"));
    let bits = nats / std::f64::consts::LN_2 / text.len() as f64;
    assert!((found["bits_per_byte"].as_f64().unwrap() - bits).abs() < 1e-5 * bits, "{found} {bits}");

    // Every token is hidden once, whatever the windows and however many at a time.
    let session = open(path, "mlm");
    let tokens = session.tokenizer.as_ref().unwrap().encode(&text, false).unwrap().len();
    for (window, stride, every) in [(24, 10, 7), (12, 12, 3), (24, 5, 1000)] {
        let measure = Measure::new(&session, Some(window), Some(stride), every).unwrap();
        let (windows, counted) = measure.windows(&text).unwrap();
        let hidden = windows.iter().flat_map(|window| &window.targets).filter(|&&target| target >= 0).count();
        assert_eq!((hidden, counted.tokens), (tokens, tokens as u64));
        let runner = Runner::new(&session.model, session.tokenizer.as_ref(), LengthBatches::default());
        assert!(measure.nats(&runner, &windows).unwrap() > 0.);
    }
    assert_eq!(eval("mlm", &[])["tokens"], tokens as f64);
}

#[test]
fn vectors_are_means_of_states_as_the_folder_says() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path();
    model(path, "base", json!({ "architectures": ["BertModel"] }));
    let texts = texts(40, 15);
    fs::write(path.join("t.txt"), texts.join("\n")).unwrap();
    said(path, &["embed", "--model", "base", "--input", "t.txt", "--output", "v.safetensors", "-q"]);
    let checkpoint = Checkpoint::open(path.join("v.safetensors")).unwrap();
    let vectors = checkpoint.get("embeddings").unwrap();
    assert_eq!(vectors.shape, [40, 16]);
    let vectors = vectors.to_f32().unwrap();
    let session = open(path, "base");
    let states = |text: &str| -> Vec<Vec<f32>> {
        let ids = session.tokenizer.as_ref().unwrap().encode(text, true).unwrap();
        let output = session.forward(&Input::row(&ids)).unwrap();
        output.get("last_hidden_state").unwrap().squeeze(0).unwrap().to_vec2().unwrap()
    };
    for (at, text) in texts.iter().enumerate() {
        let states = states(text);
        let mean: Vec<f32> =
            (0..16).map(|k| states.iter().map(|state| state[k]).sum::<f32>() / states.len() as f32).collect();
        let length = mean.iter().map(|x| x * x).sum::<f32>().sqrt();
        for k in 0..16 {
            assert!((vectors[at * 16 + k] - mean[k] / length).abs() < 1e-5, "{at} {k}");
        }
    }
    let timed = said(
        path,
        &["bench", "embed", "--model", "base", "--texts", "t.txt", "--batch", "7", "--steps", "2", "--json"],
    );
    let timed: Value = serde_json::from_str(&timed).unwrap();
    let tokens: usize = texts.iter().map(|text| states(text).len()).sum();
    assert_eq!((&timed["texts"], &timed["tokens"], &timed["dtype"]), (&json!(40), &json!(tokens), &json!("f32")));
    assert!(timed["tokens_per_second"].as_f64().unwrap() > 0. && timed["roofline"]["bf16_gflops"].is_f64());
    // The files of sentence-transformers decide.
    let modules = json!([
        { "idx": 0, "name": "0", "path": "", "type": "sentence_transformers.models.Transformer" },
        { "idx": 1, "name": "1", "path": "1_Pooling", "type": "sentence_transformers.models.Pooling" },
    ]);
    fs::write(path.join("base/modules.json"), modules.to_string()).unwrap();
    fs::create_dir(path.join("base/1_Pooling")).unwrap();
    let pooling =
        json!({ "word_embedding_dimension": 16, "pooling_mode_cls_token": true, "pooling_mode_mean_tokens": false });
    fs::write(path.join("base/1_Pooling/config.json"), pooling.to_string()).unwrap();
    let first = lines(&said(path, &["embed", "--model", "base", &texts[3]]));
    let expected = &states(&texts[3])[0];
    assert!(first[0]["embedding"].as_array().unwrap().iter().zip(expected).all(|(a, b)| near(a, *b)));
    let dense = json!([{ "path": "2_Dense", "type": "sentence_transformers.models.Dense" }]);
    fs::write(path.join("base/modules.json"), dense.to_string()).unwrap();
    let refused = transcript(path, &["embed", "--model", "base", "fox"]);
    assert!(refused.contains("the module `Dense` is not known") && refused.ends_with("exit code 2\n"), "{refused}");
    fs::write(path.join("base/modules.json"), json!([{ "path": "../..", "type": "x.Pooling" }]).to_string()).unwrap();
    let outside = transcript(path, &["embed", "--model", "base", "fox"]);
    assert!(outside.contains("leaves the model's folder") && outside.ends_with("exit code 2\n"), "{outside}");
}

#[test]
fn mistakes_are_named_with_the_way_out() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path();
    classifier(path);
    model(path, "qa", json!({ "architectures": ["BertForQuestionAnswering"] }));
    model(path, "base", json!({ "architectures": ["BertModel"] }));
    model(path, "mlm", json!({ "architectures": ["BertForMaskedLM"] }));
    model(path, "t5", t5());
    fs::write(path.join("a.txt"), "good fox\n").unwrap();
    fs::write(path.join("odd.csv"), "colour,size\nred,3\n").unwrap();
    fs::write(path.join("plain.jsonl"), "{\"text\": \"good fox\"}\n").unwrap();
    fs::write(path.join("sources.jsonl"), "{\"source\": \"good fox\"}\n").unwrap();
    let runs: Vec<Vec<&str>> = vec![
        vec!["predict", "--model", "cls", "absent.txt"],
        vec!["predict", "--model", "cls", "a.txt", "--task", "fill-mask"],
        vec!["predict", "--model", "base", "a.txt"],
        vec!["predict", "--model", "qa", "a.txt"],
        vec!["predict", "--model", "cls", "a.txt", "--max-len", "25"],
        vec!["predict", "--model", "cls", "a.txt", "--threshold", "2"],
        vec!["predict", "--model", "cls", "plain.jsonl", "--column", "text=body"],
        vec!["predict", "--model", "cls", "odd.csv"],
        vec!["eval", "--model", "cls"],
        vec!["eval", "--model", "cls", "--data", "absent.tsv"],
        vec!["eval", "--model", "cls", "--data", "plain.jsonl"],
        vec!["eval", "--model", "cls", "--data", "plain.jsonl", "--task", "translation"],
        vec!["eval", "--model", "t5", "--data", "sources.jsonl"],
        vec!["eval", "--model", "cls", "--data", "plain.jsonl", "--labels", "a,b"],
        vec!["fill-mask", "--model", "cls", "the [MASK]"],
        vec!["fill-mask", "--model", "mlm", "the fox"],
        vec!["fill-mask", "--model", "mlm", "the [MASK]", "--targets", "elephants"],
        vec!["translate", "--model", "cls", "the fox"],
        vec!["translate", "--model", "t5", "the fox", "--beams", "0"],
        vec!["embed", "--model", "base", "the fox", "--pooling", "sum"],
        vec!["bench", "decode", "--model", "cls"],
        vec!["bench", "prefill", "--model", "t5"],
    ];
    let text: Vec<String> = runs.iter().map(|args| transcript(path, args)).collect();
    assert!(text.iter().all(|text| text.ends_with("exit code 2\n")), "{}", text.join("\n"));
    matches_snapshot("task-mistakes", &text.join("\n"));
}

#[test]
fn inspect_says_what_the_blocks_of_every_branch_are() {
    let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/golden");
    let mut text = String::new();
    for case in ["bert/classify", "beam/t5", "deepseek_v2/model", "mixtral/", "deberta-v2/"] {
        let mut folder = golden.join(case);
        if case.ends_with('/') {
            let mut cases: Vec<_> = fs::read_dir(&folder).unwrap().map(|case| case.unwrap().path()).collect();
            cases.sort();
            folder = cases.into_iter().find(|case| case.join("config.json").exists()).unwrap();
        }
        text += &format!("# {}\n", case.trim_end_matches('/'));
        text += &said(&std::env::temp_dir(), &["inspect", folder.join("config.json").to_str().unwrap(), "-q"]);
        text += "\n";
    }
    matches_snapshot("inspect-branches", &text);
}

#[test]
fn the_cosines_of_vectors_are_correlated_with_labels() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path();
    model(path, "base", json!({ "architectures": ["BertModel"] }));
    let texts = texts(60, 12);
    let pairs: Vec<&[String]> = texts.chunks_exact(2).collect();
    let cosine = |pair: &[String]| {
        let vectors: Vec<Vec<f64>> = pair
            .iter()
            .map(|text| {
                let said = lines(&said(path, &["embed", "--model", "base", text, "-q"]));
                said[0]["embedding"].as_array().unwrap().iter().map(|x| x.as_f64().unwrap()).collect()
            })
            .collect();
        vectors[0].iter().zip(&vectors[1]).map(|(a, b)| a * b).sum::<f64>()
    };
    let cosines: Vec<f64> = pairs.iter().map(|pair| cosine(pair)).collect();
    // Labels on a curve of the cosines have their order, but do not lie on a line with them.
    let mut rows: Vec<Value> = pairs
        .iter()
        .zip(&cosines)
        .map(|(pair, cosine)| json!({ "text": pair[0], "text_b": pair[1], "label": (20. * cosine).exp() }))
        .collect();
    let eval = |rows: &[Value], more: &[&str]| {
        let rows: Vec<String> = rows.iter().map(Value::to_string).collect();
        fs::write(path.join("pairs.jsonl"), rows.join("\n")).unwrap();
        transcript(path, &[&["eval", "--model", "base", "--data", "pairs.jsonl", "--json", "-q"], more].concat())
    };
    let made = eval(&rows, &[]);
    let scores: Value = serde_json::from_str(&made[made.find('{').unwrap()..=made.rfind('}').unwrap()]).unwrap();
    assert_eq!((&scores["task"], &scores["count"]), (&json!("similarity"), &json!(30)), "{made}");
    let (spearman, pearson) = (&scores["metrics"]["spearman"], &scores["metrics"]["pearson"]);
    assert!(spearman.as_f64().unwrap() > 0.999 && pearson.as_f64().unwrap() < 0.99, "{made}");
    rows[3]["label"] = json!("alike");
    assert!(eval(&rows, &[]).contains("the label `alike` should be a number"), "{}", eval(&rows, &[]));
    rows[3] = json!({ "text": "one text", "label": 1 });
    assert!(eval(&rows, &[]).contains("line 4: `text_b` is missing"), "{}", eval(&rows, &[]));
    let alone = [json!({ "text": "one text", "label": 1 }), json!({ "text": "another", "label": 2 })];
    let alone = eval(&alone, &["--task", "similarity"]);
    assert!(alone.contains("expected two texts, found one"), "{alone}");
}
