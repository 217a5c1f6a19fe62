"""Renders conversations with calls of tools under chat templates of whatever origin with transformers 5.23, and says what the
assistant wrote of each, for the tests of masks.

    python tests/golden/turns.py DIR OUT       30 conversations under every DIR/*.jinja, into OUT; the test reads it from
                                               PHYLA_TURNS_ORACLE and is skipped without it

The assistant's turns are found by prefix difference: turn i is what `messages[:i + 1]` has beyond `messages[:i]` with a
generation prompt, where both are beginnings of the whole text. Where a template rewrites what came before, `turns` has null
in its place, and what remains are words: each content has one of its own, of which it is known who said it.
"""

import datetime
import json
import pathlib
import random
import sys

from transformers.utils import chat_template_utils
from transformers.utils.chat_template_utils import render_jinja_template


class Fixed(datetime.datetime):
    """A clock that stands still."""

    @classmethod
    def now(cls, tz=None):
        return cls(2024, 3, 5, 6, 7, 8)


chat_template_utils.datetime = Fixed

# Templates that open the assistant's turn whether they are asked to or not.
ALWAYS_OPEN = ["<|start_header_id|>assistant<|end_header_id|>\n\n", "<|START_OF_TURN_TOKEN|><|CHATBOT_TOKEN|>"]
ODD = ["fine", " two\nlines \n", '{"a": 1}', "x < y && [z]", "你好 😀", "a\n\n\nb", "## Head\n- item", "'q' \"t\" \\\\ back"]


def tool(name, **properties):
    properties = {key: dict(type=kind, description=f"The {key}") for key, kind in properties.items()}
    parameters = dict(type="object", properties=properties, required=list(properties)[:1])
    return dict(type="function", function=dict(name=name, description=f"Tells the {name}", parameters=parameters))


TOOLS = [tool("weather", place="string", days="integer"), tool("clock", zone="string")]


class Maker:
    """Conversations whose contents are told apart by a word each."""

    def __init__(self, seed, arguments, content):
        self.random, self.seed, self.arguments, self.content = random.Random(seed), seed, arguments, content
        self.said, self.heard, self.calls = [], [], 0

    def word(self, words, what):
        words.append(f"{what}{self.seed:02}x{len(self.said) + len(self.heard):02}z")
        return words[-1]

    def text(self, words, what):
        odd = self.random.choice(ODD)
        return self.random.choice(["{} {}", "{1} {0}", "{}\n{}"]).format(self.word(words, what), odd)

    def call(self):
        self.calls += 1
        name, key = self.random.choice([("weather", "place"), ("clock", "zone")])
        given = {key: self.word(self.said, "arg"), "days": self.calls, "exact": True}
        given = json.dumps(given) if self.arguments == "string" else given
        return dict(id=f"call{self.seed:02}{self.calls:03}", type="function", function=dict(name=name, arguments=given))

    def conversation(self, shape, system=True, parallel=True):
        """`shape` says per turn of the user how many rounds of calls come before the answer, and how many calls a round."""
        system = self.random.random() < 0.5 and system
        messages = [dict(role="system", content=self.text(self.heard, "sys"))] if system else []
        for rounds, answered in shape:
            messages.append(dict(role="user", content=self.text(self.heard, "ask")))
            for count in rounds:
                calls = [self.call() for _ in range(count if parallel else 1)]
                messages.append(dict(role="assistant", content=self.content, tool_calls=calls))
                for call in calls:
                    result = self.word(self.heard, "res")
                    messages.append(dict(role="tool", name=call["function"]["name"], tool_call_id=call["id"], content=result))
            if answered:
                messages.append(dict(role="assistant", content=self.text(self.said, "say")))
        # Ends with a call that is not answered yet: what a model is trained on when each call is an example.
        while messages[-1]["role"] == "tool":
            messages.pop()
        return messages


