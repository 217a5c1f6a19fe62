"""Writes preference.json: losses on preferences and their gradients by log-probabilities, as trl's own trainers say; of
grades, as autograd says.

The trainers are made without their constructors and given a "model" that hands out log-probabilities that are drawn here,
so that it is their `compute_loss` that answers.

    pip install torch==2.15.0 transformers==5.23.0 trl==1.16.0
    python preference.py
"""

import json
import logging
import random
import types
from collections import defaultdict
from pathlib import Path

import torch
from trl import DPOTrainer, KTOTrainer, RewardTrainer
from trl.experimental.cpo import CPOTrainer
from trl.experimental.orpo import ORPOTrainer

logging.disable(logging.WARNING)
torch.set_num_threads(1)
torch.manual_seed(7)
RNG = random.Random(7)

ACCELERATOR = types.SimpleNamespace(
    device=torch.device("cpu"), gather=lambda x: x, gather_for_metrics=lambda x: x, unwrap_model=lambda x: x
)


def trainer(kind, **attributes):
    made = object.__new__(kind)
    common = {
        "accelerator": ACCELERATOR,
        "model": types.SimpleNamespace(training=True),
        "_metrics": {"train": defaultdict(list)},
        "_total_train_tokens": 0,
        "_tp_size": 1,
        "aux_loss_enabled": False,
        "is_encoder_decoder": False,
        "pad_token_id": 0,
        "padding_value": 0,
    }
    for name, value in {**common, **attributes}.items():
        setattr(made, name, value)
    return made


def rows(pairs, longest=7):
    """Prompts and completions by length, and a log-probability for each token behind the first."""
    prompts = [RNG.randint(1, 4) for _ in range(pairs)]
    completions = [RNG.randint(1, longest) for _ in range(2 * pairs)]
    lengths = [prompts[i % pairs] + completions[i] for i in range(2 * pairs)]
    time = max(lengths)
    log_probs = -(torch.rand(2 * pairs, time - 1, dtype=torch.float64) * 3 + 0.01)
    mask = torch.zeros(2 * pairs, time, dtype=torch.long)
    for i in range(2 * pairs):
        mask[i, prompts[i % pairs] : lengths[i]] = 1
    return prompts, lengths, log_probs, mask


def described(prompts, lengths, log_probs):
    kept = [log_probs[i, : n - 1].tolist() for i, n in enumerate(lengths)]
    return {"prompts": prompts, "lengths": lengths, "log_probs": kept}


def outputs(log_probs, repeats=None):
    """What trl's fused head returns; entropy and the like are for its metrics alone."""
    zeros = torch.zeros_like(log_probs)
    return types.SimpleNamespace(
        log_probs=log_probs, log_sum_sq_probs=repeats, entropy=zeros, mean_logits=zeros, is_top1=zeros.bool(), loss=None
    )


def metrics(made):
    wanted = ("rewards/", "logps/", "kl")
    return {k: v[-1] for k, v in made._metrics["train"].items() if k.startswith(wanted)}


def dpo(settings, pairs):
    prompts, lengths, log_probs, mask = rows(pairs)
    if settings.get("f_divergence_type") == "alpha_divergence":
        log_probs = log_probs.float()  # The trainer knows no bound for other types.
    leaf = log_probs.clone().requires_grad_()
    reference = (log_probs * mask[:, 1:]).sum(1) + torch.randn(2 * pairs, dtype=log_probs.dtype) * 2
    losses = settings.get("loss_type", ["sigmoid"])
    made = trainer(
        DPOTrainer,
        beta=settings.get("beta", 0.1),
        loss_types=losses,
        loss_weights=settings.get("loss_weights", [1.0] * len(losses)),
        label_smoothing=settings.get("label_smoothing", 0.0),
        f_divergence_type=settings.get("f_divergence_type", "reverse_kl"),
        f_alpha_divergence_coef=settings.get("f_alpha_divergence_coef", 0.5),
        ld_alpha=settings.get("ld_alpha"),
        args=types.SimpleNamespace(discopop_tau=settings.get("discopop_tau", 0.05)),
        use_weighting=settings.get("use_weighting", False),
        precompute_ref_logps=True,
    )
    inputs = {
        "input_ids": torch.ones_like(mask),
        "attention_mask": torch.ones_like(mask),
        "completion_mask": mask,
        "ref_chosen_logps": reference[:pairs],
        "ref_rejected_logps": reference[pairs:],
    }
    repeats = -torch.rand_like(log_probs) * 2 if "use_weighting" in settings else None
    loss = made._compute_loss(lambda **_: outputs(leaf * mask[:, 1:], repeats), inputs, False)
    loss.backward()
    weighed = {} if repeats is None else {"repeats": described(prompts, lengths, repeats)["log_probs"]}
    return {
        "objective": {"kind": "dpo", **settings},
        **weighed,
        **described(prompts, lengths, log_probs),
        "reference": reference.tolist(),
        "loss": loss.item(),
        "gradient": described(prompts, lengths, leaf.grad)["log_probs"],
        "metrics": metrics(made),
    }


