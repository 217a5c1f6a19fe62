"""Writes the parity fixtures of the encoders: tests/golden/<family>/<case>/.

As decoder.py, with every output that transformers gives to the class in `architectures`. Rows of choices stand one
under the other in inputs.json, `num_choices` of them to an example.

    python encoder.py [family ...]
"""

import sys

import torch
from cases import Case, write
from common import ENCODERS


def labels(count: int, **more) -> dict:
    """As the hub's folders say it: by the names of the labels."""
    names = {str(n): f"LABEL_{n}" for n in range(count)}
    return {"id2label": names, "label2id": {name: int(n) for n, name in names.items()}, **more}


def old_names(tensors: dict) -> dict:
    """The first uploads: norms have a gamma and a beta, and the positions are stored."""
    renamed = {
        name.replace("LayerNorm.weight", "LayerNorm.gamma").replace("LayerNorm.bias", "LayerNorm.beta"): tensor
        for name, tensor in tensors.items()
    }
    prefix = "bert." if any(name.startswith("bert.") for name in renamed) else ""
    return renamed | {f"{prefix}embeddings.position_ids": torch.arange(24)[None]}


def tied_twice(head: str, embedding: str, bias: str):
    """Uploads of version 4 and before hold the tied head beside the embedding."""

    def edit(tensors: dict) -> dict:
        return tensors | {f"{head}.weight": tensors[embedding].clone(), f"{head}.bias": tensors[bias].clone()}

    return edit


def with_leftovers(tensors: dict) -> dict:
    """microsoft's uploads: a second head for pre-training, and positions that the config does not want."""
    extra = {"mask_predictions.dense.weight": torch.ones(3, 12), "mask_predictions.dense.bias": torch.ones(3)}
    return tensors | extra | {"deberta.embeddings.position_embeddings.weight": torch.ones(24, 12)}


BERT_HEAD = tied_twice("cls.predictions.decoder", "bert.embeddings.word_embeddings.weight", "cls.predictions.bias")
V1 = {"relative_attention": True, "pos_att_type": ["c2p", "p2c"], "position_biased_input": False}
V2 = V1 | {"position_buckets": 4, "norm_rel_ebd": "layer_norm", "share_att_key": True}


def roberta_cases(prefix: str, small: bool) -> list:
    stored = {"roberta.embeddings.position_ids": torch.arange(24)[None]}
    head = tied_twice("lm_head.decoder", "roberta.embeddings.word_embeddings.weight", "lm_head.bias")
    cases = [
        Case("pads", f"{prefix}Model", "right", pads=True),
        Case("pads_left", f"{prefix}Model", "left", pads=True, pooler=False),
        Case("random_ids_under_mask", f"{prefix}Model", "holes", {"type_vocab_size": 1}),
        Case("masked_lm", f"{prefix}ForMaskedLM", "left", {"type_vocab_size": 1, "hidden_act": "relu"}, pads=True),
        Case("masked_lm_tied_twice", f"{prefix}ForMaskedLM", "right", edit=head),
        Case("classify", f"{prefix}ForSequenceClassification", "right", labels(3, classifier_dropout=0.2), pads=True),
        Case("choose", f"{prefix}ForMultipleChoice", "right", choices=3, types=True),
    ]
    if small:
        return cases
    own = {"tie_word_embeddings": False, "layer_norm_eps": 1e-2}
    return cases + [
        Case("no_mask_pads_inside", f"{prefix}Model", "bare", {"pad_token_id": 3}, length=20, pooler=False),
        Case("positions", f"{prefix}Model", "positions", {"hidden_act": "gelu_new"}, types=True),
        Case("one_token", f"{prefix}Model", "one", {"num_attention_heads": 1}),
        Case("masked_lm_own_head", f"{prefix}ForMaskedLM", "plain", own),
        Case("causal", f"{prefix}ForCausalLM", "left", {"is_decoder": True, "pad_token_id": 0}, pads=True),
        Case("regress", f"{prefix}ForSequenceClassification", "holes", labels(1, problem_type="regression")),
        Case("tag", f"{prefix}ForTokenClassification", "left", labels(5), pads=True),
        Case("answer", f"{prefix}ForQuestionAnswering", "right", types=True, pads=True),
        Case("stored_positions", f"{prefix}ForMaskedLM", "right", raw=True, edit=lambda tensors: tensors | stored),
    ]


