//! What an assistant wrote in a rendered conversation, turn by turn, under any template: `{% generation %}` blocks where the
//! template has them, else found by rendering parts of the conversation and comparing.
//!
//! A turn begins where the generation prompt ends: where `messages[..i]` rendered with it leaves off. It ends with the text
//! that closes it, which the model has to learn to write: what follows the content both here and where the conversation ends
//! (or goes on with the user) right after. Templates break this in many ways: they strip earlier reasoning, merge the
//! system's message into the user's, trim, close the conversation. Contents are therefore marked before rendering, and
//! where a marked text without its marks is the same text, the marks say where each content stands.

use std::ops::Range;

use serde_json::{Map, Value, json};

use super::{Chat, Rendered, Templates};
use crate::error::Result;

/// Before a content, after it, and the sixteen digits of its message's number: characters that no honest text holds.
const OPEN: char = '\u{FDD3}';
const CLOSE: char = '\u{FDD4}';
const DIGIT: u32 = 0xFDE0;
const DIGITS: usize = 4;

/// A rendered conversation and what the assistant wrote of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Turns {
    /// The conversation.
    pub rendered: Rendered,
    /// The bytes of each turn that the assistant wrote, its end included, in order.
    pub spans: Vec<Range<usize>>,
    /// Sentences about turns that were found by their content alone, or not at all.
    pub doubts: Vec<String>,
}

impl Templates {
    /// Renders a whole conversation (without a generation prompt) and finds the assistant's turns in it.
    ///
    /// `special` are the tokenizer's special tokens as text: a turn ends with the last of them that closes it. Without any,
    /// it ends before the white space that follows its closing text.
    ///
    /// # Errors
    /// As [`Templates::render`].
    pub fn turns(&self, name: Option<&str>, chat: &Chat, special: &[String]) -> Result<Turns> {
        let chat = Chat { add_generation_prompt: false, continue_final: None, ..chat.clone() };
        let rendered = self.render(name, &chat)?;
        let marked = self.select(name, chat.tools.is_some())?.1;
        let mut turns = Turns { spans: rendered.generated.clone(), rendered, doubts: vec![] };
        if super::tags::mark_generation(marked) != marked {
            turns.spans.retain(|span| !span.is_empty());
            return Ok(turns);
        }
        let finder = Finder { templates: self, name, chat: &chat, text: &turns.rendered.text, special };
        let contents = finder.contents(chat.messages, finder.text, false);
        let mut before = 0;
        for index in 0..chat.messages.len() {
            if chat.messages[index]["role"] == "assistant" {
                match finder.turn(index, &contents, before) {
                    Found::Turn(span) => {
                        before = span.end;
                        turns.spans.push(span);
                    }
                    Found::ContentAlone(span) => {
                        before = span.end;
                        turns.spans.push(span);
                        turns.doubts.push(
                            "turns whose opening the template changes later were found by their content alone".into(),
                        );
                    }
                    Found::Nothing => {}
                    Found::Lost => turns.doubts.push(
                        "turns could not be found in the rendered text and are not learned; mark them in the template \
                         with {% generation %} … {% endgeneration %}"
                            .into(),
                    ),
                }
            } else if let Some(end) = contents[index].as_ref().and_then(|content| content.end) {
                before = before.max(end);
            }
        }
        Ok(turns)
    }
}

/// Where a content stands; a template that writes only a part of it loses the mark on one side.
#[derive(Debug, Clone, Default)]
struct Place {
    start: Option<usize>,
    end: Option<usize>,
}

enum Found {
    Turn(Range<usize>),
    ContentAlone(Range<usize>),
    /// The template leaves this message out.
    Nothing,
    Lost,
}

struct Finder<'a> {
    templates: &'a Templates,
    name: Option<&'a str>,
    chat: &'a Chat<'a>,
    text: &'a str,
    special: &'a [String],
}

