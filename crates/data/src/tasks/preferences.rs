//! Beginnings of stories with a good and a sad ending: preferences that can be read in the text.

use super::tales::hash;
use super::{portion_of, stream};
use crate::dataset::Portion;
use crate::stories::{self, Story};
use crate::supervised::records::{Judgement, Preference, Prompt};

/// Beginnings of stories, each with a good ending, which is preferred, and a sad one.
///
/// Which portion a pair belongs to, its beginning decides.
pub fn preferences(seed: u64, portion: Portion) -> impl Iterator<Item = Preference> + Send {
    told(seed, portion).map(|[prompt, good, sad]| Preference::new(&prompt, &good, &sad))
}

/// The same one by one: of each pair the good ending or the sad one, in turn.
pub fn judgements(seed: u64, portion: Portion) -> impl Iterator<Item = Judgement> + Send {
    told(seed, portion).zip([true, false].into_iter().cycle()).map(|([prompt, good, sad], desirable)| {
        Judgement::new(&prompt, if desirable { &good } else { &sad }, desirable)
    })
}

/// The beginnings alone, for endings that are judged when they are written.
pub fn beginnings(seed: u64, portion: Portion) -> impl Iterator<Item = Prompt> + Send {
    told(seed, portion).map(|[prompt, ..]| Prompt::new(prompt))
}

/// Beginnings, each with a good and a sad ending.
fn told(seed: u64, portion: Portion) -> impl Iterator<Item = [String; 3]> + Send {
    stories::both_ways(stream("preferences", seed, portion).next_u64())
        .filter_map(divided)
        .filter(move |[prompt, ..]| portion_of("preferences", hash(prompt)) == portion)
}

/// Both tellings, divided where a sentence ends, before they part.
fn divided((good, sad): (Story, Story)) -> Option<[String; 3]> {
    let [good, sad] = [good, sad].map(|story| story.text.replace("\n\n", " "));
    let shared = good.bytes().zip(sad.bytes()).take_while(|(a, b)| a == b).count();
    let told = good.get(..shared)?;
    // Of the mark that ends a sentence, the quotation mark behind it, and no space.
    let ends =
        [". ", "! ", "? ", ".\" ", "!\" ", "?\" "].iter().filter_map(|end| Some(told.rfind(end)? + end.len() - 1));
    let end = ends.max()?;
    let rest = |text: &str| text[end..].to_owned();
    (good != sad).then(|| [told[..end].to_owned(), rest(&good), rest(&sad)])
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn both_endings_belong_to_one_beginning_and_held_out_beginnings_stay_apart() {
        let train: Vec<[String; 3]> = told(1, Portion::Train).take(400).collect();
        assert_eq!(train, told(1, Portion::Train).take(400).collect::<Vec<_>>());
        for [prompt, good, sad] in &train {
            assert!(prompt.len() > 40 && prompt.ends_with(['.', '!', '?', '"']), "{prompt}");
            assert!(good.starts_with(' ') && sad.starts_with(' '), "{good} {sad}");
            assert_ne!(good, sad);
        }
        let known: HashSet<&str> = train.iter().map(|[prompt, ..]| prompt.as_str()).collect();
        assert!(told(2, Portion::Validation).take(100).all(|[prompt, ..]| !known.contains(prompt.as_str())));
        let judged: Vec<Judgement> = judgements(1, Portion::Train).take(2).collect();
        assert_eq!(judged[0], Judgement::new(&train[0][0], &train[0][1], true));
        assert_eq!(judged[1], Judgement::new(&train[1][0], &train[1][2], false));
    }
}
