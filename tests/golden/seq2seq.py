"""Writes the parity fixtures of transformers' encoder-decoders: tests/golden/<family>/<case>/.

As decoder.py, with every output that transformers gives to the class in `architectures`. inputs.json holds the
decoder's rows too; a case without them shows how transformers makes them from `input_ids`.

    python seq2seq.py [family ...]
"""

import sys

import torch
from cases import Case, write
from common import SEQ2SEQ


def own_head(model, seed: int):
    """A head beside the embedding, which the config may still call tied: then the file wins."""
    rng = torch.Generator().manual_seed(seed)
    model.lm_head.weight = torch.nn.Parameter(torch.randn(model.lm_head.weight.shape, generator=rng) * 0.5)


def t5_hub(tensors: dict) -> dict:
    """google's uploads: the shared table up to four times, and a table of relative positions that nobody reads."""
    shared, unread = tensors["shared.weight"], "decoder.block.0.layer.1.EncDecAttention.relative_attention_bias.weight"
    copies = {f"{name}.weight": shared.clone() for name in ("encoder.embed_tokens", "decoder.embed_tokens")}
    return {"lm_head.weight": shared.clone()} | tensors | copies | {unread: torch.ones(32, 3)}


def bart_hub(tensors: dict) -> dict:
    """facebook's and Helsinki's uploads: the shared table under every name."""
    names = ("model.encoder.embed_tokens", "model.decoder.embed_tokens", "lm_head")
    return tensors | {f"{name}.weight": tensors["model.shared.weight"].clone() for name in names}


def bare_names(tensors: dict) -> dict:
    """facebook/bart-base: saved without its head."""
    tensors = {name.removeprefix("model."): tensor for name, tensor in tensors.items()}
    copies = {f"{side}.embed_tokens.weight": tensors["shared.weight"].clone() for side in ("encoder", "decoder")}
    return tensors | copies


def stored_sines(tensors: dict) -> dict:
    """Old uploads keep Marian's positions: sines in the first half of a row, cosines in the second."""
    angle = torch.arange(24.0, dtype=torch.float64)[:, None] / 10000 ** (torch.arange(0, 12, 2) / 12)
    table = torch.cat([angle.sin(), angle.cos()], dim=1).float()
    return bart_hub(tensors) | {
        f"model.{side}.embed_positions.weight": table.clone() for side in ("encoder", "decoder")
    }


T5 = "T5ForConditionalGeneration"
BART, MBART, MARIAN = "BartForConditionalGeneration", "MBartForConditionalGeneration", "MarianMTModel"
LAYERS = {"encoder_layers": 2, "decoder_layers": 2}
GATED = {"feed_forward_proj": "gated-gelu"}
OLD_BART = {
    "normalize_before": False,
    "add_final_layer_norm": False,
    "normalize_embedding": True,
    "static_position_embeddings": False,
}
OLD_MARIAN = OLD_BART | {"normalize_embedding": False, "static_position_embeddings": True,
    "add_bias_logits": False}  # fmt: skip
MBART_IDS = {"decoder_start_token_id": 5}

