"""A training step of PyTorch in f32, or under autocast in bf16: forward, backward, clipping at 1.0, AdamW. The peer of
`phyla bench train`.

python train_step.py small --threads 2      GPT-2 small, batch 2 x 256
python train_step.py char --threads 2       nanoGPT's 6 layers of width 384, batch 8 x 256
python train_step.py config.json --batch 8 --seq 512      of GPT-2's kind, without dropout
"""

import argparse
import json
import sys
from pathlib import Path

from peer import MISSING, need, report, seconds_of

torch = need("torch")
from gpt import CHAR, CPU, SMALL, Gpt, Size, adamw

SIZES = dict(small=(SMALL, 2, 256), char=(CHAR, 8, 256), cpu=(CPU, 12, 64))


def of_file(path: str) -> Size:
    """The size that a config.json names. Other families than GPT-2 are not what this script trains."""
    config = json.loads(Path(path).read_text())
    activation = config.get("activation_function", "gelu_new")
    if (found := config.get("model_type")) != "gpt2":
        print(f"train_step.py trains models of GPT-2's kind, and {path} is one of `{found}`", file=sys.stderr)
        sys.exit(MISSING)
    if activation not in ("gelu", "gelu_new") or config.get("n_inner"):
        raise SystemExit(f"{path} has an activation or an n_inner that train_step.py does not know")
    # A gelu by tanh costs PyTorch as much as an exact one.
    sizes = dict(layers=config["n_layer"], heads=config["n_head"], width=config["n_embd"])
    return Size(**sizes, context=config["n_positions"], vocab=config["vocab_size"], bias=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("size", help=f"{', '.join(SIZES)}, or a config.json")
    parser.add_argument("--batch", type=int)
    parser.add_argument("--seq", type=int)
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
    size, batch, seq = SIZES.get(args.size) or (of_file(args.size), 2, 256)
    batch, seq = args.batch or batch, args.seq or seq
    plain = Gpt(size)
    optimizer = adamw(plain, 3e-4, (0.9, 0.95), 0.1, args.optimizer)
    model = torch.compile(plain) if args.compile else plain
    ids = torch.randint(size.vocab, (batch, seq + 1))
    losses = []

    def step():
        with torch.autocast("cpu", torch.bfloat16, enabled=args.dtype == "bf16"):
            loss = model(ids[:, :-1], ids[:, 1:])
        loss.backward()
        torch.nn.utils.clip_grad_norm_(plain.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        losses.append(loss.item())

    seconds = seconds_of(step, args.steps, args.warmup)
    settings = dict(size=args.size, batch=batch, seq=seq, parameters=sum(p.numel() for p in plain.parameters()))
    settings |= dict(dtype=args.dtype, threads=args.threads, compile=args.compile, optimizer=args.optimizer)
    report("train", batch * seq, seconds, loss=losses[-1], torch=torch.__version__, **settings)


if __name__ == "__main__":
    main()
