"""A training step of PyTorch in f32, or under autocast in bf16: forward, backward, clipping at 1.0, AdamW. The peer of `phyla bench train`.

python train_step.py small --threads 2      GPT-2 small, batch 2 x 256
python train_step.py char --threads 2       nanoGPT's 6 layers of width 384, batch 8 x 256
"""

import argparse
import json
import resource
import statistics
import time

import torch
from gpt import CHAR, CPU, SMALL, Gpt, adamw

SIZES = dict(small=(SMALL, 2, 256), char=(CHAR, 8, 256), cpu=(CPU, 12, 64))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("size", choices=SIZES)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--steps", type=int, default=5)
    parser.add_argument("--warmup", type=int, default=2)
    parser.add_argument("--compile", action="store_true")
    parser.add_argument("--dtype", choices=["f32", "bf16"], default="f32")
    parser.add_argument(
        "--optimizer", choices=["loop", "foreach", "fused"], default="fused", help="fused is the fastest"
    )
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    torch.manual_seed(0)
    size, batch, seq = SIZES[args.size]
    plain = Gpt(size)
    optimizer = adamw(plain, 3e-4, (0.9, 0.95), 0.1, args.optimizer)
    model = torch.compile(plain) if args.compile else plain
    ids = torch.randint(size.vocab, (batch, seq + 1))
    times = []
    for _ in range(args.warmup + args.steps):
        start = time.perf_counter()
        with torch.autocast("cpu", torch.bfloat16, enabled=args.dtype == "bf16"):
            loss = model(ids[:, :-1], ids[:, 1:])
        loss.backward()
        torch.nn.utils.clip_grad_norm_(plain.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        times.append(1e3 * (time.perf_counter() - start))
    times = times[args.warmup :]
    median = statistics.median(times)
    result = dict(
        size=args.size,
        step_ms=median,
        fastest_ms=min(times),
        slowest_ms=max(times),
        tokens_per_second=batch * seq / median * 1e3,
        peak_rss_mb=resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
        loss=loss.item(),
        parameters=sum(p.numel() for p in plain.parameters()),
    )
    result |= dict(dtype=args.dtype, threads=args.threads, compile=args.compile, optimizer=args.optimizer, torch=torch.__version__)
    print(json.dumps(result))


if __name__ == "__main__":
    main()
