"""Losses of policies on fixed tensors: what trl 1.16 makes of them, and of PPO and advantages a plain reference in torch.

    pip install torch==2.15 transformers==5.23 trl==1.16.0
    python tests/golden/policy.py

GRPO and RLOO are computed by trl's own `_compute_loss`, called on a stand-in for the trainer that hands it the tensors. PPO is
written out here from Schulman et al. 2017 (eq. 7) and InstructGPT, since trl has it no longer.
"""

import json
import types
from collections import defaultdict
from pathlib import Path

import torch
from trl import GRPOTrainer, RLOOTrainer

torch.set_num_threads(1)
torch.set_default_dtype(torch.float64)
HERE = Path(__file__).parent


class One:
    """An accelerator of one process."""

    num_processes, sync_gradients = 1, True
    gather = staticmethod(lambda x: x)
    reduce = staticmethod(lambda x, *_, **__: x)
    pad_across_processes = staticmethod(lambda x, **_: x)


def rows(generator, lengths, scale=1.0, negative=False):
    out = torch.zeros(len(lengths), max(lengths))
    for at, length in enumerate(lengths):
        x = torch.randn(length, generator=generator) * scale
        out[at, :length] = -x.abs() if negative else x
    return out


def flat(x, mask):
    return x[mask.bool()].tolist()


def grpo_case(generator, lengths, left_out, settings):
    mask = torch.zeros(len(lengths), max(lengths))
    for at, length in enumerate(lengths):
        mask[at, :length] = 1
    every = mask.clone()
    for at in left_out:
        mask[at] = 0
    logps = rows(generator, lengths, 2.0, negative=True).requires_grad_()
    # Numbers of f32, since trl takes its quantiles in that.
    entropies = rows(generator, lengths, 1.0).abs().float().double().requires_grad_()
    old = (logps + rows(generator, lengths, 0.3)).detach()
    reference = (logps + rows(generator, lengths, 0.4)).detach()
    advantages = torch.randn(len(lengths), generator=generator)
    s = {
        "loss_type": "dapo", "importance_sampling_level": "token", "epsilon": 0.2, "epsilon_high": None, "delta": None,
        "beta": 0.0, "top_entropy_quantile": 1.0, "entropy_coef": 0.0, "sapo_temperature_neg": 1.05,
        "sapo_temperature_pos": 1.0, "max_completion_length": 16, **settings,
    }
    fake = types.SimpleNamespace(
        aux_loss_enabled=False, top_entropy_quantile=s["top_entropy_quantile"], off_policy_mask_threshold=None,
        importance_sampling_level=s["importance_sampling_level"], beta=s["beta"], loss_type=s["loss_type"],
        epsilon_low=s["epsilon"], epsilon_high=s["epsilon"] if s["epsilon_high"] is None else s["epsilon_high"],
        use_vllm=False, vllm_importance_sampling_correction=False, model=types.SimpleNamespace(training=True),
        current_gradient_accumulation_steps=1, max_completion_length=s["max_completion_length"], accelerator=One(),
        _entropy_bonus_enabled=s["entropy_coef"] != 0, use_adaptive_entropy=False, entropy_coef=s["entropy_coef"],
        _metrics=defaultdict(lambda: defaultdict(list)),
        args=types.SimpleNamespace(
            use_bias_correction_kl=False, delta=s["delta"], steps_per_generation=1,
            sapo_temperature_neg=s["sapo_temperature_neg"], sapo_temperature_pos=s["sapo_temperature_pos"],
        ),
    )
    fake.get_high_entropy_mask = types.MethodType(GRPOTrainer.get_high_entropy_mask, fake)
    fake._get_per_token_logps_and_entropies = lambda *_, **__: (logps, entropies, None)
    ids = torch.zeros(len(lengths), max(lengths), dtype=torch.long)
    prompt = torch.zeros(len(lengths), 1, dtype=torch.long)
    inputs = {
        "prompt_ids": prompt, "prompt_mask": torch.ones_like(prompt), "completion_ids": ids, "completion_mask": mask,
        "advantages": advantages, "old_per_token_logps": old, "ref_per_token_logps": reference,
        "num_items_in_batch": mask.sum(),
    }
    loss = GRPOTrainer._compute_loss(fake, None, inputs)
    loss.backward()
    metrics = {k: v[0] for k, v in fake._metrics["train"].items() if k in ("kl", "entropy", "clip_ratio/region_mean")}
    own = {k: v for k, v in s.items() if k != "max_completion_length" and v is not None}
    own["rollout"] = {"max_completion_length": s["max_completion_length"]}
    spread = advantages.unsqueeze(1).expand(-1, max(lengths))
    return {
        "settings": own, "lengths": lengths, "left_out": [at in left_out for at in range(len(lengths))],
        "log_probs": flat(logps.detach(), every), "entropies": flat(entropies.detach(), every), "old": flat(old, every),
        "reference": flat(reference, every) if s["beta"] else [], "advantages": flat(spread, every),
        "tokens_per_update": mask.sum().item(), "loss": loss.item(), "by_log_prob": flat(logps.grad, every),
        "by_entropy": flat(entropies.grad if entropies.grad is not None else torch.zeros_like(old), every), "metrics": metrics,
    }


