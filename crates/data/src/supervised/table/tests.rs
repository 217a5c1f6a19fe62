//! Every format, good and bad.
#![expect(clippy::unwrap_used, reason = "tests")]

use std::io::Write;
use std::sync::Arc;

use serde_json::json;

use super::super::records::{Choice, Labelled, Origin, Parallel, Question, Tagged, write_jsonl};
use super::*;

/// A file of that name and content in a folder of its own.
fn file(name: &str, content: impl AsRef<[u8]>) -> (tempfile::TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join(name);
    std::fs::write(&path, content).unwrap();
    (folder, path)
}

fn read<R: Record>(name: &str, content: &str) -> Result<Vec<R>> {
    let (_folder, path) = file(name, content);
    Table::open(path)?.records().collect()
}

fn error<R: Record + std::fmt::Debug>(name: &str, content: &str) -> String {
    let message = read::<R>(name, content).unwrap_err().to_string();
    assert!(message.contains(name), "{message}");
    message
}

fn texts(records: &[Labelled]) -> Vec<(&str, &str)> {
    records.iter().map(|record| (&*record.text, record.label.as_str().unwrap_or("?"))).collect()
}

const GOOD_BAD: [(&str, &str); 2] = [("good, very", "pos"), ("bad", "neg")];

#[test]
fn one_table_in_many_spellings() {
    for (name, content) in [
        ("a.jsonl", "{\"text\": \"good, very\", \"label\": \"pos\"}\n\n{\"label\": \"neg\", \"text\": \"bad\"}"),
        (
            "a.json",
            "\u{FEFF}[{\"text\": \"good, very\", \"label\": \"pos\"},\n {\"text\": \"bad\", \"label\": \"neg\"}]\n",
        ),
        ("a.json", "{\"text\": \"good, very\", \"label\": \"pos\"}\n{\"text\": \"bad\", \"label\": \"neg\"}"),
        (
            "a.json",
            "{\"version\": [1, \"]\"], \"data\": [{\"sentence\": \"good, very\", \"label\": \"pos\"}, {\"sentence\": \"bad\", \"label\": \"neg\"}]}",
        ),
        ("a.csv", "text,label\r\n\"good, very\",pos\r\nbad,neg\r\n"),
        ("a.csv", "\u{FEFF}Label,Sentence\npos,\"good, very\"\n\nneg,bad"),
        ("a.csv", "label;text\npos;good, very\nneg;bad"),
        ("a.csv", "text\tlabel\ngood, very\tpos\nbad\tneg"),
        ("a.tsv", "good, very\tpos\nbad\tneg\n"),
        ("a.tsv", "pos\tgood, very\nneg\tbad and worse\n"),
    ] {
        let records = read::<Labelled>(name, content).unwrap();
        let mut found = texts(&records);
        for pair in &mut found {
            pair.0 = pair.0.trim_end_matches(" and worse");
        }
        assert_eq!(found, GOOD_BAD, "{content}");
    }
}

#[test]
fn quoted_cells_hold_quotes_delimiters_and_lines() {
    let content = "text,label\n\"a \"\"b\"\", c\nd\",x\n\"\"\"\",y\n\"e\",\"z\"\nf,\"\"\n";
    let records = read::<Labelled>("a.csv", content).unwrap();
    assert_eq!(texts(&records), [("a \"b\", c\nd", "x"), ("\"", "y"), ("e", "z"), ("f", "")]);
    // Between tabs a quote is a character, unless told otherwise.
    let content = "text\tlabel\n\"a\t0\nb\"\t1\n";
    assert_eq!(texts(&read::<Labelled>("a.tsv", content).unwrap()), [("\"a", "0"), ("b\"", "1")]);
    let (_folder, path) = file("a.tsv", content);
    let settings = TableSettings { quotes: Some(Quotes::Rfc), ..TableSettings::new(path) };
    let message = Table::new(settings).unwrap().records::<Labelled>().collect::<Result<Vec<_>>>().unwrap();
    assert_eq!(texts(&message), [("a\t0\nb", "1")]);
}