def contrast(kind, settings, pairs):
    """CPO, SimPO and ORPO, whose trainers take logits: of two tokens, the wanted one and all others."""
    prompts, lengths, log_probs, mask = rows(pairs)
    leaf = log_probs.clone().requires_grad_()
    logits = torch.stack([leaf, torch.log(-torch.expm1(leaf))], -1)
    logits = torch.cat([logits, torch.zeros_like(logits[:, :1])], 1)
    attention = torch.zeros_like(mask)
    for i, n in enumerate(lengths):
        attention[i, :n] = 1
    labels = torch.where(mask == 1, 0, -100)
    batch = {"prompt_input_ids": torch.zeros(pairs, 1, dtype=torch.long), "prompt_attention_mask": attention[:pairs, :1]}
    for name, part in (("chosen", slice(None, pairs)), ("rejected", slice(pairs, None))):
        batch[f"{name}_input_ids"] = torch.zeros_like(mask[part])
        batch[f"{name}_attention_mask"] = attention[part]
        batch[f"{name}_labels"] = labels[part]
    simpo = settings["kind"] == "simpo"
    made = trainer(
        kind,
        beta=settings.get("beta", 0.1),
        loss_type="simpo" if simpo else settings.get("loss_type", "sigmoid"),
        label_smoothing=settings.get("label_smoothing", 0.0),
        cpo_alpha=0.0 if simpo else settings.get("cpo_alpha", 1.0),
        simpo_gamma=settings.get("simpo_gamma", 0.5),
        alpha=settings.get("alpha", 0.0),
    )
    loss, told = made.get_batch_loss_metrics(lambda *_, **__: types.SimpleNamespace(logits=logits), batch)
    loss.backward()
    return {
        "objective": settings,
        **described(prompts, lengths, log_probs),
        "loss": loss.item(),
        "gradient": described(prompts, lengths, leaf.grad)["log_probs"],
        "metrics": {k: float(v) for k, v in told.items() if k.startswith(("rewards/", "logps/"))},
    }


def kto(settings, count):
    sums = -(torch.rand(count, dtype=torch.float64) * 20)
    leaf = sums.clone().requires_grad_()
    reference = sums + torch.randn(count, dtype=torch.float64) * 3
    mismatched = -(torch.rand(count, dtype=torch.float64) * 20)
    mismatched_reference = mismatched + torch.randn(count, dtype=torch.float64) - settings.pop("nearer", 0.0)
    label = [RNG.random() < 0.5 for _ in range(count)]
    label[:2] = [True, False]
    made = trainer(
        KTOTrainer,
        beta=settings.get("beta", 0.1),
        loss_type=settings.get("loss_type", "kto"),
        desirable_weight=settings.get("desirable_weight", 1.0),
        undesirable_weight=settings.get("undesirable_weight", 1.0),
        calculate_KL=settings.get("loss_type", "kto") == "kto",
        precompute_ref_logps=True,
        _compute_kl_logps=lambda *_: mismatched,
    )
    ones = torch.ones(count, 2, dtype=torch.long)
    inputs = {
        "input_ids": ones,
        "attention_mask": ones,
        "completion_mask": ones,
        "label": torch.tensor(label),
        "ref_logps": reference,
        "ref_KL_logps": mismatched_reference,
    }
    loss = made._compute_loss(lambda **_: outputs(leaf[:, None]), inputs, False)
    loss.backward()
    return {
        "objective": {"kind": "kto", **settings},
        "sums": sums.tolist(),
        "reference": reference.tolist(),
        "mismatched": mismatched.tolist(),
        "mismatched_reference": mismatched_reference.tolist(),
        "label": label,
        "loss": loss.item(),
        "gradient": leaf.grad.tolist(),
        "metrics": metrics(made),
    }


def reward(settings, margin, pairs):
    leaf = (torch.randn(2 * pairs, 1, dtype=torch.float64) * 2).requires_grad_()
    made = trainer(RewardTrainer, args=types.SimpleNamespace(**{"center_rewards_coefficient": None, **settings}))
    inputs = {"attention_mask": torch.ones(2 * pairs, 3)}
    margins = torch.rand(pairs, dtype=torch.float64) if margin else None
    if margin:
        inputs["margin"] = margins
    # The trainer hands all inputs to the model.
    loss = made.compute_loss(lambda **_: types.SimpleNamespace(logits=leaf), inputs)
    loss.backward()
    return {
        "objective": {"kind": "reward", **settings},
        "rewards": leaf.flatten().tolist(),
        "margins": margins.tolist() if margin else None,
        "loss": loss.item(),
        "gradient": leaf.grad.flatten().tolist(),
        "accuracy": made._metrics["train"]["accuracy"][-1],
        "margin": made._metrics["train"]["margin"][-1],
    }