PLAIN = [[([], True)] * turns for turns in (1, 2, 3, 4, 5)]
CALLING = [
    [([1], True)],
    [([1], False)],
    [([2], True)],
    [([1, 1], True)],
    [([], True), ([1], True)],
    [([1], True), ([], True)],
    [([1], True), ([1], True)],
    [([1], True), ([2], True), ([], True)],
    [([1, 1], False)],
    [([], True), ([], True), ([1, 1, 1], True)],
    [([1], True), ([1], True), ([1], False)],
    [([2, 1], True), ([], True)],
]


def render(template, messages, tools, opened=False):
    variables = dict(bos_token="<s>", eos_token="</s>", functions=json.dumps(TOOLS), datetime="5 March 2024")
    texts, _ = render_jinja_template(
        [json.loads(json.dumps(messages))], chat_template=template, tools=tools, add_generation_prompt=opened, **variables
    )
    return texts[0]


def without(text, endings):
    return next((text[: -len(ending)] for ending in endings if text.endswith(ending)), text)


def turns(template, messages, tools, text):
    found = []
    for at, message in enumerate(messages):
        if message["role"] != "assistant":
            continue
        try:
            before, after = render(template, messages[:at], tools, True), render(template, messages[: at + 1], tools)
        except Exception:  # noqa: BLE001 - a template may refuse a beginning
            found.append(None)
            continue
        if not text.startswith(before):
            # Some open the reasoning, which this conversation does without.
            before = without(before, ["<think>\n"])
        if after == render(template, messages[: at + 1], tools, True):
            after = without(after, ALWAYS_OPEN)
        if not text.startswith(after):
            # Some end the conversation, which here goes on.
            after = without(after, ["</s>"])
        fits = text.startswith(before) and text.startswith(after) and len(before) < len(after)
        found.append([len(before.encode()), len(after.encode())] if fits else None)
    return found


def style(template):
    """How the template wants calls spelled, and whether beside tools, or None if it has no place for them."""
    for tools in (TOOLS, None):
        for arguments in ("object", "string"):
            for content in ("", None):
                made = Maker(99, arguments, content)
                messages = made.conversation([([1], True)])
                try:
                    text = render(template, messages, tools)
                except Exception:  # noqa: BLE001
                    continue
                if all(word in text for word in made.said):
                    return arguments, content, tools
    return None


def cases(name, template):
    arguments, content, tools = style(template) or ("object", "", None)
    calling = style(template) is not None
    for number in range(30):
        shapes = CALLING if calling and number % 6 != 5 else PLAIN
        shape = shapes[number % len(shapes)]
        # What a template refuses is asked for in a narrower way, in the end without a message of the system's.
        for narrower in (dict(), dict(parallel=False), dict(parallel=False, system=False)):
            made = Maker(number, arguments, content)
            messages = made.conversation(shape, **narrower)
            choices = [tools if number % 7 else None, tools]
            for given in choices:
                case = dict(template=name, messages=messages, tools=given)
                try:
                    text = render(template, messages, given)
                    break
                except Exception as error:  # noqa: BLE001 - every refusal of the template is a result
                    case["error"] = f"{type(error).__name__}: {error}"
            if "error" not in case:
                case |= dict(text=text, said=made.said, heard=made.heard, turns=turns(template, messages, given, text))
            yield case
            if "error" not in case:
                break


def main():
    folder, out = map(pathlib.Path, sys.argv[1:])
    templates = {path.stem: path.read_text() for path in sorted(folder.glob("*.jinja"))}
    variables = dict(functions=json.dumps(TOOLS), datetime="5 March 2024")
    made = []
    for name, template in templates.items():
        rows = list(cases(name, template))
        known = [turn for row in rows for turn in row.get("turns", [])]
        errors = [row["error"] for row in rows if "error" in row]
        print(name, style(template), len(errors), "refused;", sum(turn is not None for turn in known), "of", len(known), "turns", set(errors))
        made += rows
    out.write_text(json.dumps(dict(templates=templates, variables=variables, cases=made), ensure_ascii=False) + "\n")


main()
