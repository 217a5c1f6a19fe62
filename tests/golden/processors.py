"""Writes processors.json: logits before and after the processors of transformers, alone and as `generate` chains them.

Minus infinity is written as null, what is no number before as text. Values are f32, written so that they read back
exactly.

    python processors.py
"""

import json

import torch
from common import HERE, seed_of
from transformers import GenerationConfig, LlamaConfig, LlamaForCausalLM, WatermarkingConfig

VOCAB = 40
PROMPT, NEW, EOS = [3, 7, 7, 31, 0], [11, 3], [2, 5]
SOURCE = [3, 3, 9, 12, 11, 3, 30, 3, 5]

CASES = {
    "temperature_low": dict(do_sample=True, temperature=0.35, top_k=0),
    "temperature_high": dict(do_sample=True, temperature=1.7, top_k=0),
    "top_k_default": dict(do_sample=True),
    "top_k": dict(do_sample=True, top_k=5),
    "top_k_one": dict(do_sample=True, top_k=1),
    "top_k_beyond": dict(do_sample=True, top_k=1000),
    "top_p": dict(do_sample=True, top_k=0, top_p=0.7),
    "top_p_small": dict(do_sample=True, top_k=0, top_p=0.01),
    "top_p_large": dict(do_sample=True, top_k=0, top_p=0.999),
    "min_p": dict(do_sample=True, top_k=0, min_p=0.1),
    "min_p_one": dict(do_sample=True, top_k=0, min_p=1.0),
    "repetition_above": dict(repetition_penalty=1.3),
    "repetition_below": dict(repetition_penalty=0.8),
    "suppress": dict(suppress_tokens=[1, 8, 39]),
    "min_new_tokens": dict(min_new_tokens=3),
    "min_new_tokens_reached": dict(min_new_tokens=2),
    "min_length": dict(min_length=8),
    "min_length_reached": dict(min_length=7),
    "greedy_ignores_sampling": dict(temperature=0.5, top_k=3, top_p=0.2, min_p=0.3),
    "all": dict(
        do_sample=True,
        temperature=0.8,
        top_k=20,
        top_p=0.9,
        min_p=0.03,
        repetition_penalty=1.2,
        suppress_tokens=[4, 6],
        min_new_tokens=4,
    ),
    "sequence_bias": dict(sequence_bias=[[[5], -2.5], [[11, 3, 9], 4.0], [[3, 9], 1.5], [[12, 3, 1], 9.0], [[9], 0.25]]),
    "source_penalty": dict(encoder_repetition_penalty=1.6),
    "source_penalty_below": dict(encoder_repetition_penalty=0.7),
    "source_ngram": dict(encoder_no_repeat_ngram_size=2),
    "source_ngram_one": dict(encoder_no_repeat_ngram_size=1),
    "decay": dict(exponential_decay_length_penalty=(1, 1.3)),
    "decay_not_yet": dict(exponential_decay_length_penalty=(2, 1.3)),
    "decay_long": dict(exponential_decay_length_penalty=(0, 1.05)),
    "invalid": dict(remove_invalid_values=True, suppress_tokens=[1]),
    "no_repeat_ngram": dict(no_repeat_ngram_size=2),
    "bad_words": dict(bad_words_ids=[[4], [3, 8], [11, 3, 10], [2]]),
    "top_h": dict(do_sample=True, top_k=0, top_h=0.4),
    "top_h_all": dict(do_sample=True, top_k=0, top_h=1.0),
    "top_h_least": dict(do_sample=True, top_k=0, top_h=0.001),
    "typical": dict(do_sample=True, top_k=0, typical_p=0.5),
    "typical_small": dict(do_sample=True, top_k=0, typical_p=0.01),
    "typical_large": dict(do_sample=True, top_k=12, typical_p=0.95),
    "epsilon": dict(do_sample=True, top_k=0, epsilon_cutoff=0.02),
    "epsilon_large": dict(do_sample=True, top_k=0, epsilon_cutoff=0.9),
    "eta": dict(do_sample=True, top_k=0, eta_cutoff=0.02),
    "eta_hot": dict(do_sample=True, top_k=0, temperature=3.0, eta_cutoff=0.3),
    "everything": dict(
        do_sample=True,
        temperature=1.4,
        top_h=0.9,
        top_k=25,
        top_p=0.97,
        min_p=0.01,
        typical_p=0.9,
        epsilon_cutoff=0.001,
        eta_cutoff=0.002,
        repetition_penalty=1.1,
        encoder_repetition_penalty=1.2,
        sequence_bias=[[[3, 6], 2.0], [[8], -1.0]],
        exponential_decay_length_penalty=(0, 1.2),
        suppress_tokens=[4],
    ),
    "watermark": dict(watermarking_config=dict(bias=1.5)),
    "watermark_wide": dict(watermarking_config=dict(greenlist_ratio=0.3, context_width=3, hashing_key=-77)),
    "watermark_drawn": dict(do_sample=True, top_k=9, watermarking_config=dict(greenlist_ratio=0.5, hashing_key=2**40 + 9)),
    "watermark_short": dict(watermarking_config=dict(context_width=8)),
    "watermark_self": dict(watermarking_config=dict(seeding_scheme="selfhash")),
    "watermark_self_wide": dict(
        watermarking_config=dict(seeding_scheme="selfhash", context_width=4, greenlist_ratio=0.4, hashing_key=2**45)
    ),
    "all_hot": dict(do_sample=True, temperature=2.5, top_k=30, top_p=0.8, min_p=0.2, repetition_penalty=1.05),
}


def main():
    tiny = LlamaConfig(
        vocab_size=VOCAB, hidden_size=8, intermediate_size=8, num_hidden_layers=1, num_attention_heads=1
    )
    model = LlamaForCausalLM(tiny)
    entries = []
    for name, settings in CASES.items():
        rng = torch.Generator().manual_seed(seed_of(f"processors/{name}"))
        logits = 2.5 * torch.randn((1, VOCAB), generator=rng)
        if name == "invalid":
            logits[0, 4], logits[0, 9], logits[0, 12] = torch.nan, torch.inf, -torch.inf
        if name in ("top_k", "all"):
            logits[0, 10] = logits[0, 20] = logits.sort(descending=True).values[0, 4]  # ties at the border
        marked = {k: WatermarkingConfig(**v) for k, v in settings.items() if k == "watermarking_config"}
        config = GenerationConfig(eos_token_id=EOS, max_new_tokens=50, **settings | marked)
        config, _ = model._prepare_generation_config(config)
        model._prepare_special_tokens(config, device="cpu")
        config.max_length = len(PROMPT) + 50
        source = SOURCE if "source" in name or name == "everything" else None
        chain = model._get_logits_processor(
            config,
            input_ids_seq_length=len(PROMPT),
            encoder_input_ids=torch.tensor([source or PROMPT]),
            device="cpu",
        )
        ids = torch.tensor([PROMPT + NEW])
        after = chain(ids, logits.clone())[0]
        entries.append(
            dict(
                name=name,
                settings=dict(settings, eos_token_id=EOS),
                prompt=PROMPT,
                new=NEW,
                source=source,
                logits=[str(x) if x != x or abs(x) == torch.inf else x for x in logits[0].tolist()],
                expected=[None if x == -torch.inf else x for x in after.tolist()],
            )
        )
        print(name, [type(p).__name__ for p in chain], int((after > -torch.inf).sum()))
    (HERE / "processors.json").write_text("[\n" + ",\n".join(json.dumps(entry) for entry in entries) + "\n]\n")


if __name__ == "__main__":
    main()
