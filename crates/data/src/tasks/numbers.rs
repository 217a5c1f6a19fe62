//! Whole numbers to words and back, in four languages whose ways of counting differ.

use phyla_kernels::rng::Rng;
use serde::{Deserialize, Serialize};

use super::{pick, portion_of, stream};
use crate::dataset::Portion;
use crate::supervised::records::Parallel;

/// The largest number plus one.
const END: u64 = 1_000_000_000;

/// Whose number words.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Language {
    /// `one hundred twenty-one`
    #[default]
    English,
    /// `cent vingt et un`; sixty and eighty are bases of their own.
    French,
    /// `einhunderteinundzwanzig`: units before tens, all in one word.
    German,
    /// `一百二十一`: groups of four digits, and a sign for what is left out.
    Chinese,
}

/// Which way to translate.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Direction {
    /// Words to digits.
    #[default]
    ToDigits,
    /// Digits to words.
    ToWords,
}

/// Numbers and their words, without end: as many of few digits as of many, and round ones among them.
pub fn numbers(
    seed: u64,
    portion: Portion,
    language: Language,
    direction: Direction,
) -> impl Iterator<Item = Parallel> + Send {
    let mut rng = stream("numbers", seed, portion);
    std::iter::from_fn(move || {
        loop {
            let number = draw(&mut rng);
            if portion_of("numbers", number) == portion {
                let (digits, words) = (number.to_string(), words(number, language));
                return Some(match direction {
                    Direction::ToDigits => Parallel::new(words, digits),
                    Direction::ToWords => Parallel::new(digits, words),
                });
            }
        }
    })
}

fn draw(rng: &mut Rng) -> u64 {
    let end = 10_u64.pow(1 + rng.below(9) as u32);
    let number = rng.below(end);
    // Zeros inside and at the end are where languages have rules, and rare by chance.
    let hole = *pick(rng, &[1, 1, 10, 100, 1000, 10_000, 1_000_000]);
    if rng.below(4) == 0 { number - number % hole } else { number }
}

/// The words of a number, as far as 999,999,999; beyond, its digits.
pub fn words(number: u64, language: Language) -> String {
    if number >= END {
        return number.to_string();
    }
    match language {
        Language::English => english(number),
        Language::French => french(number),
        Language::German => german(number),
        Language::Chinese => chinese(number),
    }
}

/// Millions, thousands, and the rest.
fn groups(number: u64) -> [u64; 3] {
    [number / 1_000_000, number / 1000 % 1000, number % 1000]
}

const SMALL: [&str; 20] = [
    "zero",
    "one",
    "two",
    "three",
    "four",
    "five",
    "six",
    "seven",
    "eight",
    "nine",
    "ten",
    "eleven",
    "twelve",
    "thirteen",
    "fourteen",
    "fifteen",
    "sixteen",
    "seventeen",
    "eighteen",
    "nineteen",
];
const TENS: [&str; 10] = ["", "", "twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety"];

fn english(number: u64) -> String {
    if number == 0 {
        return SMALL[0].to_owned();
    }
    let mut parts = Vec::new();
    for (group, name) in groups(number).into_iter().zip(["million", "thousand", ""]) {
        if group >= 100 {
            parts.extend([SMALL[group as usize / 100].to_owned(), "hundred".to_owned()]);
        }
        match (group as usize % 100, group as usize % 10) {
            (0, _) => {}
            (rest, _) if rest < 20 => parts.push(SMALL[rest].to_owned()),
            (rest, 0) => parts.push(TENS[rest / 10].to_owned()),
            (rest, unit) => parts.push(format!("{}-{}", TENS[rest / 10], SMALL[unit])),
        }
        if group > 0 && !name.is_empty() {
            parts.push(name.to_owned());
        }
    }
    parts.join(" ")
}

const PETITS: [&str; 17] = [
    "zéro", "un", "deux", "trois", "quatre", "cinq", "six", "sept", "huit", "neuf", "dix", "onze", "douze", "treize",
    "quatorze", "quinze", "seize",
];
const DIZAINES: [&str; 10] =
    ["", "dix", "vingt", "trente", "quarante", "cinquante", "soixante", "soixante", "quatre-vingt", "quatre-vingt"];

/// A number under a hundred; `last`: nothing but a noun follows, so that eighty takes its plural.
fn french_tens(number: usize, last: bool) -> String {
    match number {
        0..=16 => PETITS[number].to_owned(),
        17..=19 => format!("dix-{}", PETITS[number - 10]),
        80 if last => "quatre-vingts".to_owned(),
        71 => "soixante et onze".to_owned(),
        70..=79 | 90..=99 => format!("{}-{}", DIZAINES[number / 10], french_tens(number % 20, false)),
        _ => match (number % 10, number / 10) {
            (0, ten) => DIZAINES[ten].to_owned(),
            (1, ten) if ten < 8 => format!("{} et un", DIZAINES[ten]),
            (unit, ten) => format!("{}-{}", DIZAINES[ten], PETITS[unit]),
        },
    }
}