#[test]
fn wrong_rows_name_their_place_and_what_was_expected() {
    for (name, content, part) in [
        (
            "a.jsonl",
            "{\"text\": \"a\", \"label\": 0}\n{\"text\": 5, \"label\": 0}",
            "line 2: `text` should be a string, found a number",
        ),
        (
            "a.jsonl",
            "{\"text\": \"a\", \"label\": 0}\n{\"label\": 0}",
            "line 2: `text` is missing or null; this row has `label`",
        ),
        ("a.jsonl", "{\"text\": \"a\"}\n{\"text\": \"a", "line 2: not valid JSON"),
        ("a.jsonl", "{\"words\": \"a\"}", "no column for text"),
        ("a.jsonl", "[1]", "expected a JSON object, found a list"),
        (
            "a.json",
            "[{\"text\": \"a\"},\n{\"text\": \"b\"",
            "line 2: not valid JSON: the file ends inside this element",
        ),
        ("a.json", "[{\"text\": \"a\"}\n{\"text\": \"b\"}]", "line 2: not valid JSON: expected `,` or `]`"),
        ("a.json", "[{\"text\": \"a\"},", "ends inside the list"),
        ("a.json", "[,]", "expected a JSON object"),
        ("a.csv", "text,label\na,b,c\n", "line 2: expected 2 cells, as the header has, found 3"),
        ("a.csv", "text,label\n\"a,b\n", "line 2: the file ends inside a cell in quotes"),
        (
            "a.csv",
            "text,label\n\"a\"b,c\n",
            "line 2: after a cell in quotes, ',' or the line's end should follow, found 'b'",
        ),
        ("a.csv", "text,label\na\"b,c\n", "a quote inside the cell"),
        ("a.csv", "text,label\n ,c\n", "line 2: `text` is blank"),
        ("a.tsv", "a\tb\tc\td\n", "no header, and 4 columns"),
        ("a.csv", "a,b,c,d\n", "the first line names no column that is known (`a`, `b`, `c`, `d`)"),
        ("a.csv", "text,label,text\n", "names the column `text` twice"),
        ("a.csv", "text,score,stars\na,1,2\n", "each of `score`, `stars` could be the label"),
    ] {
        let message = error::<Labelled>(name, content);
        assert!(message.contains(part), "{message}\nshould contain: {part}");
    }
    let message = error::<Tagged>("a.conll", "a O\nb O\n\nc\nd O\n\n");
    assert!(message.contains("line 4: expected a word in column 0"), "{message}");
    let message = error::<Tagged>("a.jsonl", "{\"tokens\": [\"a\", \"b\"], \"tags\": [0]}");
    assert!(message.contains("a tag for each of 2 words, found 1"), "{message}");
    let message = error::<Choice>("a.jsonl", "{\"question\": \"q\", \"choices\": [\"x\", \"y\"], \"answer\": 2}");
    assert!(message.contains("the answer 2 names none of the 2 choices"), "{message}");
    let message =
        error::<Question>("a.jsonl", "{\"id\": \"7\", \"question\": \"q\", \"context\": \"c\", \"answers\": 5}");
    assert!(message.contains("question `7`: answers should be a list, found a number"), "{message}");
}

#[test]
fn wrong_rows_can_be_skipped_and_are_counted() {
    let content = b"{\"text\": \"a\", \"label\": 0}\n{\"text\": \"\xFF\"}\nnonsense\n{\"text\": \"b\", \"label\": 1}\n";
    let (_folder, path) = file("a.jsonl", content);
    let table = Table::new(TableSettings { faults: Faults::Skip, ..TableSettings::new(path) }).unwrap();
    let records: Vec<Labelled> = table.records().collect::<Result<_>>().unwrap();
    assert_eq!(records.len(), 2);
    let faults = table.faults();
    assert_eq!(faults.count, 2);
    assert!(faults.first[0].contains("line 2: invalid UTF-8 at byte 10"), "{}", faults.first[0]);
    // Of a sentence with a fault, nothing is used; the next begins after the blank line.
    let (_folder, path) = file("a.conll", "a O\nb\nc O\n\nd O\n");
    let table = Table::new(TableSettings { faults: Faults::Skip, ..TableSettings::new(path) }).unwrap();
    let records: Vec<Tagged> = table.records().collect::<Result<_>>().unwrap();
    assert_eq!(records, [Tagged { tokens: vec!["d".into()], tags: vec!["O".into()], origin: Origin::default() }]);
}

