"""Writes the training fixtures of the other objectives: tests/golden/tasks/<task>/.

As train_losses.py: ten steps of AdamW in f32 on one fixed batch, without dropout.
    config.json, model.safetensors    the weights before the first step
    batch.json                        the inputs and what is to be learned, under the names that transformers gives them;
                                      -100 is ignored; `num_choices` rows under one another are one example
    train.json                        the optimiser's settings, `objective` (its formula), the loss before each step,
                                      the norm before clipping; `parts`: the summands of the loss where it has several
    final.safetensors                 some tensors after the tenth step
    gradients.safetensors             (some tasks) every gradient of the first step, before clipping

The weights are drawn again until the losses in f64 are the same to 1e-5, so that no router is near a tie.

    python tasks_losses.py [task ...]
"""

import copy
import json
import random
import sys
from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from common import HERE, base_config, load, new_model, save, save_file, seed_of, to_tensors
from torch.nn.functional import log_softmax
from train_losses import CLIP, OPTIMISER, STEPS

DRY_BERT = dict(hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0, classifier_dropout=0.0)
DRY_DEBERTA = dict(hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0, relative_attention=True)
DRY_DEBERTA |= dict(pos_att_type=["c2p", "p2c"], position_biased_input=False)
MASKED = "mean over the tokens with a label of -log p"
SMOOTHING = 0.1


# ---- batches: three rows, padded on the right, nothing equal by accident


def text(vocab: int, rng: random.Random, rows: int = 3, width: int = 9, low: int = 0) -> dict:
    ids = [[rng.randrange(low, vocab) for _ in range(width)] for _ in range(rows)]
    lengths = [width - (0, 3, 1, 4, 0, 2)[n % 6] for n in range(rows)]
    return dict(input_ids=ids, attention_mask=[[int(t < n) for t in range(width)] for n in lengths])


def pairs(vocab: int, rng: random.Random, rows: int = 3) -> dict:
    batch = text(vocab, rng, rows)
    return batch | dict(token_type_ids=[[int(t > 3) for t in range(9)] for _ in range(rows)])


def masked(vocab: int, rng: random.Random, types: bool = True) -> dict:
    """A mask id or a random one where there is a label, as BERT has it; a label also where the id was kept."""
    batch = pairs(vocab, rng) if types else text(vocab, rng)
    labels = [[-100] * 9 for _ in range(3)]
    for row, keep, label in zip(batch["input_ids"], batch["attention_mask"], labels):
        for n, t in enumerate(rng.sample(range(sum(keep)), 3)):
            label[t] = row[t]
            row[t] = (4, rng.randrange(vocab), row[t])[n]
    return batch | dict(labels=labels)


def translated(config: dict, rng: random.Random, ignored: int = -100) -> dict:
    """Source and target; the decoder reads the target moved by one, behind the start."""
    vocab, start, pad = config["vocab_size"], config["decoder_start_token_id"], config.get("pad_token_id", 0)
    batch, end = text(vocab, rng, low=3), config.get("eos_token_id", 1)
    labels, lengths = [], (7, 4, 6)
    for length in lengths:
        labels.append([rng.randrange(3, vocab - 1) for _ in range(length - 1)] + [end] + [ignored] * (7 - length))
    shifted = [[start] + [pad if token == -100 else token for token in row[:-1]] for row in labels]
    mask = [[int(t < n) for t in range(7)] for n in lengths]
    return batch | dict(decoder_input_ids=shifted, decoder_attention_mask=mask, labels=labels)


def continued(vocab: int, rng: random.Random, padded: bool) -> dict:
    batch = text(vocab, rng, width=11)
    if not padded:
        batch["attention_mask"] = [[1] * 11 for _ in range(3)]
    rows = zip(batch["input_ids"], batch["attention_mask"])
    return batch | dict(labels=[[token if keep else -100 for token, keep in zip(*row)] for row in rows])


# ---- losses: each gives the summands, whose sum is the loss


def own(model, batch):
    return {"loss": model(**batch).loss}