fn french(number: u64) -> String {
    if number == 0 {
        return PETITS[0].to_owned();
    }
    let mut parts = Vec::new();
    for (group, name) in groups(number).into_iter().zip(["million", "mille", ""]) {
        let (hundreds, rest) = (group as usize / 100, group as usize % 100);
        // `mille` is no noun: before it nothing takes a plural, and one thousand is just `mille`.
        let last = name != "mille";
        if group == 0 {
            continue;
        }
        if group == 1 && name == "mille" {
            parts.push(name.to_owned());
            continue;
        }
        if hundreds > 0 {
            if hundreds > 1 {
                parts.push(PETITS[hundreds].to_owned());
            }
            parts.push(if hundreds > 1 && rest == 0 && last { "cents" } else { "cent" }.to_owned());
        }
        if rest > 0 {
            parts.push(french_tens(rest, last));
        }
        match name {
            "million" => parts.push(if group > 1 { "millions" } else { name }.to_owned()),
            "" => {}
            _ => parts.push(name.to_owned()),
        }
    }
    parts.join(" ")
}

const KLEINE: [&str; 20] = [
    "null",
    "ein",
    "zwei",
    "drei",
    "vier",
    "fünf",
    "sechs",
    "sieben",
    "acht",
    "neun",
    "zehn",
    "elf",
    "zwölf",
    "dreizehn",
    "vierzehn",
    "fünfzehn",
    "sechzehn",
    "siebzehn",
    "achtzehn",
    "neunzehn",
];
const ZEHNER: [&str; 10] =
    ["", "", "zwanzig", "dreißig", "vierzig", "fünfzig", "sechzig", "siebzig", "achtzig", "neunzig"];

/// A number under a thousand; `one` is its spelling of a one at the end.
fn german_group(number: usize, one: &str) -> String {
    let mut word = String::new();
    if number >= 100 {
        word = format!("{}hundert", KLEINE[number / 100]);
    }
    match (number % 100, number % 10) {
        (0, _) => {}
        (1, _) => word.push_str(one),
        (rest, _) if rest < 20 => word.push_str(KLEINE[rest]),
        (rest, 0) => word.push_str(ZEHNER[rest / 10]),
        (rest, unit) => word.push_str(&format!("{}und{}", KLEINE[unit], ZEHNER[rest / 10])),
    }
    word
}

fn german(number: u64) -> String {
    if number == 0 {
        return KLEINE[0].to_owned();
    }
    let [millions, thousands, rest] = groups(number);
    let mut parts = Vec::new();
    match millions {
        0 => {}
        1 => parts.push("eine Million".to_owned()),
        _ => parts.push(format!("{} Millionen", german_group(millions as usize, "eine"))),
    }
    let mut word = String::new();
    if thousands > 0 {
        word = format!("{}tausend", german_group(thousands as usize, "ein"));
    }
    word.push_str(&german_group(rest as usize, "eins"));
    if !word.is_empty() {
        parts.push(word);
    }
    parts.join(" ")
}

