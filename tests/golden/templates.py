"""Renders small chat templates with transformers 5.23 and writes what came out, for the template engine's tests.

    python tests/golden/templates.py                    writes crates/data/tests/templates.json (committed)
    python tests/golden/templates.py DIR OUT            renders every DIR/*.jinja, of whatever origin, for 30 conversations
                                                        into OUT; the test reads it from PHYLA_TEMPLATE_ORACLE and is
                                                        skipped without it
"""

import datetime
import json
import pathlib
import sys

from transformers.utils import chat_template_utils
from transformers.utils.chat_template_utils import render_jinja_template


class Fixed(datetime.datetime):
    """A clock that stands still."""

    @classmethod
    def now(cls, tz=None):
        return cls(2024, 3, 5, 6, 7, 8)


chat_template_utils.datetime = Fixed

WEATHER = {
    "type": "function",
    "function": {
        "name": "weather",
        "description": "The weather in a place, in °C",
        "parameters": {
            "type": "object",
            "properties": {
                "place": {"type": "string", "description": "A town, \"Oslo\" or <Bergen> & 'Wien'"},
                "days": {"type": "integer", "default": 1},
                "unit": {"type": "string", "enum": ["C", "F"]},
            },
            "required": ["place"],
        },
    },
}

CHATS = {
    "short": [{"role": "user", "content": "Hello!"}],
    "turns": [
        {"role": "system", "content": "  Be brief.\n"},
        {"role": "user", "content": "Was heißt 你好?\n\nSag es \"kurz\"."},
        {"role": "assistant", "content": " Hallo. \n"},
        {"role": "user", "content": "Danke <b>sehr</b> & gut 😀"},
    ],
    "answered": [
        {"role": "user", "content": "Count."},
        {"role": "assistant", "content": "One, two, "},
    ],
    "called": [
        {"role": "user", "content": "Weather in Oslo?"},
        {
            "role": "assistant",
            "content": "",
            "tool_calls": [
                {
                    "id": "call12345",
                    "type": "function",
                    "function": {"name": "weather", "arguments": {"place": "Oslo", "days": 2, "exact": True, "near": None, "at": 1.5}},
                }
            ],
        },
        {"role": "tool", "name": "weather", "tool_call_id": "call12345", "content": "{\"C\": -3}"},
        {"role": "assistant", "content": "Minus three."},
    ],
    "reasoned": [
        {"role": "user", "content": "2+2?"},
        {"role": "assistant", "reasoning_content": "Two and two.", "content": "4"},
        {"role": "user", "content": "And 3+3?"},
    ],
    "wrong_order": [{"role": "assistant", "content": "I begin."}, {"role": "user", "content": "No."}],
}

def wide():
    """24 more conversations: one turn to five, with and without a system's message, calls of tools, odd contents."""
    said = ["Fine.", " Two\nlines \n", '{"a": 1}', "x < y && [z]", "你好 😀", "a\n\n\nb", "## Head\n- item", "'quoted' \"text\" \\\\ back"]
    chats = {}
    for n in range(24):
        messages = [{"role": "system", "content": said[n % 8]}] if n % 2 else []
        for turn in range(1 + n % 5):
            messages.append({"role": "user", "content": f"{turn}: {said[(n + turn) % 8]}"})
            if n % 3 == 2 and turn % 2 == 0:
                arguments = {"place": said[(n + turn + 1) % 8], "days": n}
                call = {"id": f"call{n:03}{turn:02}", "type": "function", "function": {"name": "weather", "arguments": arguments}}
                messages.append({"role": "assistant", "content": "", "tool_calls": [call]})
                messages.append({"role": "tool", "name": "weather", "tool_call_id": call["id"], "content": '{"C": 3}'})
            messages.append({"role": "assistant", "content": said[(n + turn + 3) % 8]})
        chats[f"wide {n}"] = messages
    return chats


# Further variables that templates are given.
VARIABLES = {}

