"""Prompts and decoding by llama.cpp, through llama-cpp-python's low-level calls. The peer of `phyla bench prefill` and
`phyla bench decode`.

python llama.py prefill --model MODEL.gguf --prompt-tokens 256 --threads 2 --flash-attn on
python llama.py decode --model MODEL.gguf --prompt-tokens 64 --new-tokens 32 --threads 2 --flash-attn on

The clock is around `llama_decode` and the choice of the most probable id, as in ours: a prompt is read into an empty
cache and answered for its last token; decoding feeds back what was chosen. The cache is f16 (--cache-type f32 for
ours), n_batch and n_ubatch are 512.

If it dies of a segmentation fault on a machine with AMX, GCC has dropped the stores to the tiles' configuration that ggml
builds on the stack. Build the package with the CMAKE_ARGS that requirements.txt names, or give --no-repack, which leaves
out AMX and the repacked formats.
"""

import argparse
import sys
import time

from peer import MISSING, need, report, seconds_of

llama = need("llama_cpp")
numpy = need("numpy")


class Session:
    """A model, its context, and a batch that is filled anew for each pass."""

    def __init__(self, args, tokens: int):
        llama.llama_backend_init()
        if not args.verbose:
            self.silence = llama.llama_log_callback(lambda *_: None)
            llama.llama_log_set(self.silence, None)
        params = llama.llama_model_default_params()
        params.n_gpu_layers, params.use_mmap = 0, not args.no_mmap
        params.use_extra_bufts = not args.no_repack
        self.model = llama.llama_model_load_from_file(args.model.encode(), params)
        if not self.model:
            raise SystemExit(f"llama.cpp cannot open `{args.model}`; --verbose prints why")
        self.vocab = llama.llama_vocab_n_tokens(llama.llama_model_get_vocab(self.model))
        params = llama.llama_context_default_params()
        params.n_ctx, params.n_batch, params.n_ubatch = tokens, args.n_batch, args.n_batch
        params.n_threads = params.n_threads_batch = args.threads
        params.flash_attn_type = dict(auto=-1, off=0, on=1)[args.flash_attn]
        params.type_k = params.type_v = dict(f32=0, f16=1)[args.cache_type]
        params.no_perf = True
        self.context = llama.llama_init_from_model(self.model, params)
        if not self.context:
            raise SystemExit(f"llama.cpp makes no context of {tokens} tokens; --verbose prints why")
        self.n_batch = args.n_batch
        self.batch = llama.llama_batch_init(args.n_batch, 0, 1)
        self.past = 0

    def clear(self):
        llama.llama_memory_clear(llama.llama_get_memory(self.context), True)
        self.past = 0

    def read(self, ids) -> int:
        """Puts ids behind the cache and gives the most probable next id, in pieces of n_batch."""
        for start in range(0, len(ids), self.n_batch):
            piece = ids[start : start + self.n_batch]
            self.batch.n_tokens = len(piece)
            for at, id in enumerate(piece):
                self.batch.token[at], self.batch.pos[at] = id, self.past + at
                self.batch.n_seq_id[at], self.batch.seq_id[at][0] = 1, 0
                self.batch.logits[at] = start + at + 1 == len(ids)
            if (code := llama.llama_decode(self.context, self.batch)) != 0:
                raise SystemExit(f"llama_decode gives {code}")
            self.past += len(piece)
        logits = llama.llama_get_logits_ith(self.context, -1)
        return int(numpy.ctypeslib.as_array(logits, (self.vocab,)).argmax())


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["prefill", "decode"])
    parser.add_argument("--model", required=True, help="a GGUF file")
    parser.add_argument("--prompt-tokens", type=int)
    parser.add_argument("--new-tokens", type=int, default=32)
    parser.add_argument("--steps", type=int, help="prompts that are timed (5), or how often all is decoded (1)")
    parser.add_argument("--batch", type=int, default=1, help="this script reads and writes one sequence")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--flash-attn", choices=["auto", "off", "on"], default="auto")
    parser.add_argument("--cache-type", choices=["f16", "f32"], default="f16")
    parser.add_argument("--n-batch", type=int, default=512, help="n_batch and n_ubatch")
    parser.add_argument("--no-mmap", action="store_true", help="read the weights, do not map them")
    parser.add_argument("--no-repack", action="store_true", help="leave the weights as they are stored")
    parser.add_argument("--verbose", action="store_true", help="llama.cpp's own log, on stderr")
    args = parser.parse_args()
    if args.batch != 1:
        print("llama.py reads and writes one sequence at a time", file=sys.stderr)
        sys.exit(MISSING)
    decoding, warm_up = args.what == "decode", 2
    prompt = args.prompt_tokens or (64 if decoding else 256)
    session = Session(args, prompt + decoding * (warm_up + args.new_tokens) + 1)
    ids = numpy.random.default_rng(0).integers(session.vocab, size=prompt).tolist()
    settings = dict(batch=1, prompt_tokens=prompt, threads=args.threads, flash_attn=args.flash_attn)
    settings |= dict(cache_type=args.cache_type, mmap=not args.no_mmap, repack=not args.no_repack)
    settings |= dict(llama_cpp_python=llama.__version__)

    def prefill():
        session.clear()
        session.read(ids)

    if not decoding:
        report("prefill", prompt, seconds_of(prefill, args.steps or 5), **settings)
        return
    seconds = []
    for _ in range(args.steps or 1):
        session.clear()
        next = session.read(ids)
        for step in range(warm_up + args.new_tokens):
            start = time.perf_counter()
            next = session.read([next])
            if step >= warm_up:
                seconds.append(time.perf_counter() - start)
    report("decode", 1, seconds, new_tokens=args.new_tokens, **settings)


if __name__ == "__main__":
    main()
