//! Beginnings of stories with a good and a sad ending: preferences that can be read in the text.

use super::tales::hash;
use super::{portion_of, stream};
use crate::dataset::Portion;
use crate::stories::{self, Story};
use crate::supervised::records::{Judgement, Origin, Preference};

/// Beginnings of stories, each with a good ending, which is preferred, and a sad one.
///
/// Which portion a pair belongs to, its beginning decides.
pub fn preferences(seed: u64, portion: Portion) -> impl Iterator<Item = Preference> + Send {
    stories::both_ways(stream("preferences", seed, portion).next_u64())
        .filter_map(pair)
        .filter(move |pair| portion_of("preferences", hash(&pair.prompt)) == portion)
}

/// The same one by one: of each pair the good ending or the sad one, in turn.
pub fn judgements(seed: u64, portion: Portion) -> impl Iterator<Item = Judgement> + Send {
    preferences(seed, portion).zip([true, false].into_iter().cycle()).map(|(pair, desirable)| Judgement {
        prompt: pair.prompt,
        completion: if desirable { pair.chosen } else { pair.rejected },
        desirable,
        origin: Origin::default(),
    })
}

/// Both tellings, divided where a sentence ends, before they part.
fn pair((good, sad): (Story, Story)) -> Option<Preference> {
    let [good, sad] = [good, sad].map(|story| story.text.replace("\n\n", " "));
    let shared = good.bytes().zip(sad.bytes()).take_while(|(a, b)| a == b).count();
    let told = good.get(..shared)?;
    // Of the mark that ends a sentence, the quotation mark behind it, and no space.
    let ends =
        [". ", "! ", "? ", ".\" ", "!\" ", "?\" "].iter().filter_map(|end| Some(told.rfind(end)? + end.len() - 1));
    let end = ends.max()?;
    let rest = |text: &str| text[end..].to_owned();
    (good != sad).then(|| Preference {
        prompt: told[..end].to_owned(),
        chosen: rest(&good),
        rejected: rest(&sad),
        margin: None,
        origin: Origin::default(),
    })
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn both_endings_belong_to_one_beginning_and_held_out_beginnings_stay_apart() {
        let train: Vec<Preference> = preferences(1, Portion::Train).take(400).collect();
        assert_eq!(train, preferences(1, Portion::Train).take(400).collect::<Vec<_>>());
        for pair in &train {
            assert!(pair.prompt.len() > 40 && pair.prompt.ends_with(['.', '!', '?', '"']), "{pair:?}");
            assert!(pair.chosen.starts_with(' ') && pair.rejected.starts_with(' '), "{pair:?}");
            assert_ne!(pair.chosen, pair.rejected);
        }
        let known: HashSet<&str> = train.iter().map(|pair| pair.prompt.as_str()).collect();
        let held_out = preferences(2, Portion::Validation).take(100);
        assert!(held_out.into_iter().all(|pair| !known.contains(pair.prompt.as_str())));
        let judged: Vec<Judgement> = judgements(1, Portion::Train).take(2).collect();
        assert_eq!((&judged[0].completion, &judged[1].completion), (&train[0].chosen, &train[1].rejected));
    }
}