def pretraining(model, batch):
    out = model(**{name: rows for name, rows in batch.items() if name not in ("labels", "next_sentence_label")})
    words, labels = out.prediction_logits.flatten(0, 1), batch["labels"].flatten()
    parts = {
        "masked_lm": torch.nn.functional.cross_entropy(words, labels),
        "next_sentence": torch.nn.functional.cross_entropy(out.seq_relationship_logits, batch["next_sentence_label"]),
    }
    torch.testing.assert_close(model(**batch).loss, sum(parts.values()))
    return parts


def smoothed(model, batch):
    log_p = log_softmax(model(**batch)["logits"], dim=-1)
    counts = batch["labels"] != -100
    nll = -log_p.gather(-1, batch["labels"].clamp(min=0)[..., None])[..., 0]
    each = (1 - SMOOTHING) * nll + SMOOTHING * -log_p.mean(dim=-1)
    return {"loss": (each * counts).sum() / counts.sum()}


def balanced(model, batch):
    """DeepSeek-V2's expert balance; in the paper eq. 23-25: alpha · sum_i f_i P_i, f_i = N / (K T) · count_i."""
    config, batch = model.config, dict(batch)
    out = model(**batch, use_cache=False, output_router_logits=True)
    experts, top = config.n_routed_experts, config.num_experts_per_tok
    rows, time = batch["input_ids"].shape
    balance = 0.0
    for logits in out.router_logits:  # one for each layer with experts
        scores = logits.softmax(dim=-1)
        chosen = torch.zeros_like(scores).scatter(1, scores.topk(top, dim=-1).indices, 1.0)
        if config.seq_aux:
            scores, chosen = scores.view(rows, time, experts), chosen.view(rows, time, experts)
            f, p = chosen.mean(dim=1) * experts / top, scores.mean(dim=1)
            balance = balance + (f * p).sum(dim=1).mean()
        else:
            balance = balance + (chosen.mean(dim=0) * experts / top * scores.mean(dim=0)).sum()
    return {"lm": out.loss, "balance": config.aux_loss_alpha * balance}


def routed(model, batch):
    out = model(**batch, use_cache=False, output_router_logits=True)
    balance = model.config.router_aux_loss_coef * out.aux_loss
    return {"lm": out.loss - balance, "balance": balance}


@dataclass
class Task:
    family: str
    head: str | None
    objective: str
    batch: Callable
    final: list
    config: dict = field(default_factory=dict)
    loss: Callable = own
    gradients: bool = False


def bert(head: str, objective: str, batch: Callable, final: list, loss: Callable = own, **more) -> Task:
    words = ["bert.embeddings.word_embeddings.weight", "bert.encoder.layer.0.attention.self.query.weight"]
    gradients = more.pop("gradients", False)
    return Task("bert", f"BertFor{head}", objective, batch, words + final, DRY_BERT | more, loss, gradients)


def with_labels(labels, rows: int = 3):
    return lambda config, rng: pairs(config["vocab_size"], rng, rows) | dict(labels=labels)


def tags(config, rng):
    batch = pairs(config["vocab_size"], rng)
    mask = batch["attention_mask"]
    labels = [[rng.randrange(5) if keep and t else -100 for t, keep in enumerate(row)] for row in mask]
    return batch | dict(labels=labels)


def translation(config, rng):
    return translated(config, rng)


DEEPSEEK = dict(num_hidden_layers=3, first_k_dense_replace=1, aux_loss_alpha=0.1, attention_dropout=0.0)
DEEPSEEK_FINAL = ["model.layers.1.mlp.gate.weight", "model.layers.2.mlp.experts.3.up_proj.weight", "lm_head.weight"]
ROUTED = dict(num_hidden_layers=2, router_aux_loss_coef=0.1, output_router_logits=True)
BALANCE = (
    "mean over the shifted labels of -log p, plus {} N · sum_i f_i P_i over all layers' unmasked tokens as one: f_i "
)
BALANCE += "= choices of expert i / tokens (so they sum to num_experts_per_tok), P_i = mean softmax"
SEQUENCE = (
    "aux_loss_alpha · the sum over layers of the mean over rows of sum_i f_i P_i, with f_i = N / (K T) · choices of "
)
SEQUENCE += "expert i in the row, P_i = mean softmax score of expert i in the row"

