#!/usr/bin/env python3
"""Images a second of ONNX Runtime on the networks that PyTorch exports: inference.

`--export FILE` only writes the model, `--model FILE` measures one that was written before: a process that does not export never
loads PyTorch, so its memory is ONNX Runtime's own. Without either, one process does both.
"""

import os
import tempfile

import numpy as np
import onnxruntime

from measure import INFERENCE_BATCH, command_line, report

SHAPE = (INFERENCE_BATCH, 3, 32, 32)


def export(workload, path):
    import torch

    from networks import Autoencoder, Classifier

    model = {"infer": Classifier, "dae-infer": Autoencoder}[workload]().eval()
    torch.onnx.export(model, (torch.rand(SHAPE),), path, input_names=["images"], external_data=False, verbose=False)


def load(path, threads):
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    return onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])


def main():
    parser = command_line(__doc__, ["infer", "dae-infer"])
    files = parser.add_mutually_exclusive_group()
    files.add_argument("--export", metavar="FILE", help="write the workload's model and stop")
    files.add_argument("--model", metavar="FILE", help="measure this model")
    options = parser.parse_args()
    if options.export:
        export(options.workload, options.export)
        return
    with tempfile.TemporaryDirectory() as folder:
        path = options.model
        if path is None:
            path = os.path.join(folder, "model.onnx")
            export(options.workload, path)
        session = load(path, options.threads)
    images = np.random.default_rng(0).random(SHAPE, dtype=np.float32)
    report(options, INFERENCE_BATCH, lambda: session.run(None, {"images": images}))


if __name__ == "__main__":
    main()
