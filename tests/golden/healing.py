"""Writes tests/golden/healing/: a tiny random decoder with a tokenizer, and what transformers' heal_tokens makes of the ends of prompts.

    healing.json    one entry a line: `text`, `ids` of the healed prompt, `new`, four greedy ids behind it

Prompts end in tokens without a leading space: the reference looks for the text of the others with a space in a vocabulary that writes
it as another character.

    python healing.py
"""

import json
import random

import torch
from common import HERE, base_config, load, new_model, save, seed_of
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import GenerationConfig, PreTrainedTokenizerFast

FOLDER = HERE / "healing"
TEXT = """The little house stood near the sea. Householders and seafarers understand the standing of such housing: within
reach, unreachable, outreaching. Someone somewhere did something sometimes; nobody anywhere understood anything anymore.
Links such as http://example.org, https://example.com and ftp://example.net were noted, annotated and denoted."""


@torch.no_grad()
def main():
    FOLDER.mkdir(exist_ok=True)
    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = decoders.ByteLevel()
    alphabet = sorted(set(pre_tokenizers.ByteLevel.alphabet()))
    bpe.train_from_iterator([TEXT] * 3, trainers.BpeTrainer(vocab_size=400, initial_alphabet=alphabet, show_progress=False))
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=bpe)
    tokenizer.add_special_tokens({"pad_token": "<pad>", "bos_token": "<bos>"})
    config = dict(num_hidden_layers=2, hidden_size=16, intermediate_size=24, tie_word_embeddings=True)
    config |= dict(vocab_size=len(tokenizer), num_attention_heads=2, num_key_value_heads=1, head_dim=8, eos_token_id=None)
    save(new_model(base_config("llama") | config, seed_of("healing")), FOLDER)
    tokenizer.save_pretrained(FOLDER)
    model, lines, changed = load(FOLDER), [], 0
    model.generation_config = GenerationConfig()
    rng = random.Random(7)
    while len(lines) < 40:
        start = rng.randrange(len(TEXT) - 60)
        text = TEXT[start : start + rng.randrange(1, 50)].strip()
        ids = tokenizer(text).input_ids
        if not ids or tokenizer.decode(ids[-1]) != tokenizer.decode(ids[-1]).strip() or "\ufffd" in tokenizer.decode(ids[-1]):
            continue
        healed = model.heal_tokens(torch.tensor([ids]), tokenizer)[0].tolist()
        out = model.generate(
            torch.tensor([healed]), generation_config=GenerationConfig(max_new_tokens=4, do_sample=False, pad_token_id=0)
        )
        changed += healed != ids
        lines.append(json.dumps(dict(text=text, ids=healed, new=out[0, len(healed) :].tolist())))
        print(tokenizer.convert_ids_to_tokens(ids[-1]), "->", tokenizer.convert_ids_to_tokens(healed[-1]))
    print(changed, "of", len(lines), "changed")
    (FOLDER / "healing.json").write_text("[\n" + ",\n".join(lines) + "\n]\n")


if __name__ == "__main__":
    main()
