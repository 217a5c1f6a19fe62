"""Texts to vectors by sentence-transformers. The peer of `phyla bench embed`.

python embed.py --model DIR --texts FILE --dtype bf16 --batch 32
"""

import argparse
import time
from pathlib import Path

from peer import need, report

torch, sentence_transformers = need("torch", "sentence_transformers")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True)
    parser.add_argument("--texts", type=Path, required=True)
    parser.add_argument("--dtype", choices=["f32", "bf16"], default="f32")
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--steps", type=int, default=5)
    parser.add_argument("--vectors", type=Path, metavar="FILE", help="write the vectors, normalised, as .npy")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    model = sentence_transformers.SentenceTransformer(args.model, device="cpu")
    if args.dtype == "bf16":
        model = model.bfloat16()
    texts = [line for line in args.texts.read_text().splitlines() if line.strip()]
    ids = model.tokenizer(texts, truncation=True, max_length=model.max_seq_length)["input_ids"]
    tokens, seconds = sum(map(len, ids)), []
    for _ in range(args.steps + 1):
        start = time.perf_counter()
        model.encode(texts, batch_size=args.batch)
        seconds.append(time.perf_counter() - start)
    if args.vectors:
        import numpy

        numpy.save(args.vectors, model.encode(texts, batch_size=args.batch, normalize_embeddings=True))
    settings = dict(dtype=args.dtype, batch=args.batch, threads=args.threads, torch=torch.__version__)
    report("embed", tokens, seconds[1:], texts=len(texts), tokens=tokens, **settings)


if __name__ == "__main__":
    main()
