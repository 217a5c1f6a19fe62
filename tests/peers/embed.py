"""Texts to vectors by sentence-transformers. The peer of `phyla bench embed`.

python embed.py --model DIR --texts FILE --dtype bf16 --batch 32
"""

import argparse
import json
import statistics
import time
from pathlib import Path

import torch
from sentence_transformers import SentenceTransformer


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True)
    parser.add_argument("--texts", type=Path, required=True)
    parser.add_argument("--dtype", choices=["f32", "bf16"], default="f32")
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--steps", type=int, default=5)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    model = SentenceTransformer(args.model, device="cpu")
    if args.dtype == "bf16":
        model = model.bfloat16()
    texts = [line for line in args.texts.read_text().splitlines() if line.strip()]
    lengths = [len(ids) for ids in model.tokenizer(texts, truncation=True, max_length=model.max_seq_length)["input_ids"]]
    times = []
    for _ in range(args.steps + 1):
        start = time.perf_counter()
        model.encode(texts, batch_size=args.batch)
        times.append(time.perf_counter() - start)
    seconds = statistics.median(times[1:])
    result = dict(tokens=sum(lengths), texts=len(texts), tokens_per_second=sum(lengths) / seconds, seconds=seconds)
    result |= dict(dtype=args.dtype, batch=args.batch, threads=args.threads, torch=torch.__version__)
    print(json.dumps(result))


if __name__ == "__main__":
    main()
