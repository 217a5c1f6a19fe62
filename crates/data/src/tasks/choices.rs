//! Multiple choice on stories: which ending is this one's, and who said it.

use phyla_kernels::rng::Rng;

use super::tales::{Memory, next_with, places_of, quotations, tales};
use super::{pick, stream};
use crate::dataset::Portion;
use crate::stories::{Character, Story};
use crate::supervised::records::{Choice, Origin};

/// Choices of each question.
const CHOICES: usize = 4;

/// Puts the right choice among the wrong ones, at any place alike.
fn mixed(rng: &mut Rng, context: String, question: String, right: String, mut choices: Vec<String>) -> Choice {
    let answer = rng.below(choices.len() as u64 + 1) as usize;
    choices.insert(answer, right);
    Choice { context: Some(context), question, choices, answer: Some(answer), origin: Origin::default() }
}

/// The last two sentences of a story, and where they begin; a sentence ends before a space and a capital or a quote.
fn ending(text: &str) -> Option<usize> {
    let mut ends = Vec::new();
    let mut inside = false;
    let bytes = text.as_bytes();
    for (at, byte) in bytes.iter().enumerate() {
        inside ^= *byte == b'"';
        let mark = matches!(byte, b'.' | b'!' | b'?') || *byte == b'"' && at > 0 && bytes[at - 1] == b'.';
        let next = bytes.get(at + 2).is_some_and(|next| next.is_ascii_uppercase() || *next == b'"');
        if mark && !inside && bytes.get(at + 1) == Some(&b' ') && next {
            ends.push(at + 2);
        }
    }
    ends.len().checked_sub(2).map(|index| ends[index])
}

/// `ending` of another story told of the characters of this one, if they can stand for each other.
fn retold(ending: &str, other: &Story, story: &Story) -> Option<String> {
    // An ending that tells of a friend whom this story does not have, or whose pronouns differ, would give itself away.
    let mut renamed: Vec<(&Character, &Character)> = Vec::new();
    for (index, character) in other.characters.iter().enumerate() {
        if places_of(ending, &character.name).next().is_none() {
            continue;
        }
        let elder = |one: &Character| one.kind == "elder";
        let counterpart = match index {
            0 => story.characters.first()?,
            _ => story.characters.iter().skip(1).find(|one| elder(one) == elder(character))?,
        };
        if counterpart.pronoun != character.pronoun {
            return None;
        }
        renamed.push((character, counterpart));
    }
    if other.characters.first()?.pronoun != story.characters.first()?.pronoun {
        return None;
    }
    let mut places: Vec<_> = renamed
        .iter()
        .flat_map(|(from, to)| places_of(ending, &from.name).map(|place| (place, to.name.as_str())).collect::<Vec<_>>())
        .collect();
    places.sort_by_key(|(place, _)| place.start);
    let (mut out, mut from) = (String::with_capacity(ending.len()), 0);
    for (place, name) in places {
        out.push_str(&ending[from..place.start]);
        out.push_str(name);
        from = place.end;
    }
    out.push_str(&ending[from..]);
    Some(out)
}

/// Stories without their last two sentences, which are one of four choices; the wrong ones end other stories, told of
/// these characters. Without end.
pub fn endings(seed: u64, portion: Portion) -> impl Iterator<Item = Choice> + Send {
    let mut rng = stream("endings mixed", seed, portion);
    let mut told = tales("endings", seed, portion);
    let mut memory = Memory::default();
    std::iter::from_fn(move || {
        loop {
            let story = next_with(&mut memory, &mut told)?;
            let made = ending(&story.text).and_then(|at| {
                let right = &story.text[at..];
                let last = |story: &Story| story.want.rsplit(' ').next().map(str::to_owned);
                // Endings that name the thing of their story, wrong and right alike: the others fit many stories.
                let names = |ending: &str, story: &Story| {
                    last(story).is_some_and(|word| places_of(ending, &word).next().is_some())
                };
                let mut wrong: Vec<String> = Vec::new();
                for other in memory.shuffled(&mut rng).filter(|_| names(right, &story)) {
                    let Some(at) = ending(&other.text) else { continue };
                    let Some(candidate) = retold(&other.text[at..], other, &story) else { continue };
                    // Another story of the same thing may end as well as this one.
                    let same = last(other) == last(&story) || candidate == right || wrong.contains(&candidate);
                    if !same && names(&candidate, other) {
                        wrong.push(candidate);
                    }
                    if wrong.len() == CHOICES - 1 {
                        break;
                    }
                }
                (wrong.len() == CHOICES - 1).then(|| {
                    let begun = story.text[..at].trim_end().to_owned();
                    mixed(&mut rng, begun, "How does the story end?".to_owned(), right.to_owned(), wrong)
                })
            });
            memory.keep(story);
            if made.is_some() {
                return made;
            }
        }
    })
}

/// Who of four said something in a story; two or three are in the story, the others are not. Without end.
pub fn speakers(seed: u64, portion: Portion) -> impl Iterator<Item = Choice> + Send {
    let mut rng = stream("speakers mixed", seed, portion);
    let mut told = tales("speakers", seed, portion);
    let mut memory = Memory::default();
    std::iter::from_fn(move || {
        loop {
            let story = next_with(&mut memory, &mut told)?;
            let said = quotations(&story);
            let made = (!said.is_empty()).then(|| {
                let said = pick(&mut rng, &said);
                let right = story.text[said.speaker.clone()].to_owned();
                let here = story.characters.iter().map(|character| character.name.clone());
                let mut names: Vec<String> = here.filter(|name| *name != right).collect();
                for other in memory.shuffled(&mut rng) {
                    let Some(name) = other.characters.first().map(|hero| hero.name.clone()) else { continue };
                    if names.len() < CHOICES - 1 && name != right && !names.contains(&name) {
                        names.push(name);
                    }
                }
                names.truncate(CHOICES - 1);
                let question = format!("Who {} \"{}\"?", said.verb, said.words);
                (question, right, names)
            });
            let made = made.map(|(question, right, mut names)| {
                rng.shuffle(&mut names);
                mixed(&mut rng, story.text.clone(), question, right, names)
            });
            memory.keep(story);
            if made.is_some() {
                return made;
            }
        }
    })
}
