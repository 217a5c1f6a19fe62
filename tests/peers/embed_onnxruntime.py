"""Texts to vectors by ONNX Runtime. A peer of `phyla bench embed`.

python embed_onnxruntime.py --model DIR --texts FILE --dtype int8

The model is exported from PyTorch once; int8 is the dynamic quantisation of the products' weights.
"""

import texts
from peer import need

onnxruntime = need("onnxruntime")


def convert(args):
    """Writes model.onnx, and its quantised form, once, in a process of its own."""
    torch, _, _ = need("torch", "onnx", "onnxscript")
    example = (torch.ones(2, 8, dtype=torch.int64), torch.ones(2, 8, dtype=torch.int64))
    dims = {0: torch.export.Dim("rows", min=1, max=4096), 1: torch.export.Dim("time", min=2, max=512)}
    plain = args.convert / "model.onnx"
    torch.onnx.export(
        texts.module(args.model),
        example,
        plain,
        dynamo=True,
        external_data=False,
        input_names=["ids", "mask"],
        dynamic_shapes=(dims, dims),
    )
    if args.dtype == "int8":
        quantization = need("onnxruntime.quantization")
        # One scale for a whole matrix, or a quantised table of tokens, is too coarse: cosines fall to 0.81.
        options = dict(weight_type=quantization.QuantType.QInt8, per_channel=True)
        options |= dict(op_types_to_quantize=["MatMul", "Gemm"])
        quantization.quantize_dynamic(plain, args.convert / "int8.onnx", **options)


def main():
    args = texts.arguments(__doc__, ["f32", "int8"])
    if args.convert:
        return convert(args)
    folder = texts.converted(args, f"onnxruntime-{args.dtype}")
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = args.threads, 1
    file = folder / ("int8.onnx" if args.dtype == "int8" else "model.onnx")
    session = onnxruntime.InferenceSession(file, options, providers=["CPUExecutionProvider"])

    def vectors(ids, mask):
        return session.run(None, dict(ids=ids, mask=mask))[0]

    texts.measure(args, vectors, onnxruntime=onnxruntime.__version__)


if __name__ == "__main__":
    main()