TASKS = {
    "bert_pretraining": bert(
        "PreTraining",
        MASKED + ", plus the mean over rows of -log p of next_sentence_label (0: it follows)",
        lambda config, rng: masked(config["vocab_size"], rng) | dict(next_sentence_label=[0, 1, 1]),
        ["cls.predictions.bias", "cls.predictions.transform.dense.weight", "cls.seq_relationship.weight"],
        pretraining,
        gradients=True,
    ),
    "bert_classify": bert(
        "SequenceClassification",
        "mean over rows of -log p",
        with_labels([2, 0, 3]),
        ["classifier.weight", "bert.pooler.dense.weight"],
        num_labels=4,
        problem_type="single_label_classification",
    ),
    "bert_classify_multi_label": bert(
        "SequenceClassification",
        "mean over rows and labels of the binary cross-entropy of sigmoid(logit)",
        with_labels([[1.0, 0.0, 1.0], [0.0, 0.0, 0.0], [0.0, 1.0, 1.0]]),
        ["classifier.weight"],
        num_labels=3,
        problem_type="multi_label_classification",
    ),
    "bert_regress": bert(
        "SequenceClassification",
        "mean over rows of (logit - label)^2",
        with_labels([0.7, -1.3, 2.1]),
        ["classifier.weight"],
        num_labels=1,
        problem_type="regression",
    ),
    "bert_regress_two": bert(
        "SequenceClassification",
        "mean over rows and outputs of (logit - label)^2",
        with_labels([[0.7, 0.1], [-1.3, 0.4], [2.1, -0.2]]),
        ["classifier.bias"],
        num_labels=2,
        problem_type="regression",
    ),
    "bert_tag": bert("TokenClassification", MASKED, tags, ["classifier.weight"], num_labels=5),
    "bert_answer": bert(
        "QuestionAnswering",
        "half of: mean over rows of -log softmax over the row's positions (all of them, padding too) of the start, plus "
        "the same of the end; a position beyond the row's width is ignored",
        lambda config, rng: (
            pairs(config["vocab_size"], rng, 4) | dict(start_positions=[4, 2, 9, 3], end_positions=[6, 2, 9, 4])
        ),
        ["qa_outputs.weight"],
    ),
    "bert_choose": bert(
        "MultipleChoice",
        "mean over examples of -log softmax over the choices",
        lambda config, rng: pairs(config["vocab_size"], rng, 6) | dict(labels=[2, 0], num_choices=3),
        ["classifier.weight", "bert.pooler.dense.bias"],
    ),
    "deberta_masked_lm": Task(
        "deberta",
        "DebertaForMaskedLM",
        MASKED,
        lambda config, rng: masked(config["vocab_size"], rng, types=False),
        ["deberta.encoder.rel_embeddings.weight", "deberta.encoder.layer.1.attention.self.pos_proj.weight"],
        DRY_DEBERTA | dict(max_relative_positions=5),
        gradients=True,
    ),
    "deberta_v2_masked_lm": Task(
        "deberta-v2",
        "DebertaV2ForMaskedLM",
        MASKED,
        lambda config, rng: masked(config["vocab_size"], rng, types=False),
        ["deberta.encoder.rel_embeddings.weight", "deberta.encoder.conv.conv.weight", "lm_predictions.lm_head.bias"],
        DRY_DEBERTA
        | dict(position_buckets=4, share_att_key=True, norm_rel_ebd="layer_norm", conv_kernel_size=3, legacy=False),
        gradients=True,
    ),
    "transformer_smoothed": Task(
        "transformer",
        None,
        f"label smoothing e = {SMOOTHING}: mean over targets other than -100 of (1 - e) · -log p(target) + e · the mean "
        "over the whole vocabulary of -log p",
        translation,
        ["embed_tokens.weight", "decoder.layers.0.cross_attn.k_proj.weight", "encoder.layers.1.ffn.up.bias"],
        dict(encoder_layers=2, decoder_layers=2, dropout=0.0, norm="post", layer_norm_eps=1e-6)
        | dict(share_embeddings="all", attention_bias=False),
        smoothed,
        gradients=True,
    ),
    "transformer_smoothed_pre_norm": Task(
        "transformer",
        None,
        f"label smoothing e = {SMOOTHING}, as transformer_smoothed",
        translation,
        ["decoder.embed_tokens.weight", "encoder.embed_tokens.weight", "lm_head.weight", "decoder.norm.weight"],
        dict(dropout=0.0, norm="pre", layer_norm_eps=1e-5, share_embeddings="none", attention_bias=True),
        smoothed,
    ),
    "t5": Task(
        "t5",
        "T5ForConditionalGeneration",
        MASKED,
        translation,
        ["shared.weight", "decoder.block.0.layer.0.SelfAttention.relative_attention_bias.weight"],
        dict(dropout_rate=0.0, pad_token_id=0, eos_token_id=1, num_layers=2, num_decoder_layers=2),
        gradients=True,
    ),
    "marian": Task(
        "marian",
        "MarianMTModel",
        MASKED,
        translation,
        ["model.shared.weight", "model.decoder.layers.0.encoder_attn.v_proj.bias"],
        dict(dropout=0.0, scale_embedding=True, activation_function="swish"),
        gradients=True,
    ),
    "deepseek_v2_sequence_balance": Task(
        "deepseek_v2",
        "DeepseekV2ForCausalLM",
        "mean over the shifted labels of -log p, plus " + SEQUENCE,
        lambda config, rng: continued(config["vocab_size"], rng, padded=False),
        DEEPSEEK_FINAL,
        DEEPSEEK | dict(seq_aux=True),
        balanced,
        gradients=True,
    ),
    "deepseek_v2_batch_balance": Task(
        "deepseek_v2",
        "DeepseekV2ForCausalLM",
        "mean over the shifted labels of -log p, plus "
        + SEQUENCE.replace("the mean over rows of ", "").replace("row", "batch"),
        lambda config, rng: continued(config["vocab_size"], rng, padded=False),
        DEEPSEEK_FINAL,
        DEEPSEEK | dict(seq_aux=False, n_shared_experts=2, routed_scaling_factor=1.5),
        balanced,
    ),
    "mixtral_balance": Task(
        "mixtral",
        "MixtralForCausalLM",
        BALANCE.format("router_aux_loss_coef ·"),
        lambda config, rng: continued(config["vocab_size"], rng, padded=True),
        ["model.layers.1.block_sparse_moe.gate.weight", "model.layers.0.block_sparse_moe.experts.2.w2.weight"],
        ROUTED,
        routed,
        gradients=True,
    ),
    "qwen2_moe_balance": Task(
        "qwen2_moe",
        "Qwen2MoeForCausalLM",
        BALANCE.format("router_aux_loss_coef ·"),
        lambda config, rng: continued(config["vocab_size"], rng, padded=True),
        ["model.layers.1.mlp.shared_expert_gate.weight", "model.layers.0.mlp.experts.2.gate_proj.weight"],
        ROUTED | dict(norm_topk_prob=True),
        routed,
    ),
}  # fmt: skip


