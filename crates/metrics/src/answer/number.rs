//! Numbers in texts, read as decimal digits and never as floats, so that equal numbers are equal texts.

/// Every number of a text, in its normal form: digits without leading zeros, a fraction without trailing ones, a minus
/// where it is negative. `$1,234.50` is `1234.5`, `-0.0` is `0`.
///
/// A number is digits, in groups of three between commas or not, with a fraction or not; or a fraction alone (`.5`). A minus
/// belongs to it where no letter, digit or closing bracket stands before (`5-3` holds 5 and 3, `= -3` holds -3), also before a
/// dollar sign (`-$5`). Other signs around it (`%`, `$`, units) say nothing.
pub fn numbers(text: &str) -> Vec<String> {
    let bytes = text.as_bytes();
    let (mut found, mut at) = (vec![], 0);
    while at < bytes.len() {
        let fraction = bytes[at] == b'.' && digit(bytes, at + 1) && !word(text[..at].chars().next_back());
        if !fraction && !digit(bytes, at) {
            at += 1;
            continue;
        }
        let start = at;
        let mut whole = run(bytes, &mut at);
        if (1..=3).contains(&whole.len()) {
            while group(bytes, at) {
                at += 1;
                whole += &run(bytes, &mut at);
            }
        }
        let mut decimals = String::new();
        if bytes.get(at) == Some(&b'.') && digit(bytes, at + 1) {
            at += 1;
            decimals = run(bytes, &mut at);
        }
        found.push(normal(is_negative(&text[..start]), &whole, &decimals));
    }
    found
}

/// The digits from here on, `at` behind them.
fn run(bytes: &[u8], at: &mut usize) -> String {
    let digits = bytes[*at..].iter().take_while(|byte| byte.is_ascii_digit()).map(|&byte| char::from(byte));
    let digits: String = digits.collect();
    *at += digits.len();
    digits
}

/// Whether a comma and three digits stand here, and no fourth.
fn group(bytes: &[u8], at: usize) -> bool {
    bytes.get(at) == Some(&b',') && (1..=3).all(|i| digit(bytes, at + i)) && !digit(bytes, at + 4)
}

fn digit(bytes: &[u8], at: usize) -> bool {
    bytes.get(at).is_some_and(u8::is_ascii_digit)
}

fn word(character: Option<char>) -> bool {
    character.is_some_and(|c| c.is_alphanumeric() || matches!(c, ')' | ']' | '}'))
}

/// Whether what stands before a number makes it negative.
fn is_negative(before: &str) -> bool {
    let before = before.trim_end_matches(['$', '€', '£']);
    let minus = |c: char| matches!(c, '-' | '\u{2212}');
    before.strip_suffix(minus).is_some_and(|rest| !word(rest.chars().next_back()) && !rest.ends_with(minus))
}

fn normal(negative: bool, whole: &str, decimals: &str) -> String {
    let (whole, decimals) = (whole.trim_start_matches('0'), decimals.trim_end_matches('0'));
    let mut text = String::new();
    if negative && !(whole.is_empty() && decimals.is_empty()) {
        text.push('-');
    }
    text.push_str(if whole.is_empty() { "0" } else { whole });
    if !decimals.is_empty() {
        text.push('.');
        text.push_str(decimals);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_found_in_whatever_they_are_wrapped() {
        for (text, expected) in [
            ("", &[][..]),
            ("no number, e.g. . , - $ %", &[]),
            ("18", &["18"]),
            ("It costs $1,234.50.", &["1234.5"]),
            ("1,450,000 people", &["1450000"]),
            ("-3, \u{2212}4, -$5.00, $-6", &["-3", "-4", "-5", "-6"]),
            ("5-3 = 2, 5 - 3, (2)-1, x-1", &["5", "3", "2", "5", "3", "2", "1", "1"]),
            ("--7", &["7"]),
            ("007.10 and 0.0 and -0.00 and .5 and -.25", &["7.1", "0", "0", "0.5", "-0.25"]),
            ("3.", &["3"]),
            ("1.2.3", &["1.2", "3"]),
            ("1,2,3", &["1", "2", "3"]),
            ("1,2345", &["1", "2345"]),
            ("1234,567", &["1234", "567"]),
            ("12,345,6789", &["12345", "6789"]),
            ("50%, 3rd, 2x, €7, 8\u{a0}km", &["50", "3", "2", "7", "8"]),
            ("<<16-3-4=9>>9", &["16", "3", "4", "9", "9"]),
            ("123456789012345678901234567890.10", &["123456789012345678901234567890.1"]),
            ("٣ and Ⅷ are not ours, 4 is", &["4"]),
        ] {
            assert_eq!(numbers(text), expected, "{text}");
        }
    }
}
