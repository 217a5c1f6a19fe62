//! Questions on stories whose answer is a span of the story, and like questions that it does not answer.

use std::ops::Range;

use phyla_kernels::rng::Rng;

use super::tales::{Memory, has_word, next_with, places_of, quotations, tales};
use super::{pick, stream};
use crate::dataset::Portion;
use crate::stories::{Character, Story};
use crate::supervised::records::Question;

/// One question in `SHARE` has no answer, as in SQuAD 2.0 (Rajpurkar et al. 2018, arXiv:1806.03822).
const SHARE: u64 = 3;

/// Questions of one story at most: more would ask the same story again and again.
const EACH: usize = 2;

const COLORS: [&str; 9] = ["red", "blue", "yellow", "green", "pink", "orange", "white", "brown", "golden"];

type Asked = (String, Option<Range<usize>>);

/// What can be asked about.
#[derive(Debug, Clone, Copy)]
enum Subject {
    Name,
    Kind,
    Place,
    Want,
    Color,
    Speaker,
}

const SUBJECTS: [Subject; 6] =
    [Subject::Name, Subject::Kind, Subject::Place, Subject::Want, Subject::Color, Subject::Speaker];

/// Where a character's kind stands: before `named`, or in `Tom was a brave fox`.
fn kind_of(text: &str, character: &Character) -> Option<Range<usize>> {
    let introduced = format!("{} named {}", character.kind, character.name);
    if let Some(place) = places_of(text, &introduced).next() {
        return Some(place.start..place.start + character.kind.len());
    }
    let described = text.find(&format!("{} was a", character.name))?;
    let sentence = &text[described..described + text[described..].find('.')?];
    let place = places_of(sentence, &character.kind).next()?;
    Some(described + place.start..described + place.end)
}

fn first(text: &str, word: &str) -> Option<Range<usize>> {
    places_of(text, word).next()
}

/// The thing of a want that begins with its color.
fn colored(want: &str) -> Option<(&str, &str)> {
    let (color, thing) = want.split_once(' ')?;
    COLORS.contains(&color).then_some((color, thing))
}

/// A question on `subject` that the story answers.
fn answered(rng: &mut Rng, story: &Story, subject: Subject) -> Option<Asked> {
    let text = &story.text;
    let hero = story.characters.first()?;
    let named: Vec<&Character> = story.characters.iter().filter(|character| character.kind != "elder").collect();
    let someone = *pick(rng, &named);
    match subject {
        Subject::Name => {
            let alone = named.iter().filter(|other| other.kind == someone.kind).count() == 1;
            // The question says `the fox`: there must be no other.
            kind_of(text, someone).filter(|_| alone)?;
            Some((format!("What was the name of the {}?", someone.kind), first(text, &someone.name)))
        }
        Subject::Kind => Some((format!("What was {}?", someone.name), Some(kind_of(text, someone)?))),
        Subject::Place => {
            let question = *pick(rng, &["Where was {}?", "Where does the story of {} happen?"]);
            Some((question.replace("{}", &hero.name), Some(first(text, &story.place)?)))
        }
        Subject::Want => Some(match story.want.strip_prefix("to ") {
            Some(deed) => (format!("What did {} want to do?", hero.name), Some(first(text, deed)?)),
            None => (format!("Which thing is the story of {} about?", hero.name), Some(first(text, &story.want)?)),
        }),
        Subject::Color => {
            let (color, thing) = colored(&story.want)?;
            let place = first(text, &story.want)?;
            Some((format!("What color was the {thing}?"), Some(place.start..place.start + color.len())))
        }
        Subject::Speaker => {
            let quotations = quotations(story);
            let said = quotations.get(rng.below(quotations.len().max(1) as u64) as usize)?;
            Some((format!("Who {} \"{}\"?", said.verb, said.words), Some(said.speaker.clone())))
        }
    }
}

/// The like question about something that is not in the story, but in one remembered.
fn unanswered(rng: &mut Rng, story: &Story, subject: Subject, memory: &Memory) -> Option<Asked> {
    let absent = |words: &str| !has_word(&story.text, words);
    for other in memory.shuffled(rng).take(16).cloned().collect::<Vec<_>>() {
        let Some((question, Some(answer))) = answered(rng, &other, subject) else { continue };
        // What the question is about must not be here, or the story may answer it after all.
        let about = match subject {
            Subject::Name => other.characters.iter().find(|one| one.name == other.text[answer.clone()])?.kind.clone(),
            Subject::Color => colored(&other.want)?.1.to_owned(),
            Subject::Speaker => question.split('"').nth(1)?.to_owned(),
            Subject::Kind | Subject::Place | Subject::Want => {
                other.characters.iter().map(|one| &one.name).find(|name| has_word(&question, name))?.clone()
            }
        };
        if absent(&about) {
            return Some((question, None));
        }
    }
    None
}

/// Questions on stories without end; a third of them has no answer.
pub fn questions(seed: u64, portion: Portion) -> impl Iterator<Item = Question> + Send {
    let mut rng = stream("questions asked", seed, portion);
    let mut told = tales("questions", seed, portion);
    let mut memory = Memory::default();
    let mut ready: Vec<Question> = Vec::new();
    let mut count = 0_u64;
    std::iter::from_fn(move || {
        loop {
            if let Some(question) = ready.pop() {
                return Some(question);
            }
            let story = next_with(&mut memory, &mut told)?;
            let mut subjects = SUBJECTS;
            rng.shuffle(&mut subjects);
            for subject in subjects {
                if ready.len() == EACH {
                    break;
                }
                // Asked without an answer only where it could have been asked with one: else the kind of question tells.
                let Some(asked) = answered(&mut rng, &story, subject).filter(|(_, answer)| answer.is_some()) else {
                    continue;
                };
                let without = if rng.below(SHARE) == 0 { unanswered(&mut rng, &story, subject, &memory) } else { None };
                let (question, answer) = without.unwrap_or(asked);
                let answer = answer.map(|span| {
                    let start = story.text[..span.start].chars().count();
                    (&story.text[span], start)
                });
                count += 1;
                let id = format!("story-{count}");
                ready.push(Question { id, ..Question::new(question, story.text.clone(), answer) });
            }
            memory.keep(story);
        }
    })
}
