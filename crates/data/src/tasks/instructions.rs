//! Conversations about generated stories, for supervised fine-tuning: a story is asked for, told, and talked about.

use serde_json::{Value, json};

use super::tales::tales;
use super::{pick, stream};
use crate::dataset::Portion;
use crate::stories::{Outcome, Story};
use crate::supervised::records::{Content, Dialogue};

/// Conversations without end: a request for a story about someone that ends well or sadly, the story, and up to two
/// questions about it. What is asked for is what the story holds, so that a model can be seen to follow.
pub fn instructions(seed: u64, portion: Portion) -> impl Iterator<Item = Dialogue> + Send {
    let mut rng = stream("instructions", seed, portion);
    tales("instructions", seed, portion).map(move |story| {
        let good = story.outcome == Outcome::Good;
        let hero = story.characters.first().map_or("someone", |hero| hero.name.as_str());
        let ending = if good { "happy" } else { "sad" };
        let request = pick(
            &mut rng,
            &[
                "Tell me a story about {hero} with a {ending} ending.",
                "Write a {ending} story about {hero}.",
                "I would like a story about {hero}. Its ending should be {ending}.",
            ],
        );
        let mut turns = vec![(request.replace("{hero}", hero).replace("{ending}", ending), story.text.clone())];
        let mut questions = questions(&story, good);
        rng.shuffle(&mut questions);
        questions.truncate(rng.below(3) as usize);
        turns.extend(questions);
        let say = |role: &str, content: String| json!({"role": role, "content": content});
        let messages: Vec<Value> =
            turns.into_iter().flat_map(|(asked, answered)| [say("user", asked), say("assistant", answered)]).collect();
        Dialogue::new(Content::Messages(messages))
    })
}

fn questions(story: &Story, good: bool) -> Vec<(String, String)> {
    let names: Vec<&str> = story.characters.iter().map(|character| character.name.as_str()).collect();
    let who = match names.as_slice() {
        [] => "Nobody.".to_owned(),
        [one] => format!("{one}."),
        [first @ .., last] => format!("{} and {last}.", first.join(", ")),
    };
    let how = if good { "It ends well." } else { "It ends sadly." };
    vec![("Who is in the story?".to_owned(), who), ("How does the story end?".to_owned(), how.to_owned())]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_asked_for_is_what_is_told() {
        let (mut turns, mut sad) = (0, 0);
        for dialogue in instructions(1, Portion::Train).take(300) {
            let Content::Messages(messages) = dialogue.content else { unreachable!() };
            turns += messages.len() / 2;
            let text = |at: usize| messages[at]["content"].as_str().unwrap_or_default();
            assert!(
                messages.iter().zip(["user", "assistant"].iter().cycle()).all(|(said, role)| said["role"] == **role)
            );
            let asked = text(0);
            sad += usize::from(asked.contains("sad"));
            assert_ne!(asked.contains("sad"), asked.contains("happy"), "{asked}");
            let named = asked.split([' ', '.', '?']).any(|word| {
                word.starts_with(char::is_uppercase)
                    && !["Tell", "Write", "I", "Its"].contains(&word)
                    && text(1).contains(word)
            });
            assert!(named, "{asked} {}", text(1));
            for at in (2..messages.len()).step_by(2).filter(|&at| text(at).starts_with("How")) {
                assert_eq!(text(at + 1).contains("sadly"), asked.contains("sad"));
            }
        }
        assert!((500..700).contains(&turns) && (30..150).contains(&sad), "{turns} {sad}");
        let held_out = instructions(1, Portion::Validation).next();
        assert!(instructions(1, Portion::Train).take(300).all(|dialogue| Some(dialogue) != held_out));
    }
}
