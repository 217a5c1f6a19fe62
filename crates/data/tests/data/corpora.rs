//! Files of text to documents, in every format, and what is wrong with some of them.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use parquet::data_type::{ByteArray, ByteArrayType};
use parquet::file::properties::WriterProperties;
use parquet::file::writer::SerializedFileWriter;
use phyla_data::dataset::{Corpus, Document, Faults, Format, Portion, Split, TextSettings};
use tempfile::TempDir;

fn folder(files: &[(&str, &[u8])]) -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    for (name, bytes) in files {
        let path = folder.path().join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, bytes).unwrap();
    }
    folder
}

fn corpus(path: impl Into<PathBuf>, change: impl FnOnce(&mut TextSettings)) -> Corpus {
    let mut settings = TextSettings::new(path);
    change(&mut settings);
    Corpus::new(settings).unwrap()
}

/// Whole documents, pieces joined.
pub fn documents(corpus: &Corpus) -> Vec<String> {
    let (mut whole, mut more) = (Vec::<String>::new(), false);
    for document in corpus.documents().unwrap() {
        let Document { text, more: next, .. } = document.unwrap();
        match whole.last_mut() {
            Some(last) if more => last.push_str(&text),
            _ => whole.push(text),
        }
        more = next;
    }
    assert!(!more, "the last piece ends its document");
    whole
}

fn error(corpus: &Corpus) -> String {
    corpus.documents().unwrap().find_map(Result::err).unwrap().to_string()
}

#[test]
fn a_folder_is_its_files_in_order_of_names() {
    let folder = folder(&[
        ("b.txt", b"B\n"),
        ("a.txt", b"A"),
        ("sub/c.md", "Ü".as_bytes()),
        (".hidden.txt", b"x"),
        ("skip.bin", b"x"),
    ]);
    assert_eq!(documents(&corpus(folder.path(), |_| {})), ["A", "B\n", "Ü"]);
    let error = Corpus::new(TextSettings::new(folder.path().join("skip.bin"))).unwrap_err().to_string();
    assert!(error.contains("set `format`"), "{error}");
    let forced = corpus(folder.path().join("skip.bin"), |settings| settings.format = Some(Format::Text));
    assert_eq!(documents(&forced), ["x"]);
    assert!(Corpus::new(TextSettings::new(folder.path().join("none"))).unwrap_err().to_string().contains("none"));
    assert!(Corpus::new(TextSettings::new(tempfile::tempdir().unwrap().path())).is_err());
}

#[test]
fn long_files_come_in_pieces_that_join_to_the_whole() {
    let lines: String = (0..200_000)
        .map(|line| format!("Line {line} of the füll text.\n{}", if line % 7 == 0 { "\n" } else { "" }))
        .collect();
    let no_lines = "你好".repeat(400_000);
    for text in [&lines, &no_lines] {
        let folder = folder(&[("long.txt", text.as_bytes())]);
        let corpus = corpus(folder.path(), |_| {});
        assert_eq!(documents(&corpus), [text.as_str()]);
        let pieces: Vec<Document> = corpus.documents().unwrap().map(Result::unwrap).collect();
        assert_eq!(pieces.len() > 3, *text == lines);
        for pair in pieces.windows(2) {
            assert!(pair[0].more && pair[0].text.ends_with('\n') && pair[1].text.starts_with("Line"));
        }
    }
}

#[test]
fn a_separator_line_divides_documents() {
    let text = "\u{FEFF}one\ntwo\n<|endoftext|>\nthree\r\n<|endoftext|>\r\n\nfour <|endoftext|> five\n<|endoftext|>\n";
    let folder = folder(&[("a.txt", text.as_bytes())]);
    let divided = corpus(folder.path(), |settings| settings.separator = Some("<|endoftext|>".to_owned()));
    assert_eq!(documents(&divided), ["one\ntwo", "three", "\nfour <|endoftext|> five"]);
    let paragraphs = folder.path().join("b.txt");
    std::fs::write(&paragraphs, "\n\na\nb\n\n\n\nc\n\n").unwrap();
    assert_eq!(documents(&corpus(paragraphs, |settings| settings.separator = Some(String::new()))), ["a\nb", "c"]);
}