impl Finder<'_> {
    fn render(&self, messages: &[Value], add_generation_prompt: bool) -> Option<String> {
        let chat = Chat { messages, add_generation_prompt, ..self.chat.clone() };
        self.templates.render(self.name, &chat).ok().map(|rendered| rendered.text)
    }

    /// Where the content of each message stands in `text`, which is these messages rendered.
    fn contents(&self, messages: &[Value], text: &str, opened: bool) -> Vec<Option<Place>> {
        let marked = |only: Option<usize>| {
            let mark = |(index, message): (usize, &Value)| match only {
                Some(only) if only != index => message.clone(),
                _ => mark(message, index),
            };
            let marked: Vec<Value> = messages.iter().enumerate().map(mark).collect();
            let (plain, places) = unmark(&self.render(&marked, opened)?, messages.len());
            (plain == text).then_some(places)
        };
        if let Some(places) = marked(None) {
            return places;
        }
        // Some message's mark changes what the template does: one at a time, the others still tell.
        let each = (0..messages.len()).map(|index| match marked(Some(index)) {
            Some(mut places) => places.swap_remove(index),
            None => once(text, messages[index]["content"].as_str()?.trim()),
        });
        each.collect()
    }

    fn turn(&self, index: usize, contents: &[Option<Place>], before: usize) -> Found {
        let content = contents[index].clone().unwrap_or_default();
        // The next content bounds what belongs to this message.
        let next = contents[index + 1..].iter().flatten().find_map(|place| place.start).unwrap_or(self.text.len());
        let opening = self.opening(index, contents, before, next);
        let end = self.end(index, &content, opening);
        match (opening, end, content) {
            (Some(start), Some(end), _) if start < end => Found::Turn(start..end),
            (Some(_), Some(_), _) => Found::Nothing,
            (None, Some(end), Place { start: Some(start), .. }) if start < end => Found::ContentAlone(start..end),
            // Nothing of a message that has something to say was found: the template may leave it out, or hide it.
            _ => Found::Lost,
        }
    }

    /// Where the generation prompt of a turn ends.
    fn opening(&self, index: usize, contents: &[Option<Place>], before: usize, next: usize) -> Option<usize> {
        let text = self.text;
        let content = contents[index].clone().unwrap_or_default();
        let latest = content.start.or(content.end).unwrap_or(next);
        let earlier = &self.chat.messages[..index];
        let prompt = self.render(earlier, true)?;
        if text.starts_with(&prompt) && prompt.len() <= content.end.unwrap_or(next) {
            return Some(prompt.len());
        }
        let closed = self.render(earlier, false)?;
        let mut tails = vec![(0, prompt.as_str(), closed.as_str())];
        // What comes before is written differently here: compare from the end of the neighbour's content on.
        let neighbour = |text: &str, opened| self.contents(earlier, text, opened).pop()??.end;
        if let Some(here) = index.checked_sub(1).and_then(|before| contents[before].as_ref()?.end)
            && let (Some(in_prompt), Some(in_closed)) = (neighbour(&prompt, true), neighbour(&closed, false))
        {
            tails.push((here, &prompt[in_prompt..], &closed[in_closed..]));
        }
        for &(here, prompt, closed) in &tails {
            let shared = shared(prompt, &text[here..]);
            if shared == prompt.len() && here + shared <= content.end.unwrap_or(next) {
                return Some(here + shared);
            }
            // The prompt opens more than the conversation holds, such as a block of reasoning.
            if shared > closed.len() && prompt.starts_with(closed) {
                let shared = self::closed(prompt, &text[here..]);
                return Some((here + shared).min(latest)).filter(|&start| start >= here + closed.len());
            }
        }
        let found = prompt.strip_prefix(closed.as_str()).and_then(|opening| self.search(opening, before, latest));
        found.or_else(|| self.unopened(&tails, latest))
    }

    /// Where a template opens no turn, as for a second call in some: behind what closes the message before, here as there.
    fn unopened(&self, tails: &[(usize, &str, &str)], latest: usize) -> Option<usize> {
        let &(here, _, closing) = tails.last()?;
        let shared = closed(closing, &self.text[here..]);
        let whole = shared == closing.len() || self.special.iter().any(|token| closing[..shared].ends_with(token));
        Some(here + shared).filter(|&start| whole && start <= latest)
    }

    /// The end of the last generation prompt, or of its beginning up to a special token, between two places.
    fn search(&self, opening: &str, before: usize, latest: usize) -> Option<usize> {
        let found = |opening: &str| {
            let at = self.text.get(before..latest)?.rfind(opening)?;
            (!opening.trim().is_empty()).then_some(before + at + opening.len())
        };
        let cuts = self.special.iter().flat_map(|token| opening.match_indices(token.as_str()));
        let mut cuts: Vec<usize> = cuts.map(|(at, token)| at + token.len()).chain([opening.len()]).collect();
        cuts.sort_unstable_by(|a, b| b.cmp(a));
        cuts.into_iter().find_map(|cut| found(&opening[..cut]))
    }

    /// Where a turn ends, with what closes it.
    fn end(&self, index: usize, content: &Place, opening: Option<usize>) -> Option<usize> {
        let messages = &self.chat.messages[..=index];
        let last = index + 1 == self.chat.messages.len();
        let own = content.end.or(content.start).or(opening)?;
        let mut other = messages.to_vec();
        if last {
            other.push(json!({"role": "user", "content": "?"}));
        }
        let limit = match self.render(&other, false) {
            Some(other_text) if self.text.starts_with(&other_text) => other_text.len(),
            Some(other_text) if last && other_text.starts_with(self.text) => self.text.len(),
            Some(other_text) => {
                let from = if content.end.is_some() {
                    let places = self.contents(&other, &other_text, false);
                    Some((own, places.get(index)?.as_ref()?.end?))
                } else {
                    let shared = shared(&other_text, self.text);
                    opening.filter(|&start| start < shared).map(|start| (start, start))
                };
                match from {
                    Some((here, there)) => {
                        let length = closed(&self.text[here..], &other_text[there..]);
                        // A template may end the turn only where the conversation ends.
                        if last && self.text[here..here + length].trim().is_empty() {
                            self.text.len()
                        } else {
                            here + length
                        }
                    }
                    None if last => self.text.len(),
                    None => return None,
                }
            }
            None if last => self.text.len(),
            None => return None,
        };
        Some(self.without_what_follows(own.min(limit), limit))
    }

    /// The end of what closes a turn: of the last special token, or before white space that follows something.
    fn without_what_follows(&self, own: usize, limit: usize) -> usize {
        let closing = &self.text[own..limit];
        // Some templates write the first token of the next turn at the end of every one.
        let opens = |token: &str| ["start", "begin"].iter().any(|word| token.to_lowercase().contains(word));
        let ends = self
            .special
            .iter()
            .filter(|token| !opens(token))
            .filter_map(|token| Some(closing.rfind(token.as_str())? + token.len()));
        match ends.max() {
            Some(end) => own + end,
            None if closing.trim().is_empty() => limit,
            None => own + closing.trim_end().len(),
        }
    }
}

