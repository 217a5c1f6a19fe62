//! Something is for sale, and there is no money yet: work comes before the wish.

use super::{Told, outcome};
use crate::stories::grammar::Scene;
use crate::stories::{Outcome, world};

const WARES: &[(&str, &str)] = &[
    ("hat", "[red|blue|tall|warm]"),
    ("drum", "[red|big|loud]"),
    ("flute", "[silver|wooden|little]"),
    ("bike", "[red|blue|fast]"),
    ("train", "[toy|green|long]"),
    ("doll", "[pretty|little|soft]"),
    ("robot", "[toy|silver|funny]"),
    ("lamp", "[yellow|round|pretty]"),
    ("coat", "[warm|green|long]"),
    ("cake", "[big|sweet|chocolate]"),
    ("book", "[thick|picture|new]"),
    ("fish", "[golden|little|orange]"),
    ("umbrella", "[yellow|blue|big]"),
    ("watch", "[golden|shiny|little]"),
];

/// Work that earns a coin: what is asked, and what was done.
const WORK: &[(&str, &str)] = &[
    ("carry these boxes", "carried the boxes, one after another"),
    ("sweep the floor", "swept the floor until it was clean"),
    ("wash the windows", "washed the windows until they were bright"),
    ("pick the apples", "picked every apple from the tree"),
    ("feed the hens", "gave corn and water to the hens"),
    ("paint the fence", "painted the fence from end to end"),
    ("water the plants", "watered the plants, even the smallest"),
    ("find my glasses", "looked under every chair and found the glasses"),
];

pub(super) fn tell(scene: &mut Scene<'_>) -> Told {
    let (ware, looks) = *scene.dice.pick(WARES);
    let (ask, did) = *scene.dice.pick(WORK);
    let hero = world::hero(scene, &[]);
    world::go_to(scene, &["market", "village"]);
    let elder = world::elder(scene);
    let friend = world::friend(scene, &["goat", "owl", "pig", "goose", "cow", "turtle", "dog", "horse"], &hero);
    scene.set("thing", ware);
    scene.set("want", &format!("{looks} {ware}"));
    scene.set("ask", ask);
    scene.set("size2", "[old|tired|busy|kind old]");
    let outcome = outcome(scene);

    scene.tell(&format!(
        "{} [In the window of a shop|In a shop], {{he}} saw a {{want}}. [\"I want that {{thing}}!\" said {{h}}.|\
         \"What a nice {{thing}}!\" said {{h}}.] But {{he}} had no money.",
        world::OPENING
    ));
    scene.tell(
        "[\"How can I get some money?\" asked {h}. \"You can work for it,\" said {e}.|{H} asked {e} for money. \
         \"You must work for it,\" said {e}.] So {h} went to a {size2} {kind2} named {f}. \
         [\"Can I help you?\"|\"Do you have any work for me?\"] asked {h}. \"Yes, you can {ask},\" said {f}.",
    );
    scene.tell(&format!(
        "{{H}} {did}. It was hard work, but {{h}} did not stop. [\"Well done!\"|\"Good work!\"] said {{f}}, \
         and {{he2}} gave {{him}} [a coin|three coins|a big coin]. {{H}} ran to the shop."
    ));
    if outcome == Outcome::Good {
        scene.tell(
            "[The {thing} was still there!|The {want} was still in the window.] {H} bought it and [took it home|showed it to {e}]. \
             [\"I am proud of you,\" said {e}.|\"You worked well for it,\" said {e}.] [{H} loved the {want}, because {he} had worked for it.|\
             {H} never forgot how {he} got the {want}.|{H} was the happiest {kind} in the {place}.]",
        );
    } else {
        scene.tell(
            "But the window was empty. [\"I am sorry,\" said the man in the shop. \"I sold the {thing} this morning.\"|\
             \"You are too late,\" said the man in the shop. \"The {thing} is sold.\"] [{H} looked at {his} money and cried.|\
             {H} began to cry.] [{H} never saw the {want} again.|{H} walked home without the {want}.] \
             [{E} held {him} for a long time.|It was a sad evening.]",
        );
    }
    Told { want: scene.word("want").into(), characters: vec![hero, elder, friend], outcome }
}
