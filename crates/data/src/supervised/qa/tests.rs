//! Windows, labels that reproduce the answer, and answers back from scores.
#![expect(clippy::unwrap_used, reason = "tests")]

use super::super::table::Table;
use super::super::table::shared::shared;
use super::super::testing::{bert, row, whole};
use super::*;

fn settings(max_len: usize, doc_stride: usize) -> QaSettings {
    QaSettings { max_len, doc_stride, ..QaSettings::default() }
}

#[test]
fn long_texts_are_read_in_overlapping_windows() {
    let tokenizer = bert();
    let (windows, cut) = windows(&tokenizer, "good ?", "a b c d e f g", &settings(9, 2)).unwrap();
    assert!(!cut);
    // [CLS] good ? [SEP] 4 of the text [SEP]; each window goes on two letters later.
    let texts: Vec<String> = windows.iter().map(|window| tokenizer.decode(&window.ids, false).unwrap()).collect();
    assert_eq!(
        texts,
        ["[CLS] good? [SEP] a b c d [SEP]", "[CLS] good? [SEP] c d e f [SEP]", "[CLS] good? [SEP] e f g [SEP]"]
    );
    assert_eq!(windows[1].spans, [4..5, 6..7, 8..9, 10..11]);
    assert_eq!((windows[1].context_start, windows[1].bytes(5, 6)), (4, Some(6..9)));
    assert_eq!((windows[1].bytes(3, 5), windows[1].bytes(5, 8), windows[1].bytes(6, 5)), (None, None, None));
    assert_eq!(windows[0].types, [0, 0, 0, 0, 1, 1, 1, 1, 1]);
    let short = QaSettings { max_question_len: 1, ..settings(9, 2) };
    let (cut, was_cut) = super::windows(&tokenizer, "good ?", "a b c d e", &short).unwrap();
    assert_eq!((cut.len(), was_cut, cut[0].context_start), (1, true, 3));
    let message = super::windows(&tokenizer, "good ?", "a b c d e", &settings(7, 2)).unwrap_err().to_string();
    assert!(message.contains("has room for 2 of the text beside a question of 2"), "{message}");
    // A text that fits needs no overlap; an empty one has a window without it.
    assert_eq!(super::windows(&tokenizer, "good ?", "a b", &settings(7, 2)).unwrap().0.len(), 1);
    assert_eq!(super::windows(&tokenizer, "good", "", &settings(9, 2)).unwrap().0[0].spans.len(), 0);
}

#[test]
fn labels_point_at_the_answer_and_elsewhere_at_token_0() {
    let records = [
        Question::new("good", "ä b the fox c d", Some(("the fox", 4))),
        Question::new("good", "a b the fox c d", None),
        Question::new("good", "a good", Some(("goo", 2))),
    ];
    let lost = Question::new("good", "a b", Some(("c", 0)));
    let lost = Question { answers: vec![super::super::records::Answer { text: "c".into(), start: None }], ..lost };
    let records: Vec<Result<Question>> = records.into_iter().chain([lost]).map(Ok).collect();
    let made = QuestionAnswering::new(records.into_iter(), &bert(), &settings(8, 2), Purpose::Train).unwrap();
    assert_eq!(
        made.notes(),
        [
            "4 questions in 5 windows",
            "1 of 4 questions have no answer",
            "1 of 4 questions have answers that do not stand in their text and were left out",
            "1 of 4 answers begin or end inside a token, and are labelled with the whole token"
        ]
    );
    assert_eq!((0..5).map(|window| made.question_of(window)).collect::<Vec<_>>(), [0, 0, 1, 1, 2]);
    let batch = whole(made);
    // [CLS] good [SEP] ä b the fox [SEP], and [CLS] good [SEP] the fox c d [SEP].
    assert_eq!(batch.labels, Labels::Span { start: vec![5, 3, 0, 0, 4], end: vec![6, 4, 0, 0, 4] });
    assert_eq!((row(&batch, 4).len(), batch.tokens), (6, 5));
}

