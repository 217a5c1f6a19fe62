"""Writes tests/golden/sft: what trl 1.16 makes of dialogues of every type, ids and labels, and the loss of a tiny model.

    tokenizer.json, tokenizer_config.json    byte-level BPE that begins plain text with <s>, with a chat template that has
                                             {% generation %} blocks and a place for tools
    config.json, model.safetensors           a tiny random model
    cases.json                               for each case: `rows`, the settings in our spelling, `input_ids` and `labels`
                                             (-100 is ignored) of the examples that trl keeps, and the `loss` of all of
                                             them as one padded batch
    dialogues.parquet, dialogues.jsonl       the same conversations as a table of nested lists, where every call has the
                                             arguments of all functions, and line by line, where each has its own

    python sft.py
"""

import json
import tempfile

import torch
from common import HERE, base_config, new_model, save, seed_of
from datasets import Dataset
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerFast
from trl import SFTConfig, SFTTrainer

OUT = HERE / "sft"
TEMPLATE = """{{- bos_token }}
{%- if tools %}
    {{- '<|im_start|>tools\\n' + tools | tojson + '<|im_end|>\\n' }}
{%- endif %}
{%- for message in messages %}
    {{- '<|im_start|>' + message.role + '\\n' }}
    {%- if message.role == 'assistant' %}
        {%- generation %}
            {{- message.content + '<|im_end|>' }}
        {%- endgeneration %}
        {{- '\\n' }}
    {%- else %}
        {{- message.content + '<|im_end|>\\n' }}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|im_start|>assistant\\n' }}
{%- endif %}
"""
TEXT = ["the cat sat on the mat and the dog sat on the cat", "hello, how are you? fine, thank you!", "one two three four"]


def tokenizer():
    inner = Tokenizer(models.BPE())
    inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    inner.decoder = decoders.ByteLevel()
    special = ["<s>", "</s>", "<pad>", "<|im_start|>", "<|im_end|>"]
    trainer = trainers.BpeTrainer(
        vocab_size=300, special_tokens=special, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False
    )
    inner.train_from_iterator(TEXT * 5, trainer)
    inner.post_processor = processors.Sequence(
        [processors.ByteLevel(trim_offsets=False), processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 0)])]
    )
    made = PreTrainedTokenizerFast(tokenizer_object=inner, bos_token="<s>", eos_token="</s>", pad_token="<pad>")
    made.chat_template = TEMPLATE
    return made


def said(*turns):
    return [dict(role=role, content=content) for role, content in turns]


CHATS = [
    said(("user", "hello, how are you?"), ("assistant", "fine, thank you!")),
    said(("system", "be kind"), ("user", "one two"), ("assistant", " three\n"), ("user", "é 😀?"), ("assistant", "é 😀 four")),
    said(("user", "count"), ("assistant", "\none two three four one two three four")),
]
PAIRS = [
    dict(prompt="the cat sat on", completion=" the mat"),
    dict(prompt="hello, ", completion="how are you?\n\n"),
    dict(prompt="one two three ", completion="four</s>"),
    dict(prompt="é", completion="😀"),
]
REPLIES = [dict(prompt=chat[:-1], completion=chat[-1:]) for chat in CHATS]
REPLIES += [dict(prompt=CHATS[1][:2], completion=CHATS[1][2:])]
TOOL = dict(type="function", function=dict(name="look", parameters=dict(type="object", properties=dict(at=dict(type="string")))))

CASES = {
    "text": (dict(), [dict(text=text) for text in TEXT], dict()),
    "completion": (dict(), PAIRS, dict()),
    "completion, all of it": (dict(loss_on="all"), PAIRS, dict(completion_only_loss=False)),
    "reply": (dict(), REPLIES, dict()),
    "reply, assistant only": (dict(loss_on="assistant"), REPLIES, dict(assistant_only_loss=True)),
    "chat, assistant only": (dict(), [dict(messages=chat) for chat in CHATS], dict(assistant_only_loss=True)),
    "chat, all of it": (dict(loss_on="all"), [dict(messages=chat) for chat in CHATS], dict()),
    "chat with tools": (dict(), [dict(messages=chat, tools=[TOOL]) for chat in CHATS], dict(assistant_only_loss=True)),
    "cut at the end": (dict(max_len=40), [dict(messages=chat) for chat in CHATS], dict(assistant_only_loss=True)),
    "cut until nothing is learned": (dict(max_len=24), REPLIES, dict()),
    "cut at the start": (dict(max_len=24, truncate="start"), REPLIES, dict(truncation_mode="keep_end")),
}


def called(name, **arguments):
    return dict(type="function", function=dict(name=name, arguments=arguments))


LOOK = [
    dict(role="user", content="Oslo, \"now\"?"),
    dict(role="assistant", content=None, tool_calls=[called("look", at="Oslo"), called("clock", zone=1, exact=True)]),
    dict(role="tool", content="-3", name="look"),
    dict(role="assistant", content="Cold."),
]
OTHER = dict(type="function", function=dict(name="clock", parameters=dict(type="object", properties=dict(zone=dict(type="integer")))))
DIALOGUES = [dict(messages=LOOK, tools=[TOOL, OTHER])] + [dict(messages=chat) for chat in CHATS]


def dialogues():
    Dataset.from_list(DIALOGUES).to_parquet(OUT / "dialogues.parquet")
    lines = [json.dumps(row, ensure_ascii=False) + "\n" for row in DIALOGUES]
    (OUT / "dialogues.jsonl").write_text("".join(lines))


def case(name, tok, model):
    ours, rows, theirs = CASES[name]
    with tempfile.TemporaryDirectory() as folder:
        settings = dict(max_length=ours.get("max_len", 1024), shuffle_dataset=False, report_to=[], use_cpu=True, bf16=False)
        args = SFTConfig(output_dir=folder, **settings, **theirs)
        trainer = SFTTrainer(model=model, args=args, train_dataset=Dataset.from_list(rows), processing_class=tok)
        made = [dict(input_ids=row["input_ids"], labels=row["labels"]) for row in trainer.train_dataset]
        batch = trainer.data_collator(made)
        model.eval()
        with torch.no_grad():
            loss = model(**batch).loss.item()
    return dict(name=name, settings=ours, rows=rows, **{key: [row[key] for row in made] for key in made[0]}, loss=loss)


def main():
    tok = tokenizer()
    config = base_config("llama") | dict(vocab_size=len(tok), max_position_embeddings=512)
    model = new_model(config, seed_of("sft"))
    save(model, OUT)
    tok.save_pretrained(OUT)
    (OUT / "chat_template.jinja").unlink(missing_ok=True)
    (OUT / "tokenizer_config.json").write_text(
        json.dumps(dict(tokenizer_class="PreTrainedTokenizerFast", bos_token="<s>", eos_token="</s>", pad_token="<pad>", chat_template=TEMPLATE), indent=1) + "\n"
    )
    dialogues()
    cases = [case(name, tok, model) for name in CASES]
    (OUT / "cases.json").write_text(json.dumps(cases, ensure_ascii=False) + "\n")
    for made in cases:
        print(made["name"], len(made["rows"]), "->", len(made["labels"]), made["loss"])


main()
