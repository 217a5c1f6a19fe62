"""Writes processors4.json: logits before and after the processors that transformers 4.28.1 has and later versions have not, in the form
of processors.json.

    python -m venv old && old/bin/pip install transformers==4.28.1 torch && old/bin/python processors4.py
"""

import json
import random
from pathlib import Path

import torch
from transformers import GenerationConfig, LlamaConfig, LlamaForCausalLM, __version__

HERE = Path(__file__).parent
VOCAB, EOS = 24, [2, 5]
FORCED = [[[1, 4]], [[1, 4], [2, 9], [3, 7]], [[3, 6], [5, 20]], [[7, 1], [7, 3]], [[1, 4], [2, None], [4, 8]]]


def main():
    assert __version__ == "4.28.1"
    tiny = LlamaConfig(vocab_size=VOCAB, hidden_size=8, intermediate_size=8, num_hidden_layers=1, num_attention_heads=1)
    model = LlamaForCausalLM(tiny)
    entries = []
    for number in range(30):
        rng = random.Random(number)
        prompt = [rng.randrange(VOCAB) for _ in range(rng.choice([1, 1, 3, 5]))]
        new = [rng.randrange(VOCAB) for _ in range(rng.randrange(5))]
        settings = dict(forced_decoder_ids=rng.choice(FORCED))
        if rng.random() < 0.7:
            settings["begin_suppress_tokens"] = [3, 8, 11]
        if rng.random() < 0.3:
            settings["forced_bos_token_id"] = 6
        if rng.random() < 0.3:
            settings["repetition_penalty"] = 1.3
        logits = 2.5 * torch.randn((1, VOCAB), generator=torch.Generator().manual_seed(number))
        chain = model._get_logits_processor(
            GenerationConfig(eos_token_id=EOS, max_length=50, **settings),
            input_ids_seq_length=len(prompt),
            encoder_input_ids=torch.tensor([prompt]),
            prefix_allowed_tokens_fn=None,
            logits_processor=[],
        )
        after = chain(torch.tensor([prompt + new]), logits.clone())[0].tolist()
        entry = dict(name=f"{number}", settings=settings | dict(eos_token_id=EOS), prompt=prompt, new=new, source=None)
        entry |= dict(logits=logits[0].tolist(), expected=[None if x == -torch.inf else x for x in after])
        entries.append(entry)
        print(settings, prompt, new, sum(x > -torch.inf for x in after))
    (HERE / "processors4.json").write_text("[\n" + ",\n".join(json.dumps(entry) for entry in entries) + "\n]\n")


if __name__ == "__main__":
    main()