CASES = {
    "bert": [
        Case("model_pooled", "BertModel", "right", types=True),
        Case("model_left", "BertModel", "left", {"hidden_act": "gelu_new"}, types=True, pooler=False),
        Case("model_holes_one_type", "BertModel", "holes", {"type_vocab_size": 1, "hidden_act": "silu"}),
        Case("model_three_types", "BertModel", "bare", {"type_vocab_size": 3, "layer_norm_eps": 0.05}, types=True),
        Case("model_no_types_given", "BertModel", "plain", {"num_hidden_layers": 3, "num_attention_heads": 6}),
        Case("model_positions", "BertModel", "positions", {"hidden_size": 15, "num_attention_heads": 5}),
        Case("model_one_token", "BertModel", "one", {"hidden_act": "relu", "num_attention_heads": 1}, types=True),
        Case("model_padded_with_pad", "BertModel", "right", {"pad_token_id": 7}, pads=True),
        Case("model_bf16", "BertModel", "right", {"dtype": "bfloat16"}, types=True, dtype=torch.bfloat16),
        Case("model_old_names", "BertModel", "right", types=True, raw=True, edit=old_names),
        Case("masked_lm", "BertForMaskedLM", "left", types=True),
        Case("masked_lm_relu", "BertForMaskedLM", "holes", {"hidden_act": "relu", "layer_norm_eps": 1e-3}),
        Case("masked_lm_own_head", "BertForMaskedLM", "right", {"tie_word_embeddings": False}, types=True),
        Case("masked_lm_tied_twice", "BertForMaskedLM", "right", types=True, edit=BERT_HEAD),
        Case("causal", "BertLMHeadModel", "right", {"is_decoder": True}, types=True),
        Case("causal_left", "BertLMHeadModel", "left", {"is_decoder": True, "type_vocab_size": 1}),
        Case("next_sentence", "BertForNextSentencePrediction", "right", types=True),
        Case("pretraining", "BertForPreTraining", "right", types=True),
        Case(
            "pretraining_old_names",
            "BertForPreTraining",
            "holes",
            types=True,
            raw=True,
            edit=lambda tensors: old_names(BERT_HEAD(tensors)),
        ),  # fmt: skip
        Case("pretraining_own_head", "BertForPreTraining", "plain", {"tie_word_embeddings": False}, types=True),
        Case("classify", "BertForSequenceClassification", "right", labels(4), types=True),
        Case(
            "classify_multi_label",
            "BertForSequenceClassification",
            "holes",
            labels(3, problem_type="multi_label_classification", classifier_dropout=0.3),
            types=True,
        ),
        Case("regress", "BertForSequenceClassification", "right", labels(1, problem_type="regression")),
        Case("classify_two", "BertForSequenceClassification", "plain", {"hidden_act": "relu"}),
        Case("tag", "BertForTokenClassification", "left", labels(5, classifier_dropout=0.1), types=True),
        Case("answer", "BertForQuestionAnswering", "right", types=True),
        Case("choose", "BertForMultipleChoice", "right", choices=3, types=True),
        Case("choose_no_mask", "BertForMultipleChoice", "bare", choices=2),
    ],
    "roberta": roberta_cases("Roberta", small=False),
    "xlm-roberta": roberta_cases("XLMRoberta", small=True),
    "distilbert": [
        Case("model", "DistilBertModel", "left"),
        Case("model_sines", "DistilBertModel", "right", {"sinusoidal_pos_embds": True, "activation": "relu"}),
        Case("model_one_token", "DistilBertModel", "one", {"n_heads": 1, "n_layers": 3}),
        Case("model_positions", "DistilBertModel", "positions", {"n_heads": 6}),
        Case("masked_lm", "DistilBertForMaskedLM", "left"),
        Case("masked_lm_relu", "DistilBertForMaskedLM", "holes", {"activation": "relu", "sinusoidal_pos_embds": True}),
        Case("masked_lm_own_head", "DistilBertForMaskedLM", "bare", {"tie_word_embeddings": False}),
        Case("classify", "DistilBertForSequenceClassification", "right", labels(3), pads=True),
        Case("regress", "DistilBertForSequenceClassification", "holes", labels(1, activation="gelu_new")),
        Case("tag", "DistilBertForTokenClassification", "left", labels(5)),
        Case("answer", "DistilBertForQuestionAnswering", "right"),
        Case("choose", "DistilBertForMultipleChoice", "right", choices=3),
    ],
    "deberta": [
        Case("model", "DebertaModel", "right", V1),
        Case(
            "model_left", "DebertaModel", "left", V1 | {"position_biased_input": True, "type_vocab_size": 2}, types=True
        ),
        Case("model_holes_c2p", "DebertaModel", "holes", V1 | {"pos_att_type": "c2p"}),
        Case("model_p2c", "DebertaModel", "left", V1 | {"pos_att_type": ["p2c"], "max_relative_positions": 3}),
        Case("model_both_as_text", "DebertaModel", "bare", V1 | {"pos_att_type": "p2c|c2p"}, raw=True),
        Case("model_span_three", "DebertaModel", "right", V1 | {"max_relative_positions": 3, "layer_norm_eps": 1e-2}),
        Case("model_span_long", "DebertaModel", "long", V1 | {"max_relative_positions": 5}),
        Case("model_absolute", "DebertaModel", "left"),
        Case("model_absolute_scaled", "DebertaModel", "right", {"pos_att_type": ["c2p", "p2c"]}),
        Case("model_relative_without_terms", "DebertaModel", "right", {"relative_attention": True}),
        Case("model_positions", "DebertaModel", "positions", V1 | {"position_biased_input": True}),
        Case(
            "model_embedding_size",
            "DebertaModel",
            "holes",
            V1 | {"embedding_size": 7, "type_vocab_size": 3},
            types=True,
        ),
        Case("model_talking_heads", "DebertaModel", "right", V1 | {"talking_head": True}),
        Case("model_one_token", "DebertaModel", "one", V1 | {"hidden_act": "relu"}),
        Case("masked_lm_legacy", "DebertaForMaskedLM", "left", V1),
        Case("masked_lm_legacy_embedding_size", "DebertaForMaskedLM", "right", V1 | {"embedding_size": 7}),
        Case("masked_lm_legacy_own_head", "DebertaForMaskedLM", "plain", V1 | {"tie_word_embeddings": False}),
        Case("masked_lm", "DebertaForMaskedLM", "right", V1 | {"legacy": False, "hidden_act": "gelu_new"}),
        Case(
            "masked_lm_leftovers", "DebertaForMaskedLM", "left", V1 | {"legacy": False}, edit=with_leftovers, raw=True
        ),
        Case("classify", "DebertaForSequenceClassification", "right", V1 | labels(3, pooler_hidden_act="tanh")),
        Case(
            "regress", "DebertaForSequenceClassification", "holes", V1 | labels(1, cls_dropout=0.2, pooler_dropout=0.1)
        ),
        Case("tag", "DebertaForTokenClassification", "left", V1 | labels(5)),
        Case("answer", "DebertaForQuestionAnswering", "right", V1 | {"type_vocab_size": 2}, types=True),
    ],
    "deberta-v2": [
        Case("model", "DebertaV2Model", "right", V2),
        Case(
            "model_left",
            "DebertaV2Model",
            "left",
            V2 | {"position_biased_input": True, "type_vocab_size": 2},
            types=True,
        ),
        Case("model_long", "DebertaV2Model", "long", V2 | {"position_buckets": 6, "max_relative_positions": 15}),
        Case("model_no_buckets", "DebertaV2Model", "holes", V2 | {"position_buckets": -1, "max_relative_positions": 4}),
        Case("model_own_projections", "DebertaV2Model", "right", V2 | {"share_att_key": False, "norm_rel_ebd": "none"}),
        Case("model_own_c2p", "DebertaV2Model", "left", V2 | {"share_att_key": False, "pos_att_type": "c2p"}),
        Case("model_own_p2c", "DebertaV2Model", "holes", V2 | {"share_att_key": False, "pos_att_type": ["p2c"]}),
        Case("model_shared_c2p", "DebertaV2Model", "bare", V2 | {"pos_att_type": "c2p"}, raw=True),
        Case("model_absolute_scaled", "DebertaV2Model", "right", {"pos_att_type": ["c2p", "p2c"]}),
        Case("model_convolution", "DebertaV2Model", "right", V2 | {"conv_kernel_size": 3, "conv_act": "gelu"}),
        Case("model_convolution_holes", "DebertaV2Model", "holes", V2 | {"conv_kernel_size": 5, "conv_groups": 3}),
        Case("model_convolution_left", "DebertaV2Model", "left", V2 | {"conv_kernel_size": 3, "conv_act": "tanh"}),
        Case("model_two_buckets", "DebertaV2Model", "right", V2 | {"position_buckets": 2, "num_hidden_layers": 3}),
        Case("model_embedding_size", "DebertaV2Model", "holes", V2 | {"embedding_size": 7, "layer_norm_eps": 1e-3}),
        Case("model_one_token", "DebertaV2Model", "one", V2 | {"conv_kernel_size": 3, "num_hidden_layers": 1}),
        Case("masked_lm_legacy", "DebertaV2ForMaskedLM", "left", V2 | {"conv_kernel_size": 3}),
        Case("masked_lm_legacy_embedding_size", "DebertaV2ForMaskedLM", "right", V2 | {"embedding_size": 7}),
        Case("masked_lm", "DebertaV2ForMaskedLM", "right", V2 | {"legacy": False}),
        Case(
            "masked_lm_leftovers_f16",
            "DebertaV2ForMaskedLM",
            "left",
            V2 | {"legacy": False, "torch_dtype": "float16"},
            raw=True,
            edit=with_leftovers,
            dtype=torch.float16,
        ),
        Case("classify", "DebertaV2ForSequenceClassification", "right", V2 | labels(3)),
        Case(
            "classify_multi_label",
            "DebertaV2ForSequenceClassification",
            "holes",
            V2 | labels(4, problem_type="multi_label_classification", pooler_hidden_act="relu", pooler_dropout=0.1),
        ),
        Case("tag", "DebertaV2ForTokenClassification", "left", V2 | labels(5)),
        Case("answer", "DebertaV2ForQuestionAnswering", "right", V2 | {"type_vocab_size": 2}, types=True),
        Case("choose", "DebertaV2ForMultipleChoice", "right", V2, choices=3),
    ],
}

for family in ENCODERS:
    for case in CASES[family]:
        if not case.head.endswith(("Model", "ForMaskedLM")):  # a head needs no depth under it
            case.config = {"n_layers" if family == "distilbert" else "num_hidden_layers": 1} | case.config

if __name__ == "__main__":
    for chosen in sys.argv[1:] or ENCODERS:
        for case in CASES[chosen]:
            write(chosen, case)