def rloo_case(generator, lengths, settings):
    mask = torch.zeros(len(lengths), max(lengths))
    for at, length in enumerate(lengths):
        mask[at, :length] = 1
    logps = rows(generator, lengths, 2.0, negative=True).requires_grad_()
    entropies = rows(generator, lengths, 1.0).abs()
    old = (logps + rows(generator, lengths, 0.1)).detach()
    advantages = torch.randn(len(lengths), generator=generator)
    fake = types.SimpleNamespace(
        aux_loss_enabled=False, model=types.SimpleNamespace(training=True), accelerator=One(),
        epsilon_low=settings["epsilon"], epsilon_high=settings.get("epsilon_high", settings["epsilon"]),
        _metrics=defaultdict(lambda: defaultdict(list)),
    )
    fake._get_per_token_logps_and_entropies = lambda *_, **__: (logps, entropies, None)
    ids = torch.zeros(len(lengths), max(lengths), dtype=torch.long)
    prompt = torch.zeros(len(lengths), 1, dtype=torch.long)
    inputs = {
        "prompt_ids": prompt, "prompt_mask": torch.ones_like(prompt), "completion_ids": ids, "completion_mask": mask,
        "advantages": advantages, "old_logps": (old * mask).sum(1),
    }
    loss = RLOOTrainer._compute_loss(fake, None, inputs)
    loss.backward()
    spread = advantages.unsqueeze(1).expand(-1, max(lengths))
    return {
        "settings": settings, "lengths": lengths, "left_out": [False] * len(lengths), "log_probs": flat(logps.detach(), mask),
        "entropies": flat(entropies, mask), "old": flat(old, mask), "reference": [], "advantages": flat(spread, mask),
        "tokens_per_update": mask.sum().item(), "loss": loss.item(), "by_log_prob": flat(logps.grad, mask),
        "by_entropy": [0.0] * int(mask.sum()),
        "metrics": {"clip_ratio/region_mean": fake._metrics["train"]["clip_ratio/region_mean"][0]},
    }


def masked_mean(x, mask):
    return (x * mask).sum() / mask.sum()


def whiten(x, mask, shift_mean=True):
    mean = masked_mean(x, mask)
    variance = masked_mean((x - mean) ** 2, mask) * mask.sum() / (mask.sum() - 1)
    white = (x - mean) * torch.rsqrt(variance + 1e-8)
    return white if shift_mean else white + mean


def ppo_advantages(old, reference, values, rewards, lengths, s):
    """Rewards at the last token, the price of divergence at each; GAE from the end; whitened over all."""
    mask = torch.zeros_like(old)
    for at, length in enumerate(lengths):
        mask[at, :length] = 1
    gap = old - reference
    kl = gap if s["kl_estimator"] == "k1" else torch.exp(-gap) - 1 + gap
    scores = -s["kl_coef"] * kl * mask
    for at, length in enumerate(lengths):
        scores[at, length - 1] += rewards[at]
    if s["whiten_rewards"]:
        scores = whiten(scores, mask, shift_mean=False) * mask
    advantages = torch.zeros_like(old)
    for at, length in enumerate(lengths):
        last = 0.0
        for t in reversed(range(length)):
            following = values[at, t + 1] if t + 1 < length else 0.0
            delta = scores[at, t] + s["gamma"] * following - values[at, t]
            last = delta + s["gamma"] * s["lam"] * last
            advantages[at, t] = last
    returns = (advantages + values) * mask
    return whiten(advantages, mask) * mask, returns, mask


def ppo_loss(logps, entropies, values, old, old_values, advantages, returns, mask, s):
    ratio = torch.exp(logps - old)
    free = -advantages * ratio
    held = -advantages * torch.clamp(ratio, 1 - s["cliprange"], 1 + s["cliprange"])
    policy = masked_mean(torch.max(free, held), mask) - s["ent_coef"] * masked_mean(entropies, mask)
    near = torch.clamp(values, old_values - s["cliprange_value"], old_values + s["cliprange_value"])
    value = 0.5 * masked_mean(torch.max((values - returns) ** 2, (near - returns) ** 2), mask)
    return policy, s["vf_coef"] * value


PPO = {
    "kl_coef": 0.05, "kl_estimator": "k1", "cliprange": 0.2, "vf_coef": 0.1, "cliprange_value": 0.2, "ent_coef": 0.0,
    "gamma": 1.0, "lam": 0.95, "whiten_rewards": False,
}


