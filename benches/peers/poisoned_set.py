#!/usr/bin/env python3
"""What `limbeck poison` wrote as arrays, so that programs without a parquet reader judge the same images.

`poisoned_set.py FOLDER OUT.npz` reads FOLDER/set, FOLDER/trusted and FOLDER/truth.csv, and prints which audited images are poisoned, in the order of the arrays.
As a module, `load` reads OUT.npz back.
"""

import argparse
import csv
import io
import json
import pathlib

import numpy as np

SIDE = 32


def load(path):
    """Audited images `[n, 32, 32, 3]` in [0, 1] with their labels, and trusted images."""
    with np.load(path) as arrays:
        audited, trusted = (arrays[name].astype(np.float32) / 255 for name in ("audited", "trusted"))
        return audited, arrays["labels"], trusted


def rows(folder):
    import pyarrow.parquet
    from PIL import Image

    paths, labels, images = [], [], []
    for file in sorted(folder.glob("train*.parquet")):
        for row in pyarrow.parquet.read_table(file, columns=["image", "label"]).to_pylist():
            image = Image.open(io.BytesIO(row["image"]["bytes"])).convert("RGB")
            images.append(np.asarray(image.resize((SIDE, SIDE), Image.BILINEAR), dtype=np.uint8))
            paths.append(row["image"]["path"])
            labels.append(row["label"])
    return paths, np.array(labels, dtype=np.int64), np.stack(images)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=pathlib.Path)
    parser.add_argument("out", type=pathlib.Path)
    options = parser.parse_args()
    with open(options.folder / "truth.csv", newline="") as file:
        truth = {row["path"]: row["poisoned"] == "true" for row in csv.DictReader(file)}
    paths, labels, audited = rows(options.folder / "set")
    np.savez(options.out, audited=audited, labels=labels, trusted=rows(options.folder / "trusted")[2])
    print(json.dumps({"poisoned": [truth[path] for path in paths]}))


if __name__ == "__main__":
    main()
