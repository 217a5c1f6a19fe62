//! A deed is wanted and feared, and a friend takes the fear away.

use super::{FRIENDS_EVER_AFTER, Told, outcome};
use crate::stories::grammar::Scene;
use crate::stories::{Outcome, world};

struct Deed {
    places: &'static [&'static str],
    want: &'static str,
    fear: &'static str,
    advice: &'static str,
    done: &'static str,
    failed: &'static str,
    /// Animals who could always do it, who would not be afraid.
    masters: &'static [&'static str],
}

const DEEDS: &[Deed] = &[
    Deed {
        places: &["lake", "pond", "river"],
        want: "swim",
        fear: "the water looked deep and dark",
        advice: "Kick your legs and look at me",
        done: "{He} kicked {his} legs, and soon {he} was swimming like a fish",
        failed: "But the water went into {his} nose, and {he} ran back to the shore",
        masters: &["otter"],
    },
    Deed {
        places: &["hill", "beach"],
        want: "climb the big rock",
        fear: "the rock was so high",
        advice: "Take one step at a time",
        done: "{He} took one step, then another, and soon {he} stood on the top",
        failed: "But {his} foot slipped, and {he} fell down on the grass",
        masters: &["squirrel", "kitten", "monkey"],
    },
    Deed {
        places: &["park"],
        want: "go down the long slide",
        fear: "the slide was so tall",
        advice: "Sit down and hold on",
        done: "{He} sat down, held on, and went down as fast as the wind",
        failed: "But at the top {he} looked down, and {he} climbed back",
        masters: &[],
    },
    Deed {
        places: &["forest", "river"],
        want: "cross the old bridge",
        fear: "the bridge moved in the wind",
        advice: "Do not look down",
        done: "{He} did not look down, and step by step {he} came to the other side",
        failed: "But the bridge made a loud noise, and {he} ran back",
        masters: &[],
    },
    Deed {
        places: &["meadow", "forest", "farm"],
        want: "jump over the stream",
        fear: "the stream was so wide",
        advice: "Run fast and jump high",
        done: "{He} ran fast, jumped high, and landed on the other side",
        failed: "But {he} jumped too late, and {he} fell into the cold water",
        masters: &["otter", "rabbit"],
    },
    Deed {
        places: &["village", "park"],
        want: "ride a bike",
        fear: "the bike might fall over",
        advice: "Look ahead and keep going",
        done: "{He} looked ahead, kept going, and rode all the way down the road",
        failed: "But the bike fell over, and {he} hurt {his} knee",
        masters: &[],
    },
    Deed {
        places: &["school", "market"],
        want: "sing a song for everyone",
        fear: "there were so many people",
        advice: "Close your eyes and sing",
        done: "{He} closed {his} eyes and sang, and everyone clapped",
        failed: "But no sound came out of {his} mouth, and {he} ran away",
        masters: &[],
    },
    Deed {
        places: &["cabin"],
        want: "sleep in the dark",
        fear: "there were strange noises at night",
        advice: "Count ten sheep with me",
        done: "{He} counted ten sheep, and then {he} was fast asleep",
        failed: "But {he} heard a noise under the bed, and {he} turned on the light",
        masters: &["hedgehog", "badger"],
    },
    Deed {
        places: &["hill", "forest", "beach"],
        want: "go into the cave",
        fear: "the cave was black inside",
        advice: "Hold the lamp and stay close to me",
        done: "{He} held the lamp, stayed close, and saw a wall full of shining stones",
        failed: "But the lamp went out, and {he} ran back into the light",
        masters: &["bear", "badger", "mole"],
    },
    Deed {
        places: &["snowy field"],
        want: "ride the fast sled",
        fear: "the way down was so steep",
        advice: "Hold on tight and laugh",
        done: "{He} held on tight, laughed, and flew over the snow",
        failed: "But the sled hit a tree, and {he} fell into the snow",
        masters: &[],
    },
    Deed {
        places: &["school", "village"],
        want: "dance at the party",
        fear: "everyone would look",
        advice: "Listen to the drum and move your feet",
        done: "{He} listened to the drum, moved {his} feet, and danced all night",
        failed: "But {he} stepped on a foot, and {he} hid behind a chair",
        masters: &[],
    },
    Deed {
        places: &["farm", "meadow"],
        want: "ride the white horse",
        fear: "the horse was so big",
        advice: "Speak softly and hold on",
        done: "{He} spoke softly, held on, and rode around the field",
        failed: "But the horse began to run, and {he} fell off",
        masters: &[],
    },
];

pub(super) fn tell(scene: &mut Scene<'_>) -> Told {
    let deed = scene.dice.pick(DEEDS);
    let hero = world::hero(scene, deed.masters);
    world::go_to(scene, deed.places);
    let elder = world::elder(scene);
    let friend = world::playmate(scene, &hero);
    scene.set("want", deed.want);
    scene.set("advice", deed.advice);
    scene.set("size2", "[little|kind|brave|cheerful]");
    let outcome = outcome(scene);

    scene.tell(&format!(
        "{} [{{H}} wanted to {{want}}.|More than anything, {{he}} wanted to {{want}}.] \
         [But {{he}} was afraid, because {fear}.|But {fear}, and {{he}} was scared.]",
        world::OPENING,
        fear = deed.fear
    ));
    scene.tell(
        "[Then|Soon], a {size2} {kind2} named {f} came along. [\"Why do you stand there?\"|\"What are you \
         waiting for?\"|\"Are you all right?\"] asked {f}. \"I want to {want},\" said {h}, \"but I am [afraid|scared].\" \
         [\"I was afraid too,\" said {f}.|\"Everyone is afraid at first,\" said {f}.] \"{advice}.\"",
    );
    if outcome == Outcome::Good {
        scene.tell(&format!(
            "{{H}} took a deep breath. {}. [\"I did it!\" [cried|shouted] {{h}}.|\"You did it!\" [cried|shouted] {{f}}.] \
             [{{H}} was not afraid anymore.|{{H}} was very proud.|{{H}} wanted to do it again and again.] {FRIENDS_EVER_AFTER}",
            deed.done
        ));
    } else {
        scene.tell(&format!(
            "{{H}} took a deep breath. {}. [\"I cannot do it,\" {{he}} cried.|\"I will never do it,\" {{he}} said.] \
             [{{F}} was kind, but {{h}} did not want to try again.|{{H}} said goodbye to {{f}} and went home alone.] \
             [{{H}} was sad all evening.|{{He}} told {{e}} about it and cried.|It was not a good day for {{him}}.]",
            deed.failed
        ));
    }
    Told { want: scene.expand("to {want}"), characters: vec![hero, elder, friend], outcome }
}