def ordinal(grades, texts):
    """Proportional odds by autograd; trl has none. The thresholds rise by exponentials of parameters."""
    scores = (torch.randn(texts, dtype=torch.float64) * 2).requires_grad_()
    parameters = torch.randn(grades - 1, dtype=torch.float64).requires_grad_()
    label = torch.tensor([RNG.randrange(grades) for _ in range(texts)])
    label[:2] = torch.tensor([0, grades - 1])
    thresholds = torch.cat([parameters[:1], parameters[1:].exp()]).cumsum(0)
    below = torch.sigmoid(thresholds[None] - scores[:, None])
    ends = torch.zeros(texts, 1, dtype=torch.float64)
    likely = torch.cat([below, ends + 1], 1) - torch.cat([ends, below], 1)
    loss = -likely.gather(1, label[:, None]).log().mean()
    loss.backward()
    return {
        "grades": grades,
        "scores": scores.tolist(),
        "parameters": parameters.tolist(),
        "thresholds": thresholds.tolist(),
        "label": label.tolist(),
        "loss": loss.item(),
        "gradient": scores.grad.tolist(),
        "gradient_of_parameters": parameters.grad.tolist(),
    }


def main():
    smoothed = ["exo_pair", "robust", "aot", "aot_unpaired"]
    plain = ["sigmoid", "hinge", "ipo", "nca_pair", "bco_pair", "sppo_hard", "apo_zero", "apo_down", "discopop"]
    plain += ["sft", "sigmoid_norm"]
    cases = [{"loss_type": [name]} for name in plain + smoothed[1:]]
    cases += [{"loss_type": [name], "label_smoothing": 0.15, "beta": 0.4} for name in smoothed]
    cases += [{"loss_type": ["discopop"], "beta": 0.3, "discopop_tau": 0.8}]
    cases += [{"loss_type": ["sigmoid", "bco_pair", "sft"], "loss_weights": [0.8, 0.2, 1.5]}]
    for name in ["sigmoid", "sigmoid_norm", "hinge", "ipo", "exo_pair", "robust", "discopop"]:
        for divergence in ["forward_kl", "js_divergence", "alpha_divergence"]:
            smoothing = {"label_smoothing": 0.1} if name in smoothed else {}
            cases.append({"loss_type": [name], "f_divergence_type": divergence, **smoothing})
    cases += [
        {"f_divergence_type": "alpha_divergence", "f_alpha_divergence_coef": coefficient}
        for coefficient in (-0.5, 1.0, 2.0)
    ]
    cases += [{"ld_alpha": 0.3}, {"ld_alpha": 0.0, "loss_type": ["ipo"]}, {"ld_alpha": 0.5, "loss_type": ["sigmoid", "sft"]}]
    answers = {"dpo": [dpo(settings, RNG.randint(1, 5)) for settings in cases]}
    answers["contrast"] = [
        contrast(CPOTrainer, {"kind": "cpo", **settings}, RNG.randint(1, 4))
        for settings in (
            {},
            {"cpo_alpha": 0.0, "label_smoothing": 0.2},
            {"loss_type": "hinge", "beta": 0.5},
            {"loss_type": "ipo", "cpo_alpha": 0.3},
            {"loss_type": "simpo", "beta": 2.0, "simpo_gamma": 0.7, "label_smoothing": 0.1},
            {"alpha": 0.05, "beta": 0.2},
            {"loss_type": "simpo", "alpha": -0.2},
        )
    ]
    answers["contrast"] += [
        contrast(CPOTrainer, {"kind": "simpo", "beta": 2.5, "simpo_gamma": 1.3}, 3),
        contrast(ORPOTrainer, {"kind": "orpo"}, 3),
        contrast(ORPOTrainer, {"kind": "orpo", "beta": 0.7}, 2),
    ]
    answers["kto"] = [
        kto({}, 5),
        kto({"beta": 0.3, "desirable_weight": 1.2, "undesirable_weight": 0.6, "nearer": 3.0}, 6),
        kto({"nearer": -5.0}, 4),
        kto({"loss_type": "apo_zero_unpaired"}, 4),
    ]
    answers["reward"] = [
        reward({}, False, 3),
        reward({}, True, 4),
        reward({"center_rewards_coefficient": 0.01}, True, 2),
    ]
    # Last, so that what is drawn for the others stays as it was. Through its hinge under weights trl has no gradient.
    weighed = [
        {"loss_type": [name], "beta": 0.3} for name in ("sigmoid", "ipo", "nca_pair", "apo_down", "sigmoid_norm")
    ]
    weighed += [{"loss_type": ["sigmoid", "bco_pair"], "loss_weights": [0.8, 0.4]}, {"ld_alpha": 0.3}]
    weighed += [{"loss_type": ["robust"], "label_smoothing": 0.1, "f_divergence_type": "js_divergence"}]
    answers["dpo"] += [dpo({"use_weighting": True, **settings}, RNG.randint(1, 5)) for settings in weighed]
    answers["ordinal"] = [ordinal(2, 3), ordinal(3, 5), ordinal(5, 9), ordinal(11, 17)]
    text = json.dumps(answers, indent=None, separators=(",", ":"))
    Path(__file__).with_name("preference.json").write_text(text + "\n")


main()
