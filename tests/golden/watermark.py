"""Writes watermark.json: permutations of PyTorch's CPU generator, and what transformers' WatermarkDetector finds in random texts, and in
texts that follow green lists: `z` and `p` in f64.

    python watermark.py
"""

import json
import random

import torch
from common import HERE
from transformers import LlamaConfig, WatermarkDetector, WatermarkingConfig


def main():
    permutations = []
    for seed, size in [(0, 1), (1, 2), (15485863, 40), (2**32 + 5, 700), (2**64 - 1, 3000), (77, 1_000_003)]:
        generator = torch.Generator().manual_seed(seed)
        permutations.append((seed, size, torch.randperm(size, generator=generator)[:20].tolist()))
    texts = []
    for number in range(36):
        rng = random.Random(number)
        vocab = rng.choice([17, 60, 331])
        settings = dict(
            greenlist_ratio=rng.choice([0.25, 0.5, 0.3]),
            bias=2.0,
            hashing_key=rng.choice([15485863, -9, 2**33 + 1, 2**50]),
            seeding_scheme=rng.choice(["lefthash", "selfhash"]),
            context_width=rng.choice([1, 1, 2, 4]),
        )
        once = rng.random() < 0.5
        detector = WatermarkDetector(
            LlamaConfig(vocab_size=vocab, bos_token_id=1), "cpu", WatermarkingConfig(**settings), once
        )
        ids = [rng.choice([1, 5])]
        own = settings["seeding_scheme"] == "selfhash"
        while len(ids) < 45:
            new = rng.randrange(2, vocab)
            # A third of the texts say green ids where they can.
            for _ in range(12 if number % 3 == 0 else 0):
                text = torch.tensor(ids + [new] if own else ids)
                if new in detector.processor._get_greenlist_ids(text):
                    break
                new = rng.randrange(2, vocab)
            ids.append(new)
        found = detector(torch.tensor([ids]), z_threshold=3.0, return_dict=True)
        entry = dict(settings=dict(watermarking_config=settings), vocab=vocab, ids=ids, once=once)
        entry |= dict(scored=int(found.num_tokens_scored[0]), green=int(found.num_green_tokens[0]))
        entry |= dict(z=float(found.z_score[0]), p=float(found.p_value[0]), watermarked=bool(found.prediction[0]))
        texts.append(entry)
        print(settings, entry["scored"], entry["green"], entry["z"], entry["p"])
    golden = dict(permutations=permutations, texts=texts)
    (HERE / "watermark.json").write_text(json.dumps(golden) + "\n")


if __name__ == "__main__":
    main()
