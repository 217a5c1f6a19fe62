//! What the tasks promise: portions apart, labels in balance, answers that stand where they should.
#![expect(clippy::unwrap_used, reason = "tests")]

use std::collections::{HashMap, HashSet};

use super::*;
use crate::supervised::classify::{Classify, ClassifySettings};
use crate::supervised::records::{Choice, Dialogue, Graded, Labelled, Parallel, Preference, Question, Record, Tagged};
use crate::supervised::table::Table;

const COUNT: usize = 3000;

/// Item by item what must not be in both portions.
fn items(task: &str, seed: u64, portion: Portion) -> HashSet<String> {
    match task {
        "dates" => dates(seed, portion).take(COUNT).map(|pair| pair.target.unwrap()).collect(),
        "numbers" => numbers(seed, portion, Language::English, Direction::ToDigits)
            .take(COUNT)
            .map(|pair| pair.target.unwrap())
            .collect(),
        "sentiment" => sentiment(seed, portion).take(COUNT).map(|record| record.text).collect(),
        "entities" => entities(seed, portion).take(COUNT).map(|record| record.tokens.join(" ")).collect(),
        "questions" => questions(seed, portion).take(COUNT).map(|record| record.context).collect(),
        "endings" => endings(seed, portion).take(COUNT).map(|record| record.context.unwrap()).collect(),
        _ => speakers(seed, portion).take(COUNT).map(|record| record.context.unwrap()).collect(),
    }
}

#[test]
fn held_out_items_are_never_trained_on_under_any_seed() {
    for task in Task::NAMES {
        let held = items(task, 1, Portion::Validation);
        for seed in [1, 2] {
            let trained = items(task, seed, Portion::Train);
            // Small numbers come again and again; beginnings of stories, which end differently, sometimes.
            assert!(trained.len() * 10 > COUNT * 3, "{task}: {}", trained.len());
            let both = held.intersection(&trained).count();
            let allowed = if task == "endings" { trained.len() / 100 } else { 0 };
            assert!(both <= allowed, "{task}: {both} items are in both portions");
        }
    }
}

#[test]
fn the_seed_decides() {
    fn check<R: PartialEq + std::fmt::Debug>(make: impl Fn(u64) -> Vec<R>) {
        assert_eq!(make(3), make(3));
        assert_ne!(make(3), make(4));
    }
    check(|seed| dates(seed, Portion::Train).take(50).collect());
    check(|seed| numbers(seed, Portion::Train, Language::French, Direction::ToWords).take(50).collect());
    check(|seed| sentiment(seed, Portion::Train).take(50).collect());
    check(|seed| entities(seed, Portion::Train).take(50).collect());
    check(|seed| questions(seed, Portion::Train).take(50).collect());
    check(|seed| endings(seed, Portion::Train).take(50).collect());
    check(|seed| speakers(seed, Portion::Train).take(50).collect());
}

#[test]
fn a_tenth_of_items_is_held_out() {
    for task in ["dates", "numbers", "stories"] {
        let held = (0..100_000).filter(|&item| portion_of(task, item) == Portion::Validation).count();
        // Five standard deviations of a fair draw.
        assert!(held.abs_diff(10_000) < 475, "{task}: {held}");
    }
}

#[test]
fn endings_are_in_balance() {
    let good = sentiment(5, Portion::Train).take(COUNT).filter(|record| record.label == "good").count();
    // Five standard deviations of a fair coin.
    assert!(good.abs_diff(COUNT / 2) < 137, "{good} of {COUNT}");
    let records = sentiment(5, Portion::Train).take(200).map(Ok);
    let tokenizer = crate::tokenizer::Tokenizer::characters(
        &sentiment(5, Portion::Train).take(200).map(|record| record.text).collect::<String>(),
    );
    let made = Classify::new(records, &tokenizer.unwrap(), &ClassifySettings::default(), None).unwrap();
    assert_eq!(made.labels().names(), ["good", "sad"]);
}