def train(task: Task, model, batch: dict) -> dict:
    params = {name: param for name, param in model.named_parameters() if param.requires_grad}
    matrices = [p for p in params.values() if p.dim() >= 2]
    vectors = [p for p in params.values() if p.dim() < 2]
    optimiser = torch.optim.AdamW(
        [dict(params=matrices), dict(params=vectors, weight_decay=0.0)], foreach=False, **OPTIMISER
    )
    losses, norms, parts, gradients = [], [], {}, {}
    for step in range(STEPS):
        optimiser.zero_grad()
        summands = task.loss(model, batch)
        loss = sum(summands.values())
        loss.backward()
        if step == 0:
            gradients = {name: p.grad.contiguous().clone() for name, p in params.items() if p.grad is not None}
        norms.append(float(torch.nn.utils.clip_grad_norm_(params.values(), CLIP)))
        losses.append(loss.item())
        for name, part in summands.items():
            parts.setdefault(name, []).append(part.item())
        optimiser.step()
    return dict(losses=losses, norms=norms, parts=parts, gradients=gradients, params=params)


def split_experts(model, tensors: dict, folder) -> dict:
    """Under the names of the file: transformers keeps a layer's experts in one tensor, gate and up side by side."""
    family, found = model.config.model_type, {}
    block, gate, up, down = (
        ("block_sparse_moe", "w1", "w3", "w2") if family == "mixtral" else ("mlp", "gate_proj", "up_proj", "down_proj")
    )
    for name, tensor in tensors.items():
        name = name.replace(".mlp.", f".{block}.")
        stem = name.rpartition(".")[0]
        if name.endswith("experts.gate_up_proj"):
            for n, both in enumerate(tensor):
                found[f"{stem}.{n}.{gate}.weight"], found[f"{stem}.{n}.{up}.weight"] = both.chunk(2)
        elif name.endswith("experts.down_proj"):
            found |= {f"{stem}.{n}.{down}.weight": matrix for n, matrix in enumerate(tensor)}
        else:
            found[name] = tensor
    return {name: tensor.detach().contiguous().clone() for name, tensor in found.items()}