#[test]
fn answers_come_back_from_scores() {
    let tokenizer = bert();
    let context = "ä b the fox c d";
    let windows = windows(&tokenizer, "good", context, &settings(8, 2)).unwrap().0;
    assert_eq!(windows.len(), 2);
    let time = 9;
    let (mut start, mut end) = (vec![0.0; 2 * time], vec![0.0; 2 * time]);
    (start[5], end[6]) = (4.0, 5.0); // "the fox" in the first window
    (start[time + 3], end[time + 4]) = (3.0, 3.0); // and in the second
    start[1] = 9.0; // the question is no answer
    end[8] = 9.0; // nor is filling
    let default = AnswerSettings::default();
    let ranked = answers(&start, &end, &windows, context, &default).unwrap();
    assert_eq!((ranked.best(), ranked.spans[0].characters.clone(), ranked.spans[0].score), ("the fox", 4..11, 9.0));
    assert_eq!(ranked.spans.iter().filter(|span| span.text == "the fox").count(), 1);
    assert!(!ranked.impossible);
    let sum: f32 = ranked.spans.iter().map(|span| span.probability).sum();
    assert!((sum - 1.0).abs() < 1e-5, "{sum}");
    assert!(ranked.spans.windows(2).all(|pair| pair[0].score >= pair[1].score));
    // "No answer": the lowest of the two windows' sums counts.
    (start[0], end[0], start[time], end[time]) = (8.0, 8.0, 5.0, 5.0);
    let choose = |threshold| {
        answers(&start, &end, &windows, context, &AnswerSettings { null_threshold: Some(threshold), ..default })
            .unwrap()
    };
    let (low, high) = (choose(0.5), choose(1.5));
    assert_eq!(
        (low.null_score, low.impossible, low.best(), high.impossible, high.best()),
        (10.0, true, "", false, "the fox")
    );
    assert_eq!(low.spans[0].text, "");
    let few = AnswerSettings { n_best: 2, null_threshold: Some(0.0), ..default };
    let few = answers(&start, &end, &windows, context, &few).unwrap();
    assert_eq!((few.spans.len(), few.spans.iter().filter(|span| span.text.is_empty()).count()), (2, 1));
    // Long answers, and numbers that are none.
    let short = answers(&start, &end, &windows, context, &AnswerSettings { max_answer_len: 1, ..default }).unwrap();
    assert!(short.spans.iter().all(|span| !span.text.contains(' ')));
    let nan = vec![f32::NAN; 2 * time];
    assert!(answers(&nan, &nan, &windows, context, &default).is_ok());
    assert!(answers(&start[1..], &end, &windows, context, &default).is_err());
    assert!(answers(&start[..6], &end[..6], &windows, context, &default).is_err());
    assert!(answers(&[], &[], &[], context, &default).is_err());
}

/// The span that the labels point at is the answer, for every question of two real sets.
#[test]
fn labels_reproduce_real_answers() {
    for (set, vocabulary) in [
        ("xquad/xquad.en.json", "bert-base-uncased"),
        ("cmrc2018/cmrc2018_trial.json", "bert-base-chinese"),
        ("adversarialqa_subset/train.json", "bert-base-uncased"),
    ] {
        let (Some(path), Some(folder)) = (shared(set), shared(&format!("tokenizers/{vocabulary}"))) else { return };
        let tokenizer = Tokenizer::load(folder).unwrap();
        let settings = super::super::table::TableSettings {
            faults: crate::dataset::Faults::Skip,
            ..super::super::table::TableSettings::new(path)
        };
        let table = Table::new(settings).unwrap();
        let begun = std::time::Instant::now();
        let made =
            QuestionAnswering::new(table.records(), &tokenizer, &QaSettings::default(), Purpose::Evaluate).unwrap();
        println!("{set}: {:?} in {:?}", made.notes(), begun.elapsed());
        let (mut exact, mut answered) = (0, 0);
        let mut seen = vec![false; made.questions().len()];
        for (window, spans) in made.windows().iter().enumerate() {
            let (question, start, end) = (made.question_of(window), made.starts[window], made.ends[window]);
            assert_eq!(start == 0, end == 0);
            if end == 0 {
                continue;
            }
            let bytes = spans.bytes(start as usize, end as usize).unwrap();
            let asked = &made.questions()[question];
            answered += 1;
            exact += usize::from(asked.context[bytes.clone()] == asked.answers[0].text);
            assert!(asked.context[bytes].contains(asked.answers[0].text.trim()), "{}", asked.id);
            seen[question] = true;
        }
        let unseen = seen.iter().filter(|seen| !**seen).count();
        println!("{set}: {exact} of {answered} labelled windows give the answer exactly, {unseen} questions without");
        // The rest begin or end inside a token: years in "1990s", numbers with marks.
        assert!(exact * 100 >= answered * 95, "{set}");
    }
}