#[test]
fn tags_are_well_formed_and_each_kind_is_frequent() {
    let mut counts: HashMap<String, usize> = HashMap::new();
    let mut names = HashSet::new();
    for Tagged { tokens, tags, .. } in entities(6, Portion::Train).take(COUNT) {
        let mut before = "O".to_owned();
        for (token, tag) in tokens.iter().zip(&tags) {
            if let Some(kind) = tag.strip_prefix("I-") {
                assert!(before.ends_with(kind) && before != "O", "{before} {tag} at {token}");
            }
            if tag == "B-PER" {
                assert!(token.starts_with(char::is_uppercase), "{token}");
                names.insert(token.clone());
            }
            *counts.entry(tag.clone()).or_default() += 1;
            before.clone_from(tag);
        }
        assert!(tags.iter().any(|tag| tag == "B-PER"));
    }
    for tag in ["O", "B-PER", "B-LOC", "I-LOC", "B-ANIMAL", "B-THING", "I-THING"] {
        assert!(counts.get(tag).is_some_and(|&count| count > COUNT / 20), "{tag}: {counts:?}");
    }
    assert_eq!(names.len(), 28, "{names:?}");
    // A name is a name wherever it stands.
    for Tagged { tokens, tags, .. } in entities(6, Portion::Train).take(200) {
        let here: HashSet<&String> =
            tokens.iter().zip(&tags).filter(|(_, tag)| *tag == "B-PER").map(|(token, _)| token).collect();
        assert!(tokens.iter().zip(&tags).all(|(token, tag)| !here.contains(token) || tag == "B-PER"));
    }
}

#[test]
fn answers_stand_where_they_should_and_a_third_has_none() {
    let mut without = 0;
    let mut kinds: HashMap<String, [usize; 2]> = HashMap::new();
    for question in questions(7, Portion::Train).take(COUNT) {
        let kind: String = question.question.split(' ').take(2).collect::<Vec<_>>().join(" ");
        kinds.entry(kind).or_default()[usize::from(question.answers.is_empty())] += 1;
        without += usize::from(question.answers.is_empty());
        for answer in &question.answers {
            let span: String =
                question.context.chars().skip(answer.start.unwrap()).take(answer.text.chars().count()).collect();
            assert_eq!(span, answer.text);
            assert!(!span.is_empty());
            // The answer is no part of the question.
            assert!(!question.question.contains(&format!(" {span}?")), "{question:?}");
        }
    }
    assert!(without.abs_diff(COUNT / 3) < COUNT / 20, "{without} of {COUNT} without an answer");
    // No kind of question gives away whether it has an answer.
    for (kind, [with, without]) in kinds {
        let share = without as f64 / (with + without) as f64;
        assert!((0.15..0.6).contains(&share) || with + without < 100, "{kind}: {with} with, {without} without");
    }
}

#[test]
fn right_choices_stand_anywhere_and_cannot_be_told_by_length() {
    fn check(name: &str, choices: impl Iterator<Item = Choice>) {
        let (mut places, mut longest) = ([0; 4], 0);
        for choice in choices.take(COUNT) {
            let answer = choice.answer.unwrap();
            assert_eq!(choice.choices.len(), 4);
            assert_eq!(choice.choices.iter().collect::<HashSet<_>>().len(), 4, "{choice:?}");
            places[answer] += 1;
            longest += usize::from(choice.choices.iter().all(|other| other.len() <= choice.choices[answer].len()));
        }
        // Five standard deviations of a fair draw of four.
        assert!(places.iter().all(|&count: &usize| count.abs_diff(COUNT / 4) < 119), "{name}: {places:?}");
        println!("{name}: the right choice is the longest in {longest} of {COUNT}");
        assert!(longest < COUNT / 2, "{name}: {longest}");
    }
    check("endings", endings(8, Portion::Train));
    check("speakers", speakers(8, Portion::Train));
}

#[test]
fn every_task_is_written_to_files_that_are_read_back() {
    fn back<R: Record>(path: &Path) -> usize {
        Table::open(path).unwrap().records::<R>().collect::<Result<Vec<_>>>().unwrap().len()
    }
    let folder = tempfile::tempdir().unwrap();
    for name in Task::NAMES {
        let path = folder.path().join(format!("{name}.jsonl"));
        let task: Task = name.parse().unwrap();
        task.write(&path, 1, Portion::Validation, 20).unwrap();
        let count = match task {
            Task::Dates | Task::Numbers { .. } => back::<Parallel>(&path),
            Task::Sentiment => back::<Labelled>(&path),
            Task::Entities => back::<Tagged>(&path),
            Task::Questions => back::<Question>(&path),
            Task::Endings | Task::Speakers => back::<Choice>(&path),
            Task::Preferences => back::<Preference>(&path),
            Task::Instructions => back::<Dialogue>(&path),
            Task::Reviews => back::<Graded>(&path),
        };
        assert_eq!(count, 20, "{name}");
        if let Some(folder) = std::env::var_os("PHYLA_TASK_SAMPLES") {
            std::fs::copy(&path, Path::new(&folder).join(format!("{name}.jsonl"))).unwrap();
        }
        let table = format!("{{\"kind\": \"{name}\"}}");
        assert_eq!(serde_json::from_str::<Task>(&table).unwrap(), task);
    }
    assert!("date".parse::<Task>().unwrap_err().to_string().contains("there are dates, numbers"));
    assert!(is_exact(" 1984-03-03\n", "1984-03-03") && !is_exact("a b", "ab"));
}
