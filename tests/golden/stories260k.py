"""Converts the trained 260,000-parameter Llama of llama2.c into a Hugging Face folder, and proves the result.

    python stories260k.py SOURCE OUTPUT

SOURCE holds stories260K.bin (v0 layout), tok512.bin and stories260K.md, whose greedy sample the folder must speak.
OUTPUT gets config.json, generation_config.json, model.safetensors, tokenizer.json and tokenizer_config.json.
"""

import json
import struct
import sys
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file

UNK, BOS, EOS, SPACE = "<unk>", "<s>", "</s>", "\u2581"
TEXTS = [
    "Once upon a time, there was a little girl named Lily.",
    "",
    " ",
    "  two  spaces, leading and inside ",
    "Lily's mom said, \"Let's go!\"\nThey went.\n\n\tTab",
    "zürich 東京 🙂 naïve",
    "1234567890 + x = Q; ZZZ",
    "<s> the the</s>thethe aaaaaaaaaaa",
]


def read_weights(path: Path) -> tuple[dict, dict[str, torch.Tensor]]:
    """The v0 file: seven int32, then f32 tensors in a fixed order, each kind stacked over the layers."""
    raw = path.read_bytes()
    dim, inner, layers, heads, kv_heads, vocab, context = struct.unpack("7i", raw[:28])
    tied, vocab, head_dim = vocab > 0, abs(vocab), dim // heads
    values, at = torch.from_numpy(np.frombuffer(raw, "<f4", offset=28).copy()), 0

    def take(*shape):
        nonlocal at
        size = int(np.prod(shape))
        at += size
        return values[at - size : at].view(shape)

    def halves(weight):
        """llama2.c rotates neighbours (2i, 2i+1), Hugging Face rotates the halves (i, i + head_dim/2)."""
        rows = weight.view(layers, -1, head_dim // 2, 2, dim)
        return rows.transpose(2, 3).reshape(layers, -1, dim)

    tokens, norm1 = take(vocab, dim), take(layers, dim)
    q, k, v = (take(layers, n * head_dim, dim) for n in (heads, kv_heads, kv_heads))
    o, norm2 = take(layers, dim, dim), take(layers, dim)
    gate, down, up = take(layers, inner, dim), take(layers, dim, inner), take(layers, inner, dim)
    norm = take(dim)
    take(context * head_dim)  # cosines and sines, recomputed by everyone since
    tensors = {"model.embed_tokens.weight": tokens, "model.norm.weight": norm}
    if not tied:
        tensors["lm_head.weight"] = take(vocab, dim)
    assert at == len(values), f"{path}: {len(values)} values, expected {at}"
    names = {
        "input_layernorm": norm1,
        "self_attn.q_proj": halves(q),
        "self_attn.k_proj": halves(k),
        "self_attn.v_proj": v,
        "self_attn.o_proj": o,
        "post_attention_layernorm": norm2,
        "mlp.gate_proj": gate,
        "mlp.down_proj": down,
        "mlp.up_proj": up,
    }
    for name, stacked in names.items():
        tensors |= {f"model.layers.{n}.{name}.weight": stacked[n] for n in range(layers)}
    config = dict(
        architectures=["LlamaForCausalLM"],
        model_type="llama",
        vocab_size=vocab,
        hidden_size=dim,
        intermediate_size=inner,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        num_key_value_heads=kv_heads,
        max_position_embeddings=context,
        rms_norm_eps=1e-5,
        rope_theta=10000.0,
        hidden_act="silu",
        tie_word_embeddings=tied,
        bos_token_id=1,
        eos_token_id=2,
        torch_dtype="float32",
    )
    return config, {name: tensor.contiguous().clone() for name, tensor in tensors.items()}


def read_vocabulary(path: Path) -> list[tuple[str, float]]:
    """tok512.bin: the longest piece, then score, length and bytes of each piece (spaces are plain spaces)."""
    raw, at, pieces = path.read_bytes(), 4, []
    while at < len(raw):
        score, length = struct.unpack_from("fi", raw, at)
        pieces.append((raw[at + 8 : at + 8 + length].decode(), score))
        at += 8 + length
    return [(piece.strip() if index < 3 else piece, score) for index, (piece, score) in enumerate(pieces)]


def build_tokenizer(pieces: list[tuple[str, float]]) -> dict:
    """A BPE whose merges are all splits of each piece into two pieces, the best score first."""
    vocab = {piece.replace(" ", SPACE): index for index, (piece, _) in enumerate(pieces)}
    assert len(vocab) == len(pieces), "two pieces are equal"
    scores = {piece.replace(" ", SPACE): score for piece, score in pieces}
    normal = [piece for index, piece in enumerate(vocab) if index >= 259]  # after 3 specials and 256 bytes
    splits = [(piece[:cut], piece[cut:]) for piece in normal for cut in range(1, len(piece))]
    merges = [split for split in splits if split[0] in vocab and split[1] in vocab]
    merges.sort(key=lambda split: (-scores[split[0] + split[1]], vocab[split[0]], vocab[split[1]]))
    special = [
        dict(id=n, content=text, single_word=False, lstrip=False, rstrip=False, normalized=False, special=True)
        for n, text in enumerate((UNK, BOS, EOS))
    ]
    bos = {"SpecialToken": {"id": BOS, "type_id": 0}}
    return dict(
        version="1.0",
        truncation=None,
        padding=None,
        added_tokens=special,
        normalizer=dict(
            type="Sequence",
            normalizers=[
                dict(type="Prepend", prepend=SPACE),
                dict(type="Replace", pattern={"String": " "}, content=SPACE),
            ],
        ),
        pre_tokenizer=None,
        post_processor=dict(
            type="TemplateProcessing",
            single=[bos, {"Sequence": {"id": "A", "type_id": 0}}],
            pair=[bos, {"Sequence": {"id": "A", "type_id": 0}}, bos, {"Sequence": {"id": "B", "type_id": 1}}],
            special_tokens={BOS: dict(id=BOS, ids=[1], tokens=[BOS])},
        ),
        decoder=dict(
            type="Sequence",
            decoders=[
                dict(type="Replace", pattern={"String": SPACE}, content=" "),
                dict(type="ByteFallback"),
                dict(type="Fuse"),
                dict(type="Strip", content=" ", start=1, stop=0),
            ],
        ),
        model=dict(
            type="BPE",
            dropout=None,
            unk_token=UNK,
            continuing_subword_prefix=None,
            end_of_word_suffix=None,
            fuse_unk=True,
            byte_fallback=True,
            ignore_merges=False,
            vocab=vocab,
            merges=merges,
        ),
    )


def encode_as_llama2c(text: str, pieces: list[tuple[str, float]]) -> list[int]:
    """The algorithm of run.c: characters or their bytes, then the best-scoring neighbours merge, the first on a tie."""
    ids = {piece: index for index, (piece, _) in reversed(list(enumerate(pieces)))}
    found = [1]
    if text:
        found.append(ids[" "])
    for character in text:
        found += [ids[character]] if character in ids else [byte + 3 for byte in character.encode()]
    while True:
        best, where = -1e10, None
        for index, (left, right) in enumerate(zip(found, found[1:])):
            merged = ids.get(pieces[left][0] + pieces[right][0])
            if merged is not None and pieces[merged][1] > best:
                best, where, into = pieces[merged][1], index, merged
        if where is None:
            return found
        found[where : where + 2] = [into]


def verify(output: Path, source: Path, pieces: list[tuple[str, float]]):
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(output)
    page = (source / "stories260K.md").read_text()
    sample = page.split("-t 0.0\n", 1)[1].split("\n```", 1)[0]
    plain = [text for text in TEXTS if "<s>" not in text] + [sample]  # run.c knows no special tokens in text
    for text in plain:
        ours, theirs = tokenizer(text).input_ids, encode_as_llama2c(text, pieces)
        assert ours == theirs, f"{text!r}: {ours}, run.c says {theirs}"
        assert tokenizer.decode(ours, skip_special_tokens=True) == text, text
    model = AutoModelForCausalLM.from_pretrained(output)
    length = len(tokenizer(sample).input_ids)
    ids = model.generate(torch.tensor([[1]]), max_new_tokens=length + 8, do_sample=False)[0]
    text = tokenizer.decode(ids, skip_special_tokens=True)
    assert text.startswith(sample), f"the model says:\n{text}\nthe page says:\n{sample}"
    print(f"{len(plain)} texts encode as in run.c; {length} greedy ids spell the page's sample")


def main(source: Path, output: Path):
    output.mkdir(parents=True, exist_ok=True)
    config, tensors = read_weights(source / "stories260K.bin")
    pieces = read_vocabulary(source / "tok512.bin")
    files = {
        "config.json": config,
        # The training text marked the start of each story only, so a second BOS is where a story ends.
        "generation_config.json": dict(bos_token_id=1, eos_token_id=[1, 2]),
        "tokenizer.json": build_tokenizer(pieces),
        "tokenizer_config.json": dict(
            tokenizer_class="PreTrainedTokenizerFast",
            bos_token=BOS,
            eos_token=EOS,
            unk_token=UNK,
            clean_up_tokenization_spaces=False,
            model_max_length=config["max_position_embeddings"],
        ),
    }
    for name, content in files.items():
        (output / name).write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n")
    save_file(tensors, output / "model.safetensors", metadata={"format": "pt"})
    verify(output, source, pieces)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
