#!/usr/bin/env python3
"""Loads a parquet set that limbeck wrote with the Hugging Face `datasets` library.

    pip install datasets pillow
    python check_datasets_roundtrip.py FOLDER

Prints the rows and features of each part. Exit code 1 if there is no parquet file, if `datasets`
cannot load it, or if an image cannot be decoded.
"""

import pathlib
import sys
import tempfile

from datasets import Image, load_dataset


def parts(folder):
    """Parquet files by part, from the part's word in the file name."""
    words = {"train": "train", "test": "test", "validation": "validation", "val": "validation"}
    found = {}
    for file in sorted(folder.rglob("*.parquet")):
        stem = file.stem.replace("_", "-").split("-")
        part = next((words[word] for word in stem if word in words), "train")
        found.setdefault(part, []).append(str(file))
    return found


def check(folder):
    files = parts(folder)
    if not files:
        raise FileNotFoundError(f"no parquet file below {folder}")
    with tempfile.TemporaryDirectory() as cache:
        loaded = load_dataset("parquet", data_files=files, cache_dir=cache)
        for part, rows in loaded.items():
            print(f"{part}: {len(rows)} rows")
            print(f"  features: {rows.features}")
            decoded = rows if isinstance(rows.features["image"], Image) else rows.cast_column("image", Image())
            sizes = {row["image"].convert("RGB").size for row in decoded}
            print(f"  every image decodes; sizes: {sorted(sizes)[:5]}{' …' if len(sizes) > 5 else ''}")
            print(f"  labels: {min(rows['label'])} to {max(rows['label'])}")


def main():
    if len(sys.argv) != 2:
        print(__doc__, file=sys.stderr)
        return 2
    try:
        check(pathlib.Path(sys.argv[1]))
    except Exception as error:  # whatever stops `datasets` is the finding
        print(f"does not load: {type(error).__name__}: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