def write(name: str):
    task, folder, rng = TASKS[name], HERE / "tasks" / name, random.Random(seed_of(f"tasks/{name}"))
    config = base_config(task.family) | task.config
    if task.head:
        config["architectures"] = [task.head]
    if "num_labels" in config:
        count = config.pop("num_labels")
        config["id2label"] = {str(n): f"LABEL_{n}" for n in range(count)}
        config["label2id"] = {f"LABEL_{n}": n for n in range(count)}
    rows = task.batch(config, rng)
    (folder).parent.mkdir(exist_ok=True)
    for seed in range(seed_of(f"tasks/{name}"), seed_of(f"tasks/{name}") + 50):
        save(new_model(config, seed), folder, config)
        batch = to_tensors(
            {key: value for key, value in rows.items() if key not in ("labels", "num_choices")} | choice(rows)
        )
        if "labels" in rows:
            batch["labels"] = torch.tensor(rows["labels"])
        model = load(folder)
        double = copy.deepcopy(model).double()
        result = train(task, model.train(), batch)
        wide = {key: value.double() if value.is_floating_point() else value for key, value in batch.items()}
        exact = train(task, double.train(), wide)
        worst = max(abs(a - b) for a, b in zip(result["losses"], exact["losses"]))
        if worst < 1e-5 and max(abs(a / b - 1) for a, b in zip(result["norms"], exact["norms"])) < 2e-5:
            break
    else:
        raise RuntimeError(f"{name}: f32 and f64 differ by {worst}")
    (folder / "batch.json").write_text(json.dumps(rows) + "\n")
    settings = OPTIMISER | dict(decay="parameters of two dimensions and more", clip=CLIP, objective=task.objective)
    settings |= dict(losses=result["losses"], gradient_norms=result["norms"])
    if len(result["parts"]) > 1:
        settings["parts"] = result["parts"]
    (folder / "train.json").write_text(json.dumps(settings, indent=1) + "\n")
    final = split_experts(model, result["params"], folder)
    save_file({key: final[key] for key in task.final}, folder / "final.safetensors")
    if task.gradients:
        save_file(split_experts(model, result["gradients"], folder), folder / "gradients.safetensors")
    size = sum(path.stat().st_size for path in folder.iterdir())
    losses = f"{result['losses'][0]:.4f} -> {result['losses'][-1]:.4f}"
    print(f"{name:32} {size / 1e3:5.1f} kB  {losses}  norms to {max(result['norms']):.2f}  f64 {worst:.0e}")


def choice(rows: dict) -> dict:
    return {"num_choices": rows["num_choices"]} if "num_choices" in rows else {}


if __name__ == "__main__":
    for chosen in sys.argv[1:] or TASKS:
        write(chosen)
