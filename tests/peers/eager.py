"""Prompts, decoding and beam search by transformers, PyTorch's eager mode. The peer of `phyla bench prefill` and
`phyla bench decode`.

python eager.py prefill --model DIR --dtype bf16 --prompt-tokens 256
python eager.py decode --model config.json --dtype bf16 --prompt-tokens 64 --new-tokens 32
python eager.py beams --model config.json --dtype bf16 --prompt-tokens 64 --new-tokens 200 --beams 4

A prompt is read into an empty cache and answered for its last token; decoding feeds back the most probable id. Beams are
those of `generate`, up to the limit: a step is the mean of a whole search, its first pass left out.
"""

import argparse
import logging
import sys
import time
from pathlib import Path

from peer import MISSING, need, report, seconds_of

torch, transformers = need("torch", "transformers")


def open_model(args):
    dtype = dict(f32=torch.float32, bf16=torch.bfloat16)[args.dtype]
    if args.model.is_dir():
        return transformers.AutoModelForCausalLM.from_pretrained(args.model, dtype=dtype).eval()
    if args.model.suffix != ".json":
        print(f"eager.py reads folders and configurations, and {args.model} is neither", file=sys.stderr)
        sys.exit(MISSING)
    config = transformers.AutoConfig.from_pretrained(args.model)
    return transformers.AutoModelForCausalLM.from_config(config, dtype=dtype).eval()


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["prefill", "decode", "beams"])
    parser.add_argument("--model", type=Path, required=True, help="a folder, or a config.json for random weights")
    parser.add_argument("--dtype", choices=["f32", "bf16"], default="bf16")
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--prompt-tokens", type=int)
    parser.add_argument("--new-tokens", type=int, default=32)
    parser.add_argument("--beams", type=int, default=4)
    parser.add_argument("--steps", type=int, help="prompts that are timed (5), or how often all is decoded (1)")
    parser.add_argument("--threads", type=int, default=2)
    args = parser.parse_args()
    transformers.logging.disable_progress_bar()
    logging.getLogger("transformers").setLevel(logging.ERROR)
    torch.set_num_threads(args.threads)
    torch.manual_seed(0)
    model, decoding, warm_up = open_model(args), args.what != "prefill", 2
    prompt = args.prompt_tokens or (64 if decoding else 256)
    prompts = torch.randint(model.config.vocab_size, (args.batch, prompt))
    settings = dict(batch=args.batch, prompt_tokens=prompt, dtype=args.dtype, threads=args.threads)
    settings |= dict(torch=torch.__version__, transformers=transformers.__version__)

    def read(ids, cache):
        """The most probable next ids, [rows, 1], and the cache behind them."""
        out = model(input_ids=ids, past_key_values=cache, use_cache=True, logits_to_keep=1)
        return out.logits[:, -1].argmax(-1, keepdim=True), out.past_key_values

    def search(new):
        """Seconds of a step of a search."""
        stamps = []

        def clock(ids, scores, **_):
            stamps.append(time.perf_counter())
            return torch.zeros(ids.shape[0], dtype=torch.bool)

        # Nothing ends a beam but the limit.
        model.generation_config = transformers.GenerationConfig(pad_token_id=0)
        model.generate(
            prompts,
            attention_mask=torch.ones_like(prompts),
            num_beams=args.beams,
            do_sample=False,
            max_new_tokens=new,
            stopping_criteria=transformers.StoppingCriteriaList([clock]),
        )
        return (stamps[-1] - stamps[0]) / (len(stamps) - 1)

    with torch.inference_mode():
        if args.what == "beams":
            search(warm_up)
            seconds = [search(args.new_tokens) for _ in range(args.steps or 1)]
            report("decode", args.batch, seconds, beams=args.beams, new_tokens=args.new_tokens, **settings)
            return
        if not decoding:
            seconds = seconds_of(lambda: read(prompts, None), args.steps or 5)
            report("prefill", args.batch * prompt, seconds, **settings)
            return
        seconds = []
        for _ in range(args.steps or 1):
            ids, cache = read(prompts, None)
            for step in range(warm_up + args.new_tokens):
                start = time.perf_counter()
                ids, cache = read(ids, cache)
                if step >= warm_up:
                    seconds.append(time.perf_counter() - start)
    report("decode", args.batch, seconds, new_tokens=args.new_tokens, **settings)


if __name__ == "__main__":
    main()