OURS = {
    "plain": "{% for m in messages %}{{ m.role }}: {{ m['content'] }}\n{% endfor %}",
    "control": """
    {%- for message in messages -%}
        {%- if loop.index0 == 3 %}{% break %}{% endif -%}
        {%- if message.role == 'system' %}{% continue %}{% endif %}
[{{ message.role | upper }}] {{ message.content | trim }}
    {% endfor -%}
    {% if add_generation_prompt %}
[ASSISTANT]
    {%- endif %}
""",
    "json": "{{ tools | tojson }}|{{ tools | tojson(indent=2) }}|{{ messages[-1] | tojson }}|"
    "{{ {'b': 1.0, 'a': [1e20, 1e-7, true, none, 'ü\\n\\t\\\"'], 'c': {}, 'd': []} | tojson(sort_keys=true) }}|"
    "{{ 'ü😀' | tojson(ensure_ascii=true) }}|{{ [1, 2] | tojson(separators=(',', ':')) }}",
    "printed": "{{ none }} {{ true }} {{ false }} {{ 1.0 }} {{ 7 // 2 }} {{ 7 / 2 }} {{ [1, 'a', none, true] }} "
    "{{ {'k': 'v', 'n': 2.5} }} {{ 'a' ~ 1 ~ none }} {{ tools is defined }} {{ documents is none }} {{ nothing }}",
    "refuses": "{% if messages[0].role != 'user' %}{{ raise_exception('A chat begins with the user, not with ' + messages[0].role) }}{% endif %}fine",
    "date": "{{ strftime_now('%d %b %Y %H:%M:%S %A %-d/%-m %y %j %%') }}",
    "methods": "{% set t = messages[0].content %}{{ t.strip() }}|{{ t.split('e') }}|{{ t.startswith('H') }}|{{ t.replace('l', 'L', 1) }}|"
    "{{ t.removesuffix('!') }}|{{ t.partition('l') | list }}|{{ t.upper().lower().title() }}|{{ messages[0].get('x', 'none') }}|"
    "{{ messages[0].items() | list | length }}|{{ 'a,b,c'.rsplit(',', 1) }}|{{ t.find('zz') }}|{{ t[1:3] }}|{{ t[::-1] }}|{{ '-'.join(['a', 'b']) }}|"
    "{{ '  x '.lstrip() }}|{{ 'x\\n\\n'.rstrip('\\n') }}|{{ t.index('o') }}|{{ 'ab' * 2 }}|{{ '{}:{}'.format(1, 'b') }}",
    "space": "{% set ns = namespace(n=0, last='') %}{% for m in messages if m.role == 'user' %}{% set ns.n = ns.n + 1 %}{% set ns.last = m.content %}{% endfor %}"
    "{{ ns.n }}{{ ns.last }}{{ bos_token }}{{ eos_token }}{{ pad_token }}"
    "{% macro turn(m, mark='>') %}{{ mark }}{{ m.role }}{% endmacro %}{% for m in messages %}{{ turn(m) }}{{ turn(m, mark='#') }}{{ loop.first }}{{ loop.last }}{{ loop.length }}{% endfor %}",
    "generation": "{% for m in messages %}\n<{{ m.role }}>\n    {%- if m.role == 'assistant' %}\n    {% generation %}\n{{ m.content }}{{ eos_token }}\n    {% endgeneration %}\n    {%- else %}\n{{ m.content }}\n    {%- endif %}\n{% endfor %}",
    "reasoning": "{% for m in messages %}{{ m.role }}({{ m.reasoning_content }}/{{ m.thinking }}){{ m.content }};{% endfor %}",
    "trimmed": "{% for m in messages %}<{{ m.role }}>{{ m.content | trim }}<end>{% endfor %}",
    "tests": "{{ messages is iterable }}{{ messages is mapping }}{{ messages[0] is mapping }}{{ messages[0].content is string }}{{ 1 is number }}{{ x is undefined }}"
    "{{ 'user' in messages | map(attribute='role') }}{{ messages | selectattr('role', 'equalto', 'user') | list | length }}{{ messages | rejectattr('role', 'eq', 'user') | map(attribute='role') | join(', ') }}"
    "{{ [3, 1, 2] | sort }}{{ [1, 2] | first }}{{ [1, 2] | last }}{{ 'abc' | length }}{{ 'a' if x else 'b' }}{{ x | default('d') }}{{ ['a', 'b'] + ['c'] }}{{ range(3) | list }}{{ 'x' | string | replace('x', 'y') }}{{ 3 | int + 1 }}{{ '4' | int }}",
}


def render(template, chat, **options):
    try:
        texts, spans = render_jinja_template([json.loads(json.dumps(chat))], chat_template=template, **options)
        case = {"text": texts[0]}
        if spans:
            # Offsets count characters in Python and bytes in Rust.
            case["generated"] = [[len(texts[0][:at].encode()) for at in span] for span in spans[0]]
        return case
    except Exception as error:  # noqa: BLE001 - every refusal of the template is a result
        return {"error": f"{type(error).__name__}: {error}"}


def cases(templates, masks):
    tokens = {"bos_token": "<s>", "eos_token": "</s>"}
    variants = [
        {},
        {"add_generation_prompt": True},
        {"tools": [WEATHER]},
        {"tools": [WEATHER], "add_generation_prompt": True},
        {"continue_final_message": True},
    ]
    for name, template in templates.items():
        for chat_name, chat in CHATS.items():
            for options in variants:
                mask = masks and "{% generation %}" in template and "continue_final_message" not in options
                result = render(template, chat, return_assistant_tokens_mask=mask, **options, **tokens, **VARIABLES)
                # A message written down twice keeps transformers' own mark the first time: no reference to follow.
                if "CONTINUE_FINAL_MESSAGE_TAG" in result.get("text", ""):
                    continue
                yield {"template": name, "chat": chat_name, **options, **result}


def main():
    if len(sys.argv) == 3:
        CHATS.update(wide())
        properties = WEATHER["function"]["parameters"]["properties"].items()
        # Some templates want a description of everything, and one has its functions from elsewhere.
        [schema.setdefault("description", f"The {name}") for name, schema in properties]
        VARIABLES.update(functions=json.dumps([WEATHER]), datetime="5 March 2024")
        templates = {path.stem: path.read_text() for path in sorted(pathlib.Path(sys.argv[1]).glob("*.jinja"))}
        out = pathlib.Path(sys.argv[2])
    else:
        templates = OURS
        out = pathlib.Path(__file__).parents[2] / "crates/data/tests/templates.json"
    rows = list(cases(templates, masks=True))
    if templates is OURS:
        # The small templates need not be rendered in every way.
        rows = [row for row in rows if "tools" not in row or row["template"] in ("json", "printed")]
    data = {"templates": templates, "chats": CHATS, "tools": [WEATHER], "cases": rows} | ({"variables": VARIABLES} if VARIABLES else {})
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(json.dumps(data, ensure_ascii=False, indent=1) + "\n")
    print(out, len(rows), "cases,", sum("error" in row for row in rows), "of them errors")


main()