#[test]
fn faults_are_refused_with_their_place_or_left_out_and_counted() {
    let folder = folder(&[
        ("bad.txt", b"good\n\xFF\xFEbad\n"),
        ("blank.txt", b" \n\n"),
        ("parts.txt", b"a\n--\n--\nb\n--\nc\xC3\n--\nd\n"),
        ("lines.jsonl", b"{\"text\": \"a\"}\n\n{\"id\": 1, \"body\": \"b\"}\n{\"text\": 3}\n[\n{\"text\": \"\"}\nnull\n{\"text\": \"\\ud800\"}\n{\"text\": \"z\"} x\n{\"x\": [{}], \"text\": \"last\"}"),
    ]);
    let at = |name: &str| folder.path().join(name);
    let plain = |_: &mut TextSettings| {};
    let parts = |settings: &mut TextSettings| settings.separator = Some("--".to_owned());
    assert!(error(&corpus(at("bad.txt"), plain)).contains("bad.txt, byte 5: invalid UTF-8"));
    assert!(error(&corpus(at("blank.txt"), plain)).contains("blank.txt: an empty document"));
    assert!(error(&corpus(at("parts.txt"), parts)).contains("byte 5: an empty document"));
    let lines = error(&corpus(at("lines.jsonl"), plain));
    assert!(lines.contains("line 3: no field `text`; this line has `id`, `body`"), "{lines}");

    let skipping = corpus(at("parts.txt"), |settings| {
        parts(settings);
        settings.faults = Faults::Skip;
    });
    for _ in 0..2 {
        assert_eq!(documents(&skipping), ["a", "b", "d"]);
        assert_eq!(skipping.faults().count, 2);
    }
    assert!(skipping.faults().first[1].contains("byte 14: invalid UTF-8"), "{:?}", skipping.faults());

    let skipping = corpus(at("lines.jsonl"), |settings| settings.faults = Faults::Skip);
    assert_eq!(documents(&skipping), ["a", "last"]);
    let faults = skipping.faults();
    assert_eq!(faults.count, 7);
    for (fault, expected) in faults.first.iter().zip([
        "no field",
        "found a number",
        "start of a list",
        "empty",
        "found null",
        "not valid JSON",
        "not valid JSON",
    ]) {
        assert!(fault.contains(expected), "{fault}");
    }
}

#[test]
fn packed_files_and_other_fields_are_read() {
    let mut packed = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
    packed.write_all("{\"body\": \"é\\n\", \"text\": 1}\n{\"body\": \"x\"}".as_bytes()).unwrap();
    let folder = folder(&[("a.jsonl.gz", &packed.finish().unwrap())]);
    assert_eq!(documents(&corpus(folder.path(), |settings| settings.field = "body".to_owned())), ["é\n", "x"]);
    std::fs::write(folder.path().join("a.jsonl.gz"), b"\x1f\x8bnot gzip").unwrap();
    assert!(error(&corpus(folder.path(), |_| {})).contains("a.jsonl.gz"));
}

fn write_parquet(path: &Path, compression: parquet::basic::Compression, rows: &[Option<&str>]) {
    let schema = "message m { required int64 id; optional binary text (UTF8); repeated binary tags (UTF8); }";
    let schema = Arc::new(parquet::schema::parser::parse_message_type(schema).unwrap());
    let properties = WriterProperties::builder().set_compression(compression).build();
    let mut writer =
        SerializedFileWriter::new(std::fs::File::create(path).unwrap(), schema, properties.into()).unwrap();
    for rows in rows.chunks(400) {
        let mut group = writer.next_row_group().unwrap();
        let mut column = group.next_column().unwrap().unwrap();
        let ids: Vec<i64> = (0..rows.len() as i64).collect();
        column.typed::<parquet::data_type::Int64Type>().write_batch(&ids, None, None).unwrap();
        column.close().unwrap();
        let mut column = group.next_column().unwrap().unwrap();
        let values: Vec<ByteArray> = rows.iter().flatten().map(|text| ByteArray::from(*text)).collect();
        let levels: Vec<i16> = rows.iter().map(|row| i16::from(row.is_some())).collect();
        column.typed::<ByteArrayType>().write_batch(&values, Some(&levels), None).unwrap();
        column.close().unwrap();
        let mut column = group.next_column().unwrap().unwrap();
        let none = vec![0; rows.len()];
        column.typed::<ByteArrayType>().write_batch(&[], Some(&none), Some(&none)).unwrap();
        column.close().unwrap();
        group.close().unwrap();
    }
    writer.close().unwrap();
}

#[test]
fn parquet_columns_are_read_in_every_usual_compression() {
    use parquet::basic::{Compression, GzipLevel, ZstdLevel};
    let folder = tempfile::tempdir().unwrap();
    let texts: Vec<String> = (0..1000).map(|row| format!("row {row} ü {}", "x".repeat(row % 50))).collect();
    let rows: Vec<Option<&str>> = texts.iter().map(|text| Some(text.as_str())).collect();
    let ways = [
        Compression::UNCOMPRESSED,
        Compression::SNAPPY,
        Compression::GZIP(GzipLevel::default()),
        Compression::ZSTD(ZstdLevel::default()),
    ];
    let path = folder.path().join("a.parquet");
    for way in ways {
        write_parquet(&path, way, &rows);
        assert_eq!(documents(&corpus(&path, |_| {})), texts, "{way:?}");
    }
    write_parquet(&path, Compression::SNAPPY, &[Some("a"), None, Some(""), Some("b")]);
    assert!(error(&corpus(&path, |_| {})).contains("a.parquet, row 2: null"));
    let skipping = corpus(&path, |settings| settings.faults = Faults::Skip);
    assert_eq!((documents(&skipping), skipping.faults().count), (vec!["a".to_owned(), "b".to_owned()], 2));
    for (field, expected) in
        [("body", "no column `body`; this file has `id`, `text`, `tags`"), ("id", "found INT64"), ("tags", "in lists")]
    {
        let error = error(&corpus(&path, |settings| settings.field = field.to_owned()));
        assert!(error.contains(expected), "{error}");
    }
}