/// Bytes that both begin with, whole characters only.
fn shared(one: &str, other: &str) -> usize {
    let pairs = one.chars().zip(other.chars());
    pairs.take_while(|(a, b)| a == b).map(|(a, _)| a.len_utf8()).sum()
}

/// Bytes that both tails begin with; where both go on, not into a tag that is open there (`<|user|>`, `<|end|>`).
fn closed(one: &str, other: &str) -> usize {
    let length = shared(one, other);
    if length == one.len() || length == other.len() {
        return length;
    }
    let open = one[..length].rfind(['<', '[']).filter(|&at| !one[at..length].contains(['>', ']']));
    open.unwrap_or(length)
}

/// Where `part` stands in `text`, if it does exactly once.
fn once(text: &str, part: &str) -> Option<Place> {
    let mut found = text.match_indices(part).filter(|(_, part)| !part.is_empty());
    let (at, _) = found.next()?;
    found.next().is_none().then(|| Place { start: Some(at), end: Some(at + part.len()) })
}

/// The message with the ends of what it says marked, inside of the white space around it, which templates may trim: of its
/// content and of its calls of tools.
fn mark(message: &Value, index: usize) -> Value {
    let mut message = message.clone();
    let digits: String =
        (0..DIGITS).rev().filter_map(|digit| char::from_u32(DIGIT + (index >> (4 * digit) & 15) as u32)).collect();
    let mut texts = texts_of(&mut message);
    if let Some(last) = texts.last_mut() {
        last.insert_str(last.trim_end().len(), &format!("{CLOSE}{digits}"));
    }
    if let Some(first) = texts.first_mut() {
        first.insert_str(first.len() - first.trim_start().len(), &format!("{OPEN}{digits}"));
    }
    message
}

/// Two values of an object, to be changed.
fn both<'v>(object: &'v mut Map<String, Value>, names: [&str; 2]) -> [Option<&'v mut Value>; 2] {
    let mut found = [None, None];
    for (key, value) in object {
        if let Some(at) = names.iter().position(|name| name == key) {
            found[at] = Some(value);
        }
    }
    found
}

/// Every text of a message that is not blank, in the usual order of writing: contents, then names and arguments of calls.
fn texts_of(message: &mut Value) -> Vec<&mut String> {
    fn strings<'v>(value: &'v mut Value, found: &mut Vec<&'v mut String>) {
        match value {
            Value::String(text) => found.push(text),
            Value::Array(list) => list.iter_mut().for_each(|value| strings(value, found)),
            Value::Object(map) => map.values_mut().for_each(|value| strings(value, found)),
            _ => {}
        }
    }
    let mut texts = vec![];
    let Value::Object(message) = message else { return texts };
    let [content, calls] = both(message, ["content", "tool_calls"]);
    match content {
        Some(Value::String(text)) => texts.push(text),
        Some(Value::Array(parts)) => {
            texts.extend(parts.iter_mut().filter_map(|part| match part.get_mut("text") {
                Some(Value::String(text)) => Some(text),
                _ => None,
            }));
        }
        _ => {}
    }
    for call in calls.and_then(Value::as_array_mut).into_iter().flatten() {
        let Some(Value::Object(function)) = call.get_mut("function") else { continue };
        both(function, ["name", "arguments"]).into_iter().flatten().for_each(|value| strings(value, &mut texts));
    }
    texts.retain(|text| !text.trim().is_empty());
    texts
}

/// Takes the marks out; a content that is written twice has no place.
fn unmark(marked: &str, count: usize) -> (String, Vec<Option<Place>>) {
    let mut text = String::with_capacity(marked.len());
    let mut places: Vec<Option<Place>> = vec![None; count];
    let mut twice = vec![false; count];
    let mut rest = marked.chars();
    while let Some(c) = rest.next() {
        if c != OPEN && c != CLOSE {
            text.push(c);
            continue;
        }
        let digits = rest.by_ref().take(DIGITS);
        let index = digits.fold(0, |index, digit| index << 4 | (digit as usize).wrapping_sub(DIGIT as usize) & 15);
        if let Some(place) = places.get_mut(index) {
            let place = place.get_or_insert_default();
            let side = if c == OPEN { &mut place.start } else { &mut place.end };
            twice[index] |= side.replace(text.len()).is_some();
        }
    }
    for (place, twice) in places.iter_mut().zip(twice) {
        if twice {
            *place = None;
        }
    }
    (text, places)
}
