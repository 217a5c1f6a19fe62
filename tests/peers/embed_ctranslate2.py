"""Texts to vectors by CTranslate2. A peer of `phyla bench embed`.

python embed_ctranslate2.py --model DIR --texts FILE --dtype int8

The encoder gives the states of all tokens; their mean is taken here.
"""

import numpy
import texts
from peer import need

ctranslate2 = need("ctranslate2")

KINDS = dict(f32="float32", int8="int8")  # bf16 it takes on a GPU only


def convert(args):
    """Writes the model in CTranslate2's form, once, in a process of its own."""
    need("torch", "transformers")
    converter = ctranslate2.converters.TransformersConverter(str(args.model))
    converter.convert(str(args.convert), quantization=KINDS[args.dtype], force=True)


def main():
    args = texts.arguments(__doc__, ["f32", "int8"])
    if args.convert:
        return convert(args)
    folder = texts.converted(args, f"ctranslate2-{args.dtype}")
    options = dict(device="cpu", compute_type=KINDS[args.dtype], inter_threads=1, intra_threads=args.threads)
    encoder = ctranslate2.Encoder(str(folder), **options)

    def vectors(ids, mask):
        lengths = ctranslate2.StorageView.from_array(mask.sum(1).astype(numpy.int32))
        ids = ctranslate2.StorageView.from_array(ids.astype(numpy.int32))
        states = numpy.asarray(encoder.forward_batch(ids, lengths).last_hidden_state)
        sums = numpy.matmul(mask[:, None, :].astype(numpy.float32), states)[:, 0]  # [rows, hidden]
        return sums / numpy.linalg.norm(sums, axis=1, keepdims=True)

    texts.measure(args, vectors, ctranslate2=ctranslate2.__version__)


if __name__ == "__main__":
    main()