CASES = {
    "t5": [
        Case("relu", T5, "left", {"num_layers": 3, "num_decoder_layers": None}, decoder="right"),
        Case("relu_no_masks", T5, "bare", {"num_layers": 1, "num_decoder_layers": 3}, decoder="bare"),
        Case("gated_gelu_tied", T5, "right", GATED, decoder="left"),
        Case("gated_silu", T5, "holes", {"feed_forward_proj": "gated-silu", "num_layers": 2, "num_decoder_layers": 2,
             "layer_norm_epsilon": 1e-2}, decoder="holes"),
        Case("own_head", T5, "left", GATED | {"tie_word_embeddings": False}, decoder="bare", raw=True, change=own_head),
        Case("own_head_new_spelling", T5, "right", GATED | {"scale_decoder_outputs": False, "num_decoder_layers": 1},
             decoder="right", change=own_head),
        Case("own_head_scaled", T5, "right", {"scale_decoder_outputs": True}, decoder="bare", change=own_head),
        Case("tied_unscaled", T5, "plain", {"tie_word_embeddings": False}, decoder="bare", raw=True),
        Case("tied_unscaled_new_spelling", T5, "left", {"scale_decoder_outputs": False}, decoder="left"),
        Case("odd_buckets", T5, "long", {"relative_attention_num_buckets": 7, "relative_attention_max_distance": 9},
             decoder="long"),
        Case("two_buckets_each_way", T5, "long",
             {"relative_attention_num_buckets": 5, "relative_attention_max_distance": 6}, decoder="plain"),
        Case("default_buckets_far", T5, "plain", {"num_layers": 1}, decoder="plain", length=75, target=70),
        Case("one_token", T5, "one", {"num_heads": 1, "d_kv": 3}, decoder="one"),
        Case("many_heads", T5, "right", {"num_heads": 7, "d_kv": 2, "feed_forward_proj": "gelu"}, decoder="holes"),
        Case("hub_names", T5, "left", decoder="right", raw=True, edit=t5_hub),
        Case("hub_names_own_head_bf16", T5, "right", GATED | {"tie_word_embeddings": False, "torch_dtype": "bfloat16"},
             decoder="right", raw=True, edit=t5_hub, change=own_head, dtype=torch.bfloat16),
        Case("model", "T5Model", "left", decoder="right"),
        Case("encoder", "T5EncoderModel", "left"),
        Case("encoder_gated", "T5EncoderModel", "holes", GATED | {"num_layers": 3, "relative_attention_num_buckets": 8}),
    ],
    "mt5": [
        Case("own_head", "MT5ForConditionalGeneration", "left", {"tie_word_embeddings": False}, decoder="right",
             raw=True, change=own_head),
        Case("tied", "MT5ForConditionalGeneration", "right", decoder="bare"),
        Case("encoder", "MT5EncoderModel", "left"),
    ],
    "umt5": [
        Case("tied", "UMT5ForConditionalGeneration", "left", decoder="right"),
        Case("layers", "UMT5ForConditionalGeneration", "right", {"num_layers": 1, "num_decoder_layers": 3},
             decoder="holes"),
        Case("encoder", "UMT5EncoderModel", "holes", {"feed_forward_proj": "relu"}),
    ],
    "bart": [
        Case("generate", BART, "left", LAYERS, decoder="right"),
        Case("scaled_embedding", BART, "right", {"scale_embedding": True, "activation_function": "relu"},
             decoder="left"),
        Case("layers", BART, "holes", {"encoder_layers": 1, "decoder_layers": 3, "decoder_attention_heads": 6},
             decoder="holes"),
        Case("no_masks", BART, "bare", {"activation_function": "gelu_new"}, decoder="bare"),
        Case("no_decoder_ids", BART, "right", pads=True, ends=True),
        Case("one_token", BART, "one", decoder="one"),
        Case("own_tables", BART, "right", {"tie_word_embeddings": False}, decoder="right"),
        Case("hub_names", BART, "left", OLD_BART, decoder="right", raw=True, edit=bart_hub),
        Case("bare_names_f16", BART, "right", OLD_BART | {"torch_dtype": "float16"}, decoder="right", raw=True,
             edit=bare_names, dtype=torch.float16),
        Case("model", "BartModel", "left", LAYERS, decoder="right"),
        Case("model_no_decoder_ids", "BartModel", "plain", {"scale_embedding": True}),
        Case("classify", "BartForSequenceClassification", "right", {"classifier_dropout": 0.1}, pads=True, ends=True),
        Case("answer", "BartForQuestionAnswering", "right", pads=True),
    ],
    "mbart": [
        Case("generate", MBART, "left", LAYERS | MBART_IDS, decoder="right"),
        Case("scaled_embedding", MBART, "right", MBART_IDS | {"scale_embedding": True, "activation_function": "relu"},
             decoder="left"),
        Case("layers", MBART, "holes", MBART_IDS | {"encoder_layers": 1, "decoder_layers": 3}, decoder="holes"),
        Case("hub_names", MBART, "right",
             MBART_IDS | OLD_BART | {"normalize_before": True, "add_final_layer_norm": True},
             decoder="bare", raw=True, edit=bart_hub),
        Case("model_no_decoder_ids", "MBartModel", "right", MBART_IDS, pads=True, ends=True),
    ],
    "marian": [
        Case("generate", MARIAN, "left", LAYERS | {"scale_embedding": True, "activation_function": "swish"},
             decoder="right"),
        Case("unscaled", MARIAN, "right", {"encoder_layers": 3, "decoder_layers": 1}, decoder="left"),
        Case("holes", MARIAN, "holes", {"activation_function": "relu", "scale_embedding": True}, decoder="holes"),
        Case("no_masks_odd_width", MARIAN, "bare", {"d_model": 15, "decoder_attention_heads": 5}, decoder="bare"),
        Case("two_vocabularies", MARIAN, "right", {"share_encoder_decoder_embeddings": False, "decoder_vocab_size": 27,
             "pad_token_id": 26, "decoder_start_token_id": 26}, decoder="right"),
        Case("two_tables_of_one_size", MARIAN, "left", {"share_encoder_decoder_embeddings": False}, decoder="bare"),
        Case("own_tables", MARIAN, "right", {"tie_word_embeddings": False}, decoder="right"),
        Case("one_token", MARIAN, "one", decoder="one"),
        Case("hub_names", MARIAN, "left", OLD_MARIAN | {"scale_embedding": True, "activation_function": "swish"},
             decoder="right", raw=True, edit=bart_hub),
        Case("hub_names_with_positions", MARIAN, "right", OLD_MARIAN, decoder="right", raw=True, edit=stored_sines),
        Case("model", "MarianModel", "left", LAYERS, decoder="right"),
    ],
}  # fmt: skip

if __name__ == "__main__":
    for chosen in sys.argv[1:] or SEQ2SEQ[:-1]:
        for case in CASES[chosen]:
            write(chosen, case)
