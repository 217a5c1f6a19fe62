"""nanoGPT's CPU recipe on tinyshakespeare, in plain PyTorch: the peer of Phyla's char-level recipe.

4 layers, 4 heads, width 128, context 64, batch 12, 2,000 iterations, dropout 0, no biases; AdamW (0.9, 0.99), 1e-3
after 100 warm-up steps, cosine to 1e-4, decay 0.1 on matrices, clipping 1.0; every 250 iterations 20 batches of either
split are evaluated. The clock runs from the first step to the last evaluation, compilation included.

    python nanogpt.py ../../../shared/data/tinyshakespeare/input.txt --threads 2 [--compile]
"""

import argparse
import json
import math
import time
from pathlib import Path

import torch
from gpt import CPU, Gpt, adamw

BATCH, EVAL_EVERY, EVAL_BATCHES, WARMUP, LR, MIN_LR = 12, 250, 20, 100, 1e-3, 1e-4


def rate(step: int, steps: int) -> float:
    if step < WARMUP:
        return LR * (step + 1) / (WARMUP + 1)
    done = (step - WARMUP) / max(steps - WARMUP, 1)
    return MIN_LR + 0.5 * (1 + math.cos(math.pi * done)) * (LR - MIN_LR)


def batch_of(data: torch.Tensor):
    starts = torch.randint(len(data) - CPU.context, (BATCH,)).tolist()
    rows = torch.stack([data[start : start + CPU.context + 1] for start in starts])
    return rows[:, :-1], rows[:, 1:]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("text", type=Path)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--iters", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=1337)
    parser.add_argument("--compile", action="store_true")
    parser.add_argument(
        "--optimizer", choices=["loop", "foreach", "fused"], default="loop", help="nanoGPT has loop here"
    )
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    torch.manual_seed(args.seed)
    text = args.text.read_text()
    index = {character: number for number, character in enumerate(sorted(set(text)))}
    assert len(index) == CPU.vocab, f"{len(index)} characters, expected {CPU.vocab}"
    data = torch.tensor([index[character] for character in text])
    train, held_out = data[: int(0.9 * len(data))], data[int(0.9 * len(data)) :]
    plain = Gpt(CPU)
    optimizer = adamw(plain, LR, (0.9, 0.99), 0.1, args.optimizer)
    model = torch.compile(plain) if args.compile else plain

    @torch.no_grad()
    def evaluate() -> dict:
        model.eval()
        splits = dict(train=train, val=held_out)
        means = {
            name: sum(model(*batch_of(split)).item() for _ in range(EVAL_BATCHES)) / EVAL_BATCHES
            for name, split in splits.items()
        }
        model.train()
        return means

    start, losses = time.perf_counter(), {}
    for step in range(args.iters + 1):
        if step % EVAL_EVERY == 0 or step == args.iters:
            losses = evaluate()
        if step == args.iters:
            break
        for group in optimizer.param_groups:
            group["lr"] = rate(step, args.iters)
        model(*batch_of(train)).backward()
        torch.nn.utils.clip_grad_norm_(plain.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
    seconds = time.perf_counter() - start
    result = dict(val_loss=losses["val"], train_loss=losses["train"], seconds=seconds, iters=args.iters)
    result |= dict(threads=args.threads, compile=args.compile, optimizer=args.optimizer, torch=torch.__version__)
    print(json.dumps(result))


if __name__ == "__main__":
    main()