#[test]
fn damaged_parquet_never_panics() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.parquet");
    let rows: Vec<Option<&str>> = (0..300).map(|row| (row % 5 != 0).then_some("some text")).collect();
    write_parquet(&path, parquet::basic::Compression::SNAPPY, &rows);
    let sound = std::fs::read(&path).unwrap();
    let mut rng = phyla_kernels::rng::Rng::new(2);
    for _ in 0..1500 {
        let mut bytes = sound.clone();
        for _ in 0..1 + rng.below(4) {
            let at = rng.below(bytes.len() as u64) as usize;
            bytes[at] = rng.below(256) as u8;
        }
        if rng.below(10) == 0 {
            bytes.truncate(rng.below(bytes.len() as u64) as usize);
        }
        std::fs::write(&path, bytes).unwrap();
        let _ = corpus(&path, |_| {}).documents().unwrap().take(2000).filter(|document| document.is_err()).count();
    }
}

#[test]
fn splits_are_complements() {
    let lines: String = (0..1000).map(|line| format!("{{\"text\": \"document {line} é\"}}\n")).collect();
    let folder = folder(&[("a.jsonl", lines.as_bytes())]);
    let whole = documents(&corpus(folder.path(), |_| {}));
    let part = |split| documents(&corpus(folder.path(), |settings| settings.split = Some(split)));
    let by_document = |portion| part(Split::Documents { validation: 0.1, seed: 1, portion });
    let (train, validation) = (by_document(Portion::Train), by_document(Portion::Validation));
    // Binomial with 1000 draws of 0.1: mean 100, deviation 9.5; five deviations either way.
    assert!((52..=148).contains(&validation.len()), "{}", validation.len());
    let mut together = [train, validation.clone()].concat();
    together.sort();
    let mut expected = whole.clone();
    expected.sort();
    assert_eq!(together, expected);
    assert_ne!(validation, part(Split::Documents { validation: 0.1, seed: 2, portion: Portion::Validation }));

    let by_character = |portion| part(Split::Characters { validation: 0.1, portion });
    let (train, validation) = (by_character(Portion::Train), by_character(Portion::Validation));
    let all = whole.concat();
    assert_eq!(train.concat() + &validation.concat(), all);
    assert_eq!(train.concat().chars().count(), (all.chars().count() as f64 * 0.9) as usize);
    let wrong = TextSettings {
        split: Some(Split::Characters { validation: 1.5, portion: Portion::Train }),
        ..TextSettings::new(folder.path())
    };
    assert!(Corpus::new(wrong).unwrap_err().to_string().contains("between 0 and 1, found 1.5"));
}

#[test]
fn the_character_split_cuts_through_pieces() {
    let text: String = (0..120_000).map(|line| format!("Line {line} ü\n")).collect();
    let folder = folder(&[("a.txt", text.as_bytes())]);
    for validation in [0.1, 0.5, 0.9] {
        let part = |portion| {
            documents(&corpus(folder.path(), |settings| {
                settings.split = Some(Split::Characters { validation, portion })
            }))
        };
        let (train, rest) = (part(Portion::Train), part(Portion::Validation));
        assert_eq!((train.len(), rest.len()), (1, 1));
        assert_eq!(train[0].chars().count(), (text.chars().count() as f64 * (1.0 - validation)) as usize);
        assert_eq!(train[0].clone() + &rest[0], text);
    }
}

#[test]
fn the_fingerprint_follows_content_and_settings() {
    let folder = folder(&[("a.txt", b"one\n\ntwo")]);
    let print = |change: fn(&mut TextSettings)| corpus(folder.path(), change).fingerprint().unwrap();
    let first = print(|_| {});
    assert_eq!(first, print(|_| {}));
    assert_ne!(first, print(|settings| settings.separator = Some(String::new())));
    std::fs::write(folder.path().join("a.txt"), "one\n\ntwO").unwrap();
    assert_ne!(first, print(|_| {}));
}

#[test]
fn settings_refuse_unknown_keys() {
    let parse = serde_json::from_str::<TextSettings>;
    let settings = parse(
        r#"{"paths": ["a"], "separator": "", "split": {"kind": "characters", "validation": 0.1, "portion": "train"}}"#,
    )
    .unwrap();
    assert_eq!(
        (settings.field.as_str(), settings.separator.as_deref(), settings.faults),
        ("text", Some(""), Faults::Refuse)
    );
    assert!(parse(r#"{"paths": ["a"], "seperator": ""}"#).unwrap_err().to_string().contains("seperator"));
}