#[test]
fn conll_documents_columns_and_ends() {
    let content =
        "-DOCSTART- -X- O O\n\nEU NNP B-NP B-ORG\nrejects VBZ B-VP O\n\n\n-DOCSTART- -X- O O\nPeter NNP I-NP I-PER\r\n";
    let records = read::<Tagged>("a.conll", content).unwrap();
    assert_eq!(records.len(), 2);
    assert_eq!(records[0].tokens, ["EU", "rejects"]);
    assert_eq!(records[0].tags, ["B-ORG", "O"]);
    assert_eq!(records[1].tags, ["I-PER"]);
    let (_folder, path) = file("a.conll", content);
    let table = Table::new(TableSettings { conll_columns: (0, 1), ..TableSettings::new(path) }).unwrap();
    assert_eq!(table.records::<Tagged>().next().unwrap().unwrap().tags, ["NNP", "VBZ"]);
    // A word `#` and a word with a space, between tabs.
    let records = read::<Tagged>("a.iob", "#\tO\n1 000\tB-NUM\n# id = 3\n").unwrap();
    assert_eq!(records[0].tokens, ["#", "1 000"]);
}

#[test]
fn question_sets_of_all_shapes() {
    let squad = json!({"version": "2.0", "data": [{"title": "t", "paragraphs": [{"context": "Zwölf Äpfel, zwei Äpfel.", "qas": [
        {"id": "1", "question": "Wie viele?", "answers": [{"text": "zwei Äpfel", "answer_start": 13}], "is_impossible": false},
        {"id": "2", "question": "Wo?", "answers": [], "plausible_answers": [{"text": "zwei", "answer_start": 13}], "is_impossible": true},
        {"id": "3", "question": "Was?", "answers": [{"text": "Äpfel", "answer_start": 17}]},
    ]}]}]});
    let check = |records: Vec<Question>| {
        assert_eq!(records.len(), 3);
        let spans: Vec<_> =
            records.iter().map(|record| record.answers.first().and_then(|answer| answer.start)).collect();
        // The third's place is one character off, and the nearest occurrence is meant.
        assert_eq!(spans, [Some(13), None, Some(18)]);
        assert_eq!(records.iter().map(|record| record.moved).sum::<usize>(), 1);
        assert_eq!(records[1].id, "2");
    };
    check(read("a.json", &squad.to_string()).unwrap());
    check(read("a.json", &serde_json::to_string_pretty(&squad).unwrap()).unwrap());
    let lines: Vec<String> =
        squad["data"][0]["paragraphs"].as_array().unwrap().iter().map(ToString::to_string).collect();
    check(read("a.jsonl", &lines.join("\n")).unwrap());
    let cmrc = json!([{"context_id": "C", "context_text": "北京是中国的首都。", "qas": [
        {"query_id": "Q", "query_text": "首都？", "answers": ["北京", "北京"]}]}]);
    let records: Vec<Question> = read("a.json", &cmrc.to_string()).unwrap();
    assert_eq!((records[0].answers[1].start, &*records[0].id), (Some(0), "Q"));
    let flat = "{\"question\": \"q\", \"context\": \"a b a\", \"answers\": {\"text\": [\"a\"], \"answer_start\": [4]}}";
    assert_eq!(read::<Question>("a.jsonl", flat).unwrap()[0].answers[0].start, Some(4));
    let cells = "question,context,answer,answer_start\nq,a b a,a,4\n";
    assert_eq!(read::<Question>("a.csv", cells).unwrap()[0].answers[0].start, Some(4));
}

