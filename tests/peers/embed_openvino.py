"""Texts to vectors by OpenVINO. A peer of `phyla bench embed`.

python embed_openvino.py --model DIR --texts FILE --dtype bf16

Weights are stored in f32 and computed in --dtype (INFERENCE_PRECISION_HINT). int8 is NNCF's quantisation of weights
and activations, calibrated on the texts themselves, the rest in bf16.
"""

import texts
from peer import need

openvino = need("openvino")


def convert(args):
    """Writes model.xml, once, in a process of its own."""
    torch = need("torch")
    example = dict(ids=torch.ones(2, 8, dtype=torch.int64), mask=torch.ones(2, 8, dtype=torch.int64))
    with torch.no_grad():
        model = openvino.convert_model(texts.module(args.model), example_input=example)
    if args.dtype == "int8":
        nncf, tokenizers = need("nncf", "tokenizers")
        tokenizer = tokenizers.Tokenizer.from_file(str(args.model / "tokenizer.json"))
        tokenizer.no_padding()
        rows = [[encoding.ids] for encoding in tokenizer.encode_batch(texts.read(args.texts)[:128])]
        samples = [dict(ids=row, mask=[[1] * len(row[0])]) for row in rows]
        arrays = nncf.Dataset(samples, lambda sample: {k: torch.tensor(v).numpy() for k, v in sample.items()})
        model = nncf.quantize(model, arrays, model_type=nncf.ModelType.TRANSFORMER, subset_size=128)
    openvino.save_model(model, args.convert / "model.xml", compress_to_fp16=False)


def main():
    args = texts.arguments(__doc__, ["f32", "bf16", "int8"])
    if args.convert:
        return convert(args)
    folder = texts.converted(args, "openvino-int8" if args.dtype == "int8" else "openvino")
    core = openvino.Core()
    hint = "f32" if args.dtype == "f32" else "bf16"
    config = dict(INFERENCE_PRECISION_HINT=hint, INFERENCE_NUM_THREADS=args.threads, PERFORMANCE_HINT="LATENCY")
    model = core.compile_model(folder / "model.xml", "CPU", config)
    request = model.create_infer_request()

    def vectors(ids, mask):
        request.infer([ids, mask])
        return request.get_output_tensor(0).data.copy()

    texts.measure(args, vectors, openvino=openvino.__version__)


if __name__ == "__main__":
    main()
