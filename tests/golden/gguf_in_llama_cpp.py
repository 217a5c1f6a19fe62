"""Opens GGUF files that the program wrote with llama.cpp and compares what both make of prompts, greedily.

    python gguf_in_llama_cpp.py PHYLA FILE.gguf ...

Needs llama-cpp-python. Equal ids are not to be expected of weights in few bits, since both round activations, each in its
own way: where the ids part, the gap between llama.cpp's two best logits is printed, and how far the logits of both are
from those of exact products (`--dtype f32`).
"""

import json
import subprocess
import sys
import tempfile
from pathlib import Path

import llama_cpp
import numpy as np
from llama_cpp import Llama
from safetensors.numpy import load_file

PROMPTS = ["Once upon a time", "One day, a big dog", '"Hello," said', "The sun was", "12345 (what) is it?"]
TOKENS = 32

plain = llama_cpp.llama_cpp.llama_model_default_params


def without_repacking():
    """Repacked for AMX, quantised weights of few rows end llama.cpp 0.3.36 with a segmentation fault."""
    params = plain()
    params.use_extra_bufts = False
    return params


llama_cpp.llama_cpp.llama_model_default_params = llama_cpp.llama_model_default_params = without_repacking


def continued(phyla: str, file: str, prompt: str) -> tuple[list[int], list[int]]:
    args = ["-q", "generate", "--model", file, "--prompt", prompt, "--max-new-tokens", str(TOKENS), "--json"]
    said = json.loads(subprocess.run([phyla, *args], check=True, capture_output=True).stdout)
    return said["prompt_ids"], said["sequences"][0]["ids"]


def logits_of(phyla: str, file: str, ids: list[int], dtype: str) -> np.ndarray:
    with tempfile.TemporaryDirectory() as folder:
        given, found = Path(folder, "ids.json"), Path(folder, "out.safetensors")
        given.write_text(json.dumps({"input_ids": [ids]}))
        args = ["forward", "--model", file, "--ids", given, "--output", found, "--dtype", dtype]
        subprocess.run([phyla, "-q", *args], check=True, capture_output=True)
        return load_file(found)["logits"][0, -1].astype(np.float64)


class Theirs:
    def __init__(self, file: str):
        self.model = Llama(file, n_ctx=256, verbose=False)
        self.vocab = llama_cpp.llama_model_get_vocab(self.model._model.model)

    def logits(self) -> np.ndarray:
        raw = llama_cpp.llama_get_logits(self.model._ctx.ctx)
        return np.ctypeslib.as_array(raw, shape=(self.model.n_vocab(),)).astype(np.float64)

    def continued(self, prompt: str) -> tuple[list[int], list[int], list[float]]:
        ids = self.model.tokenize(prompt.encode(), add_bos=True, special=True)
        self.model.reset()
        self.model.eval(ids)
        found, gaps = [], []
        while len(found) < TOKENS:
            logits = self.logits()
            gaps.append(float(np.diff(np.sort(logits)[-2:])[0]))
            found.append(int(np.argmax(logits)))
            if llama_cpp.llama_vocab_is_eog(self.vocab, found[-1]):
                break
            self.model.eval(found[-1:])
        return ids, found, gaps

    def logits_of(self, ids: list[int]) -> np.ndarray:
        self.model.reset()
        self.model.eval(ids)
        return self.logits()


def main(phyla: str, files: list[str]):
    for file in files:
        theirs = Theirs(file)
        for prompt in PROMPTS:
            (given, ours), (read, other, gaps) = continued(phyla, file, prompt), theirs.continued(prompt)
            assert given == read, f"{file}: {prompt!r} is {given}, and {read} to llama.cpp"
            if ours == other:
                print(f"{file}: {prompt!r}: the same {len(ours)} ids")
                continue
            at = next(i for i, pair in enumerate(zip(ours, other)) if len(set(pair)) > 1)
            ids = given + ours[:at]
            exact, near = logits_of(phyla, file, ids, "f32"), logits_of(phyla, file, ids, "auto")
            apart = [float(np.sqrt(np.mean((logits - exact) ** 2))) for logits in (near, theirs.logits_of(ids))]
            print(f"{file}: {prompt!r}: apart from id {at} on, gap {gaps[at]:.4f}; from exact {apart[0]:.4f}, llama.cpp {apart[1]:.4f}")


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2:])
