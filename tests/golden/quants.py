"""Blocks of few bits as ggml and gguf know them: `quants.safetensors`.

`values` is what is quantised, rows of 256 of every temper; `<kind>.quantized` are its blocks by `ggml_quantize_chunk`
without an importance matrix, as llama.cpp's tool makes them. `<kind>.blocks` are random blocks with scales of every
size and sign, `<kind>.values` what they hold. Where gguf and ggml can both do a thing, the script checks that they
agree to the bit.

    python quants.py               # the fixture
    python quants.py rmse          # the errors of ggml's quantisers on normal values
"""

import ctypes
import sys
from pathlib import Path

import gguf
import libggml
import numpy as np
from gguf import GGMLQuantizationType as Kind
from safetensors.numpy import save_file

from common import HERE, seed_of

GGML = ctypes.CDLL(str(next(Path(libggml.__file__).parent.rglob("libggml-base.so"))))
GGML.ggml_quantize_chunk.restype = ctypes.c_size_t

# Where the scales in f16 stand in a block.
KINDS = {
    Kind.Q4_0: [0],
    Kind.Q4_1: [0, 2],
    Kind.Q5_0: [0],
    Kind.Q5_1: [0, 2],
    Kind.Q8_0: [0],
    Kind.Q2_K: [80, 82],
    Kind.Q3_K: [108],
    Kind.Q4_K: [0, 2],
    Kind.Q5_K: [0, 2],
    Kind.Q6_K: [208],
    Kind.IQ4_NL: [0],
    Kind.IQ4_XS: [0],
}
SCALES = [0.013, -0.37, 6e-8, -3.1e-5, 65504.0, 0.0, -0.0, 1.7]


def quantize(kind: Kind, values: np.ndarray) -> np.ndarray:
    block, size = gguf.GGML_QUANT_SIZES[kind]
    rows, width = values.shape
    out = np.zeros((rows, width // block * size), dtype=np.uint8)
    start, shape = ctypes.c_int64(0), [ctypes.c_int64(n) for n in values.shape]
    source, target = values.ctypes.data_as(ctypes.c_void_p), out.ctypes.data_as(ctypes.c_void_p)
    written = GGML.ggml_quantize_chunk(ctypes.c_int(kind), source, target, start, *shape, None)
    assert written == out.nbytes
    return out


def dequantize(kind: Kind, blocks: np.ndarray) -> np.ndarray:
    values = gguf.quants.dequantize(blocks, kind)
    name = kind.name.lower().replace("_k", "_K")
    theirs = np.empty_like(values)
    source, target = blocks.ctypes.data_as(ctypes.c_void_p), theirs.ctypes.data_as(ctypes.c_void_p)
    GGML[f"dequantize_row_{name}"](source, target, ctypes.c_int64(values.size))
    assert values.tobytes() == theirs.tobytes(), name
    return values


def values(rng: np.random.Generator) -> np.ndarray:
    normal = rng.standard_normal((18, 256))
    rows = [
        normal[0] * 0.02,
        normal[1] * 3,
        rng.laplace(size=256),
        rng.standard_t(2, size=256),
        rng.uniform(0, 1, 256),
        -rng.uniform(0.5, 1, 256),
        0.1 + 1e-3 * normal[2],
        normal[3] * np.repeat(10.0 ** rng.uniform(-6, 1, 16), 16),
        normal[4] * 1e-7,
        normal[5] * 1e-14,
        normal[6] * 2e4,
        np.where(np.arange(256) == 77, 900.0, normal[7] * 0.01),
        np.where(np.arange(256) % 32 < 29, 0.0, normal[8]),
        np.round(normal[9] * 3) / 4,
        np.repeat([0.25, -0.25, 0.0, 1.0], 64),
        np.zeros(256),
    ]
    return np.stack(rows).astype(np.float32)


def blocks(kind: Kind, rng: np.random.Generator) -> np.ndarray:
    block, size = gguf.GGML_QUANT_SIZES[kind]
    count = 4 if block == 256 else len(SCALES)
    out = rng.integers(0, 256, (count, size), dtype=np.uint8)
    for place, at in enumerate(KINDS[kind]):
        scales = np.roll(SCALES, 3 * place)[:count].astype(np.float16)
        out[:, at : at + 2] = scales.view(np.uint8).reshape(count, 2)
    return out


def main():
    inputs = values(np.random.default_rng(seed_of("values")))
    tensors = {"values": inputs}
    for kind in KINDS:
        name = kind.name.lower()
        tensors[f"{name}.quantized"] = quantize(kind, inputs)
        if kind in [Kind.Q4_0, Kind.Q4_1, Kind.Q5_0, Kind.Q5_1, Kind.Q8_0]:
            same = gguf.quants.quantize(inputs, kind) == tensors[f"{name}.quantized"]
            assert same.all(), (name, same.all(axis=1))
        tensors[f"{name}.blocks"] = blocks(kind, np.random.default_rng(seed_of(name)))
        tensors[f"{name}.values"] = dequantize(kind, tensors[f"{name}.blocks"])
    save_file(tensors, HERE / "quants.safetensors")


def rmse():
    normal = np.random.default_rng(0).standard_normal((4096, 256)).astype(np.float32)
    for kind in KINDS:
        error = dequantize(kind, quantize(kind, normal)).astype(np.float64) - normal
        print(f"{kind.name.lower():8}{np.sqrt((error**2).mean()):.5f}")


if __name__ == "__main__":
    rmse() if "rmse" in sys.argv else main()