def ppo_case(generator, lengths, settings):
    s = {**PPO, **settings}
    logps = rows(generator, lengths, 2.0, negative=True).requires_grad_()
    entropies = rows(generator, lengths, 1.0).abs().requires_grad_()
    values = rows(generator, lengths, 1.0).requires_grad_()
    old = (logps + rows(generator, lengths, 0.3)).detach()
    reference = (old + rows(generator, lengths, 0.4)).detach()
    old_values = (values + rows(generator, lengths, 0.3)).detach()
    rewards = torch.randn(len(lengths), generator=generator) * 2
    advantages, returns, mask = ppo_advantages(old, reference, old_values, rewards, lengths, s)
    policy, value = ppo_loss(logps, entropies, values, old, old_values, advantages, returns, mask, s)
    (policy + value).backward()
    return {
        "settings": s, "lengths": lengths, "rewards": rewards.tolist(), "log_probs": flat(logps.detach(), mask),
        "entropies": flat(entropies.detach(), mask), "values": flat(values.detach(), mask), "old": flat(old, mask),
        "reference": flat(reference, mask), "old_values": flat(old_values, mask), "advantages": flat(advantages, mask),
        "returns": flat(returns, mask), "policy": policy.item(), "value": value.item(),
        "by_log_prob": flat(logps.grad, mask), "by_value": flat(values.grad, mask),
        "by_entropy": flat(entropies.grad if entropies.grad is not None else torch.zeros_like(old), mask),
    }


def group_cases(generator):
    """Advantages as trl's `_generate_and_score_completions` computes them."""
    cases = []
    for group, scale in [(2, "group"), (4, "group"), (4, "batch"), (3, "none")]:
        rewards = torch.randn(12, generator=generator)
        if group == 4:
            rewards[:4] = 1.5
        by = rewards.view(-1, group)
        mean = by.mean(1).repeat_interleave(group)
        std = by.std(1).repeat_interleave(group) if scale == "group" else rewards.std().expand_as(rewards)
        advantages = rewards - mean
        if scale != "none":
            advantages = advantages / (std + 1e-4)
        left = (by.sum(1, keepdim=True) - by) / (group - 1)
        alone = (by - left).view(-1)
        white = (alone - alone.mean()) / (alone.std() + 1e-4)
        cases.append({
            "group": group, "scale": scale, "rewards": rewards.tolist(), "advantages": advantages.tolist(),
            "leave_one_out": alone.tolist(), "normalized": white.tolist(),
        })
    return cases


def main():
    generator = torch.Generator().manual_seed(7)
    variants = [{"loss_type": name} for name in ("grpo", "bnpo", "dr_grpo", "dapo", "sapo", "luspo")]
    variants += [{"loss_type": "cispo", "epsilon_high": 1.3}]
    variants += [{"loss_type": name, "importance_sampling_level": "sequence"} for name in ("grpo", "dapo", "luspo", "sapo")]
    variants += [{"loss_type": "cispo", "epsilon_high": 1.1, "importance_sampling_level": "sequence"}]
    variants += [
        {"beta": 0.04}, {"loss_type": "grpo", "beta": 0.3, "epsilon_high": 0.28}, {"delta": 1.4},
        {"entropy_coef": 0.01}, {"top_entropy_quantile": 0.3}, {"top_entropy_quantile": 0.5, "entropy_coef": 0.02},
        {"top_entropy_quantile": 0.35, "importance_sampling_level": "sequence", "beta": 0.1},
    ]
    shapes = [([5, 3, 7, 1], []), ([4], []), ([2, 6, 3], [1])]
    grpo = [grpo_case(generator, *shape, settings) for settings in variants for shape in shapes]
    rloo = [
        rloo_case(generator, lengths, settings)
        for settings in ({"epsilon": 0.2}, {"epsilon": 0.1, "epsilon_high": 0.4})
        for lengths in ([5, 3, 7, 1], [4], [2, 6, 3])
    ]
    ppo = [
        ppo_case(generator, lengths, settings)
        for settings in (
            {}, {"kl_estimator": "k3", "kl_coef": 0.2}, {"whiten_rewards": True}, {"gamma": 0.9, "lam": 0.8, "ent_coef": 0.01},
            {"cliprange": 0.05, "cliprange_value": 0.05, "vf_coef": 1.0},
        )
        for lengths in ([5, 3, 7, 1], [4], [2, 6, 3])
    ]
    out = {"grpo": grpo, "rloo": rloo, "ppo": ppo, "groups": group_cases(generator)}
    (HERE / "policy.json").write_text(json.dumps(out) + "\n")
    print(len(grpo), len(rloo), len(ppo), len(out["groups"]))


if __name__ == "__main__":
    main()