fn chinese(number: u64) -> String {
    const DIGITS: [char; 10] = ['零', '一', '二', '三', '四', '五', '六', '七', '八', '九'];
    const PLACES: [&str; 4] = ["千", "百", "十", ""];
    if number == 0 {
        return DIGITS[0].to_string();
    }
    let mut out = String::new();
    // Something was left out since the last sign written.
    let mut gap = false;
    for (group, name) in [(number / 100_000_000, "亿"), (number / 10_000 % 10_000, "万"), (number % 10_000, "")] {
        for (place, sign) in PLACES.into_iter().enumerate() {
            let digit = (group / 10_u64.pow(3 - place as u32) % 10) as usize;
            if digit == 0 {
                gap = true;
                continue;
            }
            if gap && !out.is_empty() {
                out.push(DIGITS[0]);
            }
            gap = false;
            // Ten to nineteen, and so ten thousand, begin without their one.
            if !(digit == 1 && sign == "十" && out.is_empty()) {
                out.push(DIGITS[digit]);
            }
            out.push_str(sign);
        }
        if group > 0 {
            out.push_str(name);
            gap = false;
            // A group that ends in zeros and is followed by a full one has no gap: 一万二千; a group that begins with
            // zeros has one, which its own zeros mark.
        }
    }
    out
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use std::collections::HashMap;

    use super::*;

    #[test]
    fn numbers_are_worded_as_each_language_does() {
        for (number, expected) in [
            (0, ["zero", "zéro", "null", "零"]),
            (1, ["one", "un", "eins", "一"]),
            (10, ["ten", "dix", "zehn", "十"]),
            (12, ["twelve", "douze", "zwölf", "十二"]),
            (17, ["seventeen", "dix-sept", "siebzehn", "十七"]),
            (21, ["twenty-one", "vingt et un", "einundzwanzig", "二十一"]),
            (71, ["seventy-one", "soixante et onze", "einundsiebzig", "七十一"]),
            (77, ["seventy-seven", "soixante-dix-sept", "siebenundsiebzig", "七十七"]),
            (80, ["eighty", "quatre-vingts", "achtzig", "八十"]),
            (81, ["eighty-one", "quatre-vingt-un", "einundachtzig", "八十一"]),
            (91, ["ninety-one", "quatre-vingt-onze", "einundneunzig", "九十一"]),
            (99, ["ninety-nine", "quatre-vingt-dix-neuf", "neunundneunzig", "九十九"]),
            (100, ["one hundred", "cent", "einhundert", "一百"]),
            (101, ["one hundred one", "cent un", "einhunderteins", "一百零一"]),
            (110, ["one hundred ten", "cent dix", "einhundertzehn", "一百一十"]),
            (200, ["two hundred", "deux cents", "zweihundert", "二百"]),
            (280, ["two hundred eighty", "deux cent quatre-vingts", "zweihundertachtzig", "二百八十"]),
            (1000, ["one thousand", "mille", "eintausend", "一千"]),
            (1001, ["one thousand one", "mille un", "eintausendeins", "一千零一"]),
            (1010, ["one thousand ten", "mille dix", "eintausendzehn", "一千零一十"]),
            (10_000, ["ten thousand", "dix mille", "zehntausend", "一万"]),
            (12_000, ["twelve thousand", "douze mille", "zwölftausend", "一万二千"]),
            (10_500, ["ten thousand five hundred", "dix mille cinq cents", "zehntausendfünfhundert", "一万零五百"]),
            (21_000, ["twenty-one thousand", "vingt et un mille", "einundzwanzigtausend", "二万一千"]),
            (80_000, ["eighty thousand", "quatre-vingt mille", "achtzigtausend", "八万"]),
            (101_000, ["one hundred one thousand", "cent un mille", "einhunderteintausend", "十万一千"]),
            (100_010, ["one hundred thousand ten", "cent mille dix", "einhunderttausendzehn", "十万零一十"]),
            (200_000, ["two hundred thousand", "deux cent mille", "zweihunderttausend", "二十万"]),
            (1_000_000, ["one million", "un million", "eine Million", "一百万"]),
            (1_000_001, ["one million one", "un million un", "eine Million eins", "一百万零一"]),
            (80_000_000, ["eighty million", "quatre-vingts millions", "achtzig Millionen", "八千万"]),
            (100_000_000, ["one hundred million", "cent millions", "einhundert Millionen", "一亿"]),
            (100_000_001, ["one hundred million one", "cent millions un", "einhundert Millionen eins", "一亿零一"]),
            (
                123_456_789,
                [
                    "one hundred twenty-three million four hundred fifty-six thousand seven hundred eighty-nine",
                    "cent vingt-trois millions quatre cent cinquante-six mille sept cent quatre-vingt-neuf",
                    "einhundertdreiundzwanzig Millionen vierhundertsechsundfünfzigtausendsiebenhundertneunundachtzig",
                    "一亿二千三百四十五万六千七百八十九",
                ],
            ),
            (
                201_000_300,
                [
                    "two hundred one million three hundred",
                    "deux cent un millions trois cents",
                    "zweihunderteine Millionen dreihundert",
                    "二亿零一百万零三百",
                ],
            ),
        ] {
            let languages = [Language::English, Language::French, Language::German, Language::Chinese];
            assert_eq!(languages.map(|language| words(number, language)), expected, "{number}");
        }
        assert_eq!(words(END, Language::English), "1000000000");
    }

    #[test]
    fn different_numbers_have_different_words_and_all_sizes_come() {
        for language in [Language::English, Language::French, Language::German, Language::Chinese] {
            let mut seen: HashMap<String, String> = HashMap::new();
            let mut by_length = [0; 10];
            for pair in numbers(1, Portion::Train, language, Direction::ToDigits).take(50_000) {
                let digits = pair.target.unwrap();
                by_length[digits.len()] += 1;
                assert_eq!(
                    *seen.entry(pair.source.clone()).or_insert_with(|| digits.clone()),
                    digits,
                    "{}",
                    pair.source
                );
            }
            for number in 0..20_000 {
                let digits = number.to_string();
                assert_eq!(*seen.entry(words(number, language)).or_insert_with(|| digits.clone()), digits);
            }
            // Every end 10, 100, … is as likely as the others, and most numbers under it have its length.
            assert!(by_length[1..].iter().all(|&count| count > 4000), "{by_length:?}");
        }
    }

    #[test]
    fn directions_are_each_others_reverse() {
        let take = |direction| numbers(2, Portion::Validation, Language::German, direction).take(100);
        for (there, back) in take(Direction::ToDigits).zip(take(Direction::ToWords)) {
            assert_eq!((there.source, there.target), (back.target.unwrap(), Some(back.source)));
        }
    }
}
