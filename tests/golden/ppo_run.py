"""Twenty updates of PPO on given completions: five roll-outs, four passes each, written out in torch.

    pip install torch==2.15 transformers==5.23 trl==1.16.0
    python tests/golden/ppo_run.py

Everything that a run computes is here, but for what it draws: log-probabilities at the temperature, values of a head that
begins at zero, the reference, prices that adapt, advantages, losses, clipping, AdamW. Formulas are those of `policy.py`.
"""

import json
from pathlib import Path

import torch
from policy import ppo_advantages, ppo_loss
from transformers import LlamaConfig, LlamaForCausalLM

torch.set_num_threads(1)
torch.set_default_dtype(torch.float32)
FOLDER = Path(__file__).parent / "ppo_run"
SETTINGS = {
    "num_ppo_epochs": 4, "kl_coef": 0.2, "target_kl": 0.5, "horizon": 100.0, "kl_estimator": "k1", "cliprange": 0.2,
    "vf_coef": 0.5, "cliprange_value": 0.2, "ent_coef": 0.01, "gamma": 0.98, "lam": 0.9, "whiten_rewards": True,
}
TEMPERATURE, LR, CLIP, ROWS = 0.8, 3e-3, 1.0, 6


def asked(model, head, rows):
    """Log-probabilities, entropies and values of completions, `[rows, longest]` each."""
    time = max(len(row["ids"]) for row in rows)
    ids = torch.tensor([row["ids"] + [0] * (time - len(row["ids"])) for row in rows])
    mask = torch.tensor([[1] * len(row["ids"]) + [0] * (time - len(row["ids"])) for row in rows])
    out = model(ids, attention_mask=mask, output_hidden_states=True)
    all_logps = (out.logits / TEMPERATURE).log_softmax(-1)
    hidden = out.hidden_states[-1]
    longest = max(len(row["ids"]) - row["given"] for row in rows)
    logps, entropies, values = (torch.zeros(len(rows), longest) for _ in range(3))
    for at, row in enumerate(rows):
        first, last = row["given"] - 1, len(row["ids"]) - 1
        own = all_logps[at, first:last]
        wanted = ids[at, first + 1 : last + 1]
        logps[at, : last - first] = own.gather(1, wanted[:, None])[:, 0]
        entropies[at, : last - first] = -(own.exp() * own).sum(-1)
        if head is not None:
            values[at, : last - first] = head(hidden[at, first:last])[:, 0]
    return logps, entropies, values


def main():
    torch.manual_seed(3)
    config = LlamaConfig(
        vocab_size=96, hidden_size=16, intermediate_size=24, num_hidden_layers=2, num_attention_heads=2,
        num_key_value_heads=1, max_position_embeddings=1024, tie_word_embeddings=False, bos_token_id=None,
        eos_token_id=None, attn_implementation="eager",
    )
    model, reference = LlamaForCausalLM(config), LlamaForCausalLM(config)
    with torch.no_grad():
        for param in model.parameters():
            param.add_(torch.randn_like(param) * 0.15)
    reference.load_state_dict(model.state_dict())
    model.save_pretrained(FOLDER)
    for extra in ("generation_config.json",):
        (FOLDER / extra).unlink(missing_ok=True)
    head = torch.nn.Linear(16, 1)
    torch.nn.init.zeros_(head.weight)
    torch.nn.init.zeros_(head.bias)
    params = [*model.parameters(), *head.parameters()]
    optimizer = torch.optim.AdamW(params, lr=LR, betas=(0.9, 0.95), eps=1e-8, weight_decay=0.0)
    generator = torch.Generator().manual_seed(11)
    draw = lambda low, high, n: torch.randint(low, high, (n,), generator=generator).tolist()  # noqa: E731
    price, rollouts = SETTINGS["kl_coef"], []
    for _ in range(5):
        rows = []
        for _ in range(ROWS):
            given, length = draw(1, 5, 1)[0], draw(1, 8, 1)[0]
            rows.append({"ids": draw(1, 96, given + length), "given": given})
        rewards = (torch.randn(ROWS, generator=generator) * 2).tolist()
        lengths = [len(row["ids"]) - row["given"] for row in rows]
        with torch.no_grad():
            old, _, old_values = asked(model, head, rows)
            known, _, _ = asked(reference, None, rows)
        settings = {**SETTINGS, "kl_coef": price}
        advantages, returns, mask = ppo_advantages(old, known, old_values, rewards, lengths, settings)
        divergence = ((old - known) * mask).sum(1).mean().item()
        steps = []
        for _ in range(SETTINGS["num_ppo_epochs"]):
            optimizer.zero_grad()
            logps, entropies, values = asked(model, head, rows)
            policy, value = ppo_loss(logps, entropies, values, old, old_values, advantages, returns, mask, settings)
            (policy + value).backward()
            norm = torch.nn.utils.clip_grad_norm_(params, CLIP)
            optimizer.step()
            steps.append({"loss": (policy + value).item(), "grad_norm": norm.item()})
        rollouts.append({"completions": rows, "rewards": rewards, "kl_coef": price, "kl": divergence, "steps": steps})
        error = min(max(divergence / SETTINGS["target_kl"] - 1, -0.2), 0.2)
        price *= 1 + error * ROWS / SETTINGS["horizon"]
    run = {"settings": SETTINGS, "temperature": TEMPERATURE, "lr": LR, "clip": CLIP, "rollouts": rollouts}
    (FOLDER / "run.json").write_text(json.dumps(run) + "\n")
    print([step["loss"] for rollout in rollouts for step in rollout["steps"]])


if __name__ == "__main__":
    main()