#[test]
fn choices_of_all_shapes() {
    for (name, content) in [
        ("a.jsonl", r#"{"question": "q", "choices": ["x", "y", "z"], "answer": 1}"#),
        (
            "a.jsonl",
            r#"{"question": "q", "choices": {"text": ["x", "y", "z"], "label": ["1", "2", "3"]}, "answerKey": "2"}"#,
        ),
        (
            "a.jsonl",
            r#"{"question": {"stem": "q", "choices": [{"label": "A", "text": "x"}, {"label": "B", "text": "y"}, {"label": "C", "text": "z"}]}, "answerKey": "B"}"#,
        ),
        ("a.jsonl", r#"{"question": "q", "options": ["x", "y", "z"], "answer": "B"}"#),
        ("a.jsonl", r#"{"question": "q", "choices": ["x", "y", "z"], "answer": "y"}"#),
        ("a.csv", "sent1,sent2,ending0,ending1,ending2,ending3,label\nc,q,x,y,z,w,1"),
    ] {
        let records = read::<Choice>(name, content).unwrap();
        assert_eq!(
            (&*records[0].question, &records[0].choices[..3], records[0].answer),
            ("q", &["x", "y", "z"].map(str::to_owned)[..], Some(1)),
            "{content}"
        );
    }
}

#[test]
fn parallel_files_line_by_line() {
    let folder = tempfile::tempdir().unwrap();
    let (source, target) = (folder.path().join("a.en.gz"), folder.path().join("a.de"));
    let mut packed =
        flate2::write::GzEncoder::new(std::fs::File::create(&source).unwrap(), flate2::Compression::fast());
    packed.write_all(b"one\ntwo\n").unwrap();
    packed.finish().unwrap();
    let open = || {
        let settings = TableSettings {
            paths: vec![source.clone(), target.clone()],
            format: Some(TableFormat::Parallel),
            ..TableSettings::new("")
        };
        Table::new(settings).unwrap().records().collect::<Result<Vec<Parallel>>>()
    };
    std::fs::write(&target, "eins\r\nzwei\r\n").unwrap();
    assert_eq!(open().unwrap(), [Parallel::new("one", "eins"), Parallel::new("two", "zwei")]);
    std::fs::write(&target, "eins\n").unwrap();
    let message = open().unwrap_err().to_string();
    assert!(message.contains("a.de: ends after 1 lines, but"), "{message}");
    // A blank line on one side is a fault of that pair.
    std::fs::write(&target, "eins\n\n").unwrap();
    let message = open().unwrap_err().to_string();
    assert!(message.contains("a.en.gz, line 2: `target` is blank"), "{message}");
    assert_eq!(read::<Parallel>("a.tsv", "one\teins\n").unwrap(), [Parallel::new("one", "eins")]);
}

#[test]
fn columns_can_be_told() {
    let (_folder, path) = file("a.jsonl", "{\"translation\": {\"en\": \"one\", \"de\": \"eins\"}}");
    let name = |name: &str| Column::Name(name.to_owned());
    let settings =
        TableSettings::new(&path).with("source", name("translation.de")).with("target", name("translation.en"));
    let records: Vec<Parallel> = Table::new(settings).unwrap().records().collect::<Result<_>>().unwrap();
    assert_eq!(records, [Parallel::new("eins", "one")]);
    let wrong = |settings| Table::new(settings).unwrap().records::<Parallel>().next().unwrap().unwrap_err().to_string();
    let message = wrong(TableSettings::new(&path).with("source", name("translation.fr")));
    assert!(message.contains("no column `translation.fr` for source; this file has `translation`"), "{message}");
    let message = wrong(TableSettings::new(&path).with("text", name("a")));
    assert!(message.contains("`columns` names `text`; expected one of source, target"), "{message}");
    // By number, in files with a header and without, and as a recipe says it.
    let (_folder, path) = file("a.csv", "english,german\none,eins\n");
    let recipe = serde_json::json!({"paths": [path], "header": true, "columns": {"source": 1, "target": "english"}});
    let settings: TableSettings = serde_json::from_value(recipe).unwrap();
    let records: Vec<Parallel> = Table::new(settings.clone()).unwrap().records().collect::<Result<_>>().unwrap();
    assert_eq!(records, [Parallel::new("eins", "one")]);
    let message = wrong(settings.with("source", Column::Number(2)));
    assert!(message.contains("no column 2 for source; this file has `english`, `german`"), "{message}");
    // By number, without a header; and a class from several columns.
    let (_folder, path) = file("a.tsv", "x\ty\t5.0\tfirst\tsecond\n");
    let settings = TableSettings::new(path)
        .with("text", Column::Number(3))
        .with("text_b", Column::Number(4))
        .with("label", Column::Number(2));
    let record: Labelled = Table::new(settings).unwrap().records().next().unwrap().unwrap();
    assert_eq!((record.text, record.text_b.unwrap(), record.label), ("first".into(), "second".into(), "5.0".into()));
    let (_folder, path) = file("a.csv", "comment_text,toxic,rude\nboo,1,0\n");
    let settings = TableSettings::new(path).with("label", Column::Several(vec!["toxic".into(), "rude".into()]));
    let record: Labelled = Table::new(settings).unwrap().records().next().unwrap().unwrap();
    assert_eq!(record.label, json!({"toxic": "1", "rude": "0"}));
}

#[test]
fn a_text_a_line_carries_its_file_and_folder() {
    let folder = tempfile::tempdir().unwrap();
    let mut paths = Vec::new();
    for name in ["pos", "neg"] {
        std::fs::create_dir(folder.path().join(name)).unwrap();
        paths.push(folder.path().join(name).join("all.txt"));
        std::fs::write(paths.last().unwrap(), format!("{name} one\n{name} two\n")).unwrap();
    }
    let settings = TableSettings { paths, format: Some(TableFormat::Text), ..TableSettings::new("") };
    let table = Table::new(settings.with("label", Column::Name("folder".into()))).unwrap();
    let records: Vec<Labelled> = table.records().collect::<Result<_>>().unwrap();
    assert_eq!(texts(&records), [("pos one", "pos"), ("pos two", "pos"), ("neg one", "neg"), ("neg two", "neg")]);
}

#[test]
fn records_are_read_back_as_written() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.jsonl");
    fn round<R: Record + Clone + PartialEq + std::fmt::Debug>(path: &Path, records: &[R]) {
        write_jsonl(path, records.iter().cloned()).unwrap();
        let read: Vec<R> = Table::open(path).unwrap().records().collect::<Result<_>>().unwrap();
        assert_eq!(read, records);
    }
    round(&path, &[Labelled::new("a\n\"b\"", "x")]);
    round(&path, &[Labelled { text_b: Some("c".into()), ..Labelled::new("a", "x") }]);
    round(
        &path,
        &[Tagged {
            tokens: vec!["a b".into(), "c".into()],
            tags: vec!["B-X".into(), "O".into()],
            origin: Origin::default(),
        }],
    );
    round(&path, &[Parallel::new("a", "b")]);
    round(&path, &[Question::new("q", "ä b", Some(("b", 2))), Question::new("q", "b", None)]);
    let choice = Choice {
        context: None,
        question: "q".into(),
        choices: vec!["x".into(), "y".into()],
        answer: Some(1),
        origin: Origin::default(),
    };
    round(&path, &[Choice { context: Some("c".into()), ..choice.clone() }]);
    round(&path, &[choice]);
}

/// Every cut of every format, and every byte of it replaced: rows or errors, never a panic or a loop.
#[test]
fn damaged_files_give_rows_or_errors() {
    let squad = r#"{"data": [{"paragraphs": [{"context": "a b", "qas": [{"id": "1", "question": "q", "answers": [{"text": "b", "answer_start": 2}]}]}]}]}"#;
    for (name, content) in [
        ("a.json", squad),
        ("a.jsonl", "{\"text\": \"a\\\"\", \"label\": 0}\n{\"text\": \"b\"}"),
        ("a.csv", "text,label\n\"a \"\"b\"\"\nc\",d\n"),
        ("a.conll", "-DOCSTART- O\n\na O\nb B\n\n"),
    ] {
        let (_folder, path) = file(name, "");
        let mut tried = 0;
        let mut check = |bytes: &[u8]| {
            std::fs::write(&path, bytes).unwrap();
            for faults in [Faults::Refuse, Faults::Skip] {
                let table = Table::new(TableSettings { faults, ..TableSettings::new(&path) }).unwrap();
                assert!(table.rows().count() <= bytes.len() + 1);
                assert!(table.records::<Labelled>().count() + table.records::<Tagged>().count() <= 2 * bytes.len() + 2);
                assert!(table.records::<Question>().count() <= bytes.len() + 1);
            }
            tried += 1;
        };
        for at in 0..content.len() {
            check(&content.as_bytes()[..at]);
            for byte in *b"{}[],:\"\\\n\t \xC3\x00" {
                let mut damaged = content.as_bytes().to_vec();
                damaged[at] = byte;
                check(&damaged);
            }
        }
        assert!(tried > 100, "{name}");
    }
    let deep = "[".repeat(1_000_000);
    assert!(read::<Labelled>("a.json", &deep).is_err() && read::<Labelled>("a.jsonl", &deep).is_err());
}

#[test]
fn a_line_of_a_hundred_megabytes_is_read_or_refused() {
    let long = "x".repeat(100 << 20);
    let records =
        read::<Labelled>("a.jsonl", &format!("{{\"text\": \"{long}\", \"label\": 1}}\n{{\"text\": \"b\"}}")).unwrap();
    assert_eq!((records[0].text.len(), &*records[1].text), (100 << 20, "b"));
    // A line without end, packed so that the test does not write it.
    for name in ["a.jsonl.gz", "a.conll.gz", "a.tsv.gz"] {
        let (_folder, path) = file(name, "");
        let mut packed = flate2::write::GzEncoder::new(File::create(&path).unwrap(), flate2::Compression::fast());
        let block = [b'y'; 1 << 16];
        (0..LONGEST / block.len() + 2).for_each(|_| packed.write_all(&block).unwrap());
        packed.write_all(b"\n\n").unwrap();
        packed.finish().unwrap();
        let table = Table::new(TableSettings { faults: Faults::Skip, ..TableSettings::new(path) }).unwrap();
        let errors: Vec<String> = table.rows().map(|row| row.unwrap_err().to_string()).collect();
        assert_eq!(errors.len(), 1, "{name}");
        assert!(errors[0].contains("line 1: a line of more than 256 MiB"), "{}", errors[0]);
    }
}

#[test]
fn parquet_with_lists_and_numbers() {
    use ::parquet::basic::{ConvertedType, Repetition, Type as Physical};
    use ::parquet::data_type::{ByteArray, ByteArrayType, Int64Type};
    use ::parquet::file::writer::SerializedFileWriter;
    use ::parquet::schema::types::Type;
    let (_folder, path) = file("a.parquet", "");
    let string = |name: &str, repetition| {
        Arc::new(
            Type::primitive_type_builder(name, Physical::BYTE_ARRAY)
                .with_repetition(repetition)
                .with_converted_type(ConvertedType::UTF8)
                .build()
                .unwrap(),
        )
    };
    let number = Type::primitive_type_builder("label", Physical::INT64).with_repetition(Repetition::REQUIRED).build();
    let list = Type::group_type_builder("list").with_repetition(Repetition::REPEATED);
    let list = Arc::new(list.with_fields(vec![string("element", Repetition::REQUIRED)]).build().unwrap());
    let tokens = Type::group_type_builder("tokens").with_repetition(Repetition::OPTIONAL);
    let tokens = tokens.with_converted_type(ConvertedType::LIST).with_fields(vec![list]).build().unwrap();
    let columns = vec![string("text", Repetition::OPTIONAL), Arc::new(number.unwrap()), Arc::new(tokens)];
    let schema = Arc::new(Type::group_type_builder("schema").with_fields(columns).build().unwrap());
    let mut writer = SerializedFileWriter::new(std::fs::File::create(&path).unwrap(), schema, Arc::default()).unwrap();
    let bytes = |texts: &[&str]| texts.iter().map(|text| ByteArray::from(*text)).collect::<Vec<_>>();
    for _ in 0..2 {
        let mut group = writer.next_row_group().unwrap();
        let mut column = group.next_column().unwrap().unwrap();
        column.typed::<ByteArrayType>().write_batch(&bytes(&["a", "c"]), Some(&[1, 0, 1]), None).unwrap();
        column.close().unwrap();
        let mut column = group.next_column().unwrap().unwrap();
        column.typed::<Int64Type>().write_batch(&[0, 1, 2], None, None).unwrap();
        column.close().unwrap();
        let mut column = group.next_column().unwrap().unwrap();
        let levels = (Some(&[2, 2, 0, 2][..]), Some(&[0, 1, 0, 0][..]));
        column.typed::<ByteArrayType>().write_batch(&bytes(&["x", "y", "z"]), levels.0, levels.1).unwrap();
        column.close().unwrap();
        group.close().unwrap();
    }
    writer.close().unwrap();
    let table = Table::new(TableSettings { faults: Faults::Skip, ..TableSettings::new(&path) }).unwrap();
    let rows: Vec<Row> = table.rows().collect::<Result<_>>().unwrap();
    assert_eq!(rows.len(), 6);
    assert_eq!(Value::Object(rows[0].fields.clone()), json!({"text": "a", "label": 0, "tokens": ["x", "y"]}));
    assert_eq!(Value::Object(rows[4].fields.clone()), json!({"text": null, "label": 1, "tokens": null}));
    let records: Vec<Labelled> = table.records().collect::<Result<_>>().unwrap();
    assert_eq!(records.len(), 4);
    assert_eq!(
        table.faults().first[0],
        format!("{}, row 2: `text` is missing or null; this row has `text`, `label`, `tokens`", path.display())
    );
    // Damage anywhere gives rows or an error.
    let good = std::fs::read(&path).unwrap();
    for at in (0..good.len()).step_by(3) {
        for damaged in [good[..at].to_vec(), {
            let mut bytes = good.clone();
            bytes[at] ^= 0x5A;
            bytes
        }] {
            std::fs::write(&path, damaged).unwrap();
            let Ok(table) = Table::open(&path) else { continue };
            assert!(table.rows().count() < 10_000);
        }
    }
}
