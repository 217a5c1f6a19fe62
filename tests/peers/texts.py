"""What the peers of `phyla bench embed` share: texts in the order of their length, a module of PyTorch to export, and
the comparison with sentence-transformers' vectors, without which a peer is none."""

import argparse
import hashlib
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy
from peer import need, report


def arguments(doc: str, dtypes: list) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, required=True, help="a folder of sentence-transformers, of BERT's kind")
    parser.add_argument("--texts", type=Path, required=True, help="a text a line")
    parser.add_argument("--dtype", choices=dtypes, default=dtypes[0])
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--steps", type=int, default=5, help="how often all texts are read, after once to warm up")
    parser.add_argument("--converted", type=Path, help="where converted models are kept (a folder for temporary files)")
    parser.add_argument("--convert", type=Path, metavar="FOLDER", help=argparse.SUPPRESS)
    args = parser.parse_args()
    pooling = json.loads((args.model / "1_Pooling" / "config.json").read_text())
    if not pooling.get("pooling_mode_mean_tokens"):
        raise SystemExit(f"{args.model} does not take the mean of its tokens; these scripts do")
    return args


def read(path: Path) -> list:
    return [line for line in path.read_text().splitlines() if line.strip()]


def folder_of(args, kind: str, *files) -> Path:
    """A folder for what is made of a model (and of other files), and used again by the next run."""
    key = hashlib.sha256()
    for file in [args.model / "model.safetensors", *files]:
        key.update(f"{file.resolve()} {file.stat().st_mtime_ns} {file.stat().st_size}\n".encode())
    root = args.converted or Path(tempfile.gettempdir()) / "phyla-peers"
    return root / f"{kind}-{key.hexdigest()[:16]}"


def converted(args, kind: str) -> Path:
    """The folder of a converted model. A process of its own converts, so that its memory counts for nobody."""
    folder = folder_of(args, kind)
    if not (folder / "done").exists():
        folder.mkdir(parents=True, exist_ok=True)
        command = [sys.executable, sys.argv[0], "--model", args.model, "--texts", args.texts, "--dtype", args.dtype]
        other_process([*command, "--convert", folder])
        (folder / "done").touch()
    return folder


def other_process(command: list):
    """Runs it, its output as messages; if it fails, this one ends with its status, so that MISSING is passed on."""
    if code := subprocess.run(command, stdout=sys.stderr).returncode:
        sys.exit(code if code > 0 else 1)


def module(model: Path):
    """PyTorch's (ids, mask) to normalised means, for exporters."""
    torch, transformers = need("torch", "transformers")

    class Vectors(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.bert = transformers.AutoModel.from_pretrained(model, add_pooling_layer=False).float().eval()

        def forward(self, ids, mask):
            # Additive and four-dimensional, as transformers would make it; an exporter follows this more easily.
            bias = (1.0 - mask[:, None, None, :].float()) * -1e9
            states = self.bert(input_ids=ids, attention_mask=bias).last_hidden_state
            mask = mask.unsqueeze(-1).float()
            return torch.nn.functional.normalize((states * mask).sum(1) / mask.sum(1), dim=-1)

    return Vectors().eval()


def measure(args, vectors, **more):
    """Times `vectors(ids, mask)`, two arrays [rows, time] of int64, over all texts, and checks what it gives.

    The clock runs from the texts on: tokens, batches in the order of length, the model, the order of the texts again.
    """
    tokenizers = need("tokenizers")
    tokenizer = tokenizers.Tokenizer.from_file(str(args.model / "tokenizer.json"))
    tokenizer.no_padding()
    limit = json.loads((args.model / "sentence_bert_config.json").read_text())["max_seq_length"]
    tokenizer.enable_truncation(limit)
    texts = read(args.texts)

    def all_texts():
        rows = [encoding.ids for encoding in tokenizer.encode_batch(texts)]
        order = sorted(range(len(rows)), key=lambda row: len(rows[row]))
        out, tokens = [None] * len(rows), sum(map(len, rows))
        for start in range(0, len(order), args.batch):
            batch = order[start : start + args.batch]
            ids = numpy.zeros((len(batch), len(rows[batch[-1]])), numpy.int64)
            mask = numpy.zeros_like(ids)
            for at, row in enumerate(batch):
                ids[at, : len(rows[row])], mask[at, : len(rows[row])] = rows[row], 1
            for row, vector in zip(batch, vectors(ids, mask)):
                out[row] = vector
        return numpy.stack(out), tokens

    seconds = []
    for _ in range(args.steps + 1):
        start = time.perf_counter()
        found, tokens = all_texts()
        seconds.append(time.perf_counter() - start)
    cosines = (found * reference(args)).sum(1)
    least = dict(f32=0.99999, bf16=0.999, int8=0.95)[args.dtype]
    if cosines.min() < least:
        message = f"a cosine with sentence-transformers' vector is {cosines.min():.5f}, below {least}: this is no peer"
        raise SystemExit(message)
    more |= dict(dtype=args.dtype, batch=args.batch, threads=args.threads, texts=len(texts), tokens=tokens)
    more |= dict(cosine_min=float(cosines.min()), cosine_mean=float(cosines.mean()))
    report("embed", tokens, seconds[1:], **more)


def reference(args):
    """sentence-transformers' vectors of the same texts, from a process of its own, kept for the next run."""
    folder = folder_of(args, "vectors", args.texts)
    file = folder / "vectors.npy"
    if not file.exists():
        folder.mkdir(parents=True, exist_ok=True)
        script = Path(__file__).parent / "embed.py"
        command = [sys.executable, script, "--model", args.model, "--texts", args.texts, "--vectors", file]
        other_process([*command, "--steps", "1"])
    return numpy.load(file)
