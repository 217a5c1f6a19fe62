"""How transformers' routers choose and weigh experts, and what the balance losses say: `routing.json`.

The routers run with the identity as their weight, so that their input is the logits. DeepSeek-V2's balance losses are
written out from the paper (eq. 23-31), since transformers leaves them out.
"""

import json

import torch
from transformers.models.deepseek_v2 import DeepseekV2Config
from transformers.models.deepseek_v2.modeling_deepseek_v2 import DeepseekV2TopkRouter
from transformers.models.mixtral import MixtralConfig
from transformers.models.mixtral.modeling_mixtral import MixtralTopKRouter, load_balancing_loss_func
from transformers.models.qwen2_moe import Qwen2MoeConfig
from transformers.models.qwen2_moe.modeling_qwen2_moe import Qwen2MoeTopKRouter
from transformers.models.qwen3_moe import Qwen3MoeConfig
from transformers.models.qwen3_moe.modeling_qwen3_moe import Qwen3MoeTopKRouter

from common import HERE, seed_of


def numbers(tensor: torch.Tensor) -> list:
    return [float(f"{value:.9g}") for value in tensor.detach().flatten().tolist()]


def random(name: str, *shape: int) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed_of(name)))


def routers():
    """Name, router, and the same in our words."""
    sizes = dict(num_hidden_layers=1, vocab_size=8, num_attention_heads=1)
    for experts, k in [(8, 2), (4, 4), (1, 1)]:
        config = MixtralConfig(num_local_experts=experts, num_experts_per_tok=k, hidden_size=experts, **sizes)
        yield f"mixtral-{experts}-{k}", MixtralTopKRouter(config), dict(top_k=k, renormalise=True)
    qwen = [("qwen2_moe", Qwen2MoeConfig, Qwen2MoeTopKRouter), ("qwen3_moe", Qwen3MoeConfig, Qwen3MoeTopKRouter)]
    for family, kind, router in qwen:
        for renormalise in [False, True]:
            config = kind(num_experts=12, num_experts_per_tok=4, hidden_size=12, norm_topk_prob=renormalise, **sizes)
            yield f"{family}-{renormalise}", router(config), dict(top_k=4, renormalise=renormalise)
    for method, groups, top, scale in [
        ("greedy", None, None, 1.0),
        ("greedy", None, None, 16.0),
        ("group_limited_greedy", 4, 2, 16.0),
        ("group_limited_greedy", 8, 3, 1.0),
    ]:
        config = DeepseekV2Config(
            n_routed_experts=16,
            num_experts_per_tok=3,
            hidden_size=16,
            topk_method=method,
            n_group=groups,
            topk_group=top,
            routed_scaling_factor=scale,
            **sizes,
        )
        ours = dict(top_k=3, renormalise=False, scale=scale)
        if groups:
            ours["groups"] = [groups, top]
        yield f"deepseek_v2-{method}-{groups}-{scale}", DeepseekV2TopkRouter(config), ours


def routing(name, router, ours, rows=5):
    experts = router.weight.shape[0]
    with torch.no_grad():
        router.weight.copy_(torch.eye(experts))
    logits = (1.5 * random(name, rows, experts)).requires_grad_()
    _, weights, chosen = router(logits)
    # transformers leaves the order open; ours is the best first.
    order = weights.argsort(dim=-1, descending=True, stable=True)
    weights, chosen = weights.gather(1, order), chosen.gather(1, order)
    up = random(name + " up", *weights.shape)
    (weights * up).sum().backward()
    return dict(
        name=name,
        rows=rows,
        experts=experts,
        routing=ours,
        logits=numbers(logits),
        up=numbers(up),
        weights=numbers(weights),
        chosen=chosen.flatten().tolist(),
        dlogits=numbers(logits.grad),
    )


def switch(name, layers, rows, experts, k, mask):
    logits = [random(f"{name} {layer}", rows, experts).requires_grad_() for layer in range(layers)]
    mask = torch.tensor(mask).reshape(1, -1) if mask else None
    loss = load_balancing_loss_func(tuple(logits), experts, k, mask)
    loss.backward()
    return dict(
        name=name,
        rows=rows,
        experts=experts,
        top_k=k,
        mask=mask.flatten().tolist() if mask is not None else None,
        logits=[numbers(layer) for layer in logits],
        loss=numbers(loss)[0],
        dlogits=[numbers(layer.grad) for layer in logits],
    )


def deepseek(kind, sequences, time, experts, k, devices, limit):
    name = f"{kind}-{sequences}-{time}-{experts}"
    logits = random(name, sequences * time, experts).requires_grad_()
    probs = logits.softmax(-1).view(sequences, time, experts)
    chosen = probs.topk(k, dim=-1).indices
    hit = torch.zeros(sequences, time, experts).scatter(2, chosen, 1.0)
    mean = probs.mean(1)
    frequency = experts / (k * time) * hit.sum(1)
    if kind != "expert":
        mean = mean.view(sequences, devices, -1).sum(-1)
        frequency = frequency.view(sequences, devices, -1).mean(-1)
    if kind == "communication":
        sent = hit.view(sequences, time, devices, -1).amax(-1)
        frequency = devices / (limit * time) * sent.sum(1)
    loss = (frequency * mean).sum(1).mean()
    loss.backward()
    return dict(
        kind=kind,
        sequences=sequences,
        time=time,
        experts=experts,
        top_k=k,
        devices=devices,
        limit=limit,
        logits=numbers(logits),
        loss=numbers(loss)[0],
        dlogits=numbers(logits.grad),
    )


def main():
    found = dict(
        routing=[routing(*case) for case in routers()],
        switch=[
            switch("one layer", 1, 6, 8, 2, None),
            switch("three layers", 3, 5, 4, 1, None),
            switch("padding", 2, 6, 8, 2, [0, 0, 1, 1, 1, 0]),
        ],
        deepseek=[
            deepseek("expert", 1, 6, 8, 2, 8, 1),
            deepseek("expert", 3, 4, 8, 3, 8, 1),
            deepseek("device", 2, 5, 12, 4, 3, 2),
            deepseek("communication", 2, 5, 12, 4, 3, 2),
        ],
    )
    lines = [f'"{key}": [\n' + ",\n".join(json.dumps(case) for case in cases) + "\n]" for key, cases in found.items()]
    (HERE / "routing.json").write_text("{\n" + ",\n".join(lines) + "\n}\n")


if __name__ == "__main__":
    main()
