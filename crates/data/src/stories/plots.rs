//! What can happen in a story: one file per plot, chosen with equal chance.
//!
//! A plot fixes its want, obstacle and helper first and only then tells them, so every later
//! sentence follows from an earlier one: who can fly helps with the tree, what was lost is found.

mod dare;
mod earn;
mod fetch;
mod kindness;
mod lost;
mod make;
mod share;
mod warn;

use super::grammar::Scene;
use super::{Character, Outcome};

/// What a plot leaves behind beside the paragraphs in the scene.
pub(super) struct Told {
    pub(super) characters: Vec<Character>,
    pub(super) want: String,
    pub(super) outcome: Outcome,
}

type Plot = fn(&mut Scene<'_>) -> Told;

const PLOTS: &[Plot] =
    &[dare::tell, earn::tell, fetch::tell, kindness::tell, lost::tell, make::tell, share::tell, warn::tell];

/// Tells one story into `scene`.
pub(super) fn tell(scene: &mut Scene<'_>) -> Told {
    let plot = *scene.dice.pick(PLOTS);
    plot(scene)
}

/// Three stories of four end well.
fn outcome(scene: &mut Scene<'_>) -> Outcome {
    // Thrown all the same: what comes after is then told alike.
    let thrown = if scene.dice.one_in(4) { Outcome::Sad } else { Outcome::Good };
    scene.dice.ending.unwrap_or(thrown)
}

/// The last line of a story that ends well for `h` and `f`.
const FRIENDS_EVER_AFTER: &str = "[\
    From that day on, {h} and {f} were [good|best] friends.|\
    {h} and {f} [played|laughed] together until the sun went down.|\
    {h} went home with a big smile.|\
    They were both very happy.|\
    That night, {h} told {e} all about {his} new friend.]";
