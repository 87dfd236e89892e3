#!/usr/bin/env python3
"""A copy of a set in parquet files with N training images of each class, evenly spread over the class in the files' order; the test part stays as it is."""

import argparse
import pathlib
import shutil

import numpy as np
import pyarrow
import pyarrow.parquet


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", type=pathlib.Path)
    parser.add_argument("out", type=pathlib.Path)
    parser.add_argument("images", type=int, help="of each class")
    options = parser.parse_args()
    options.out.mkdir(parents=True)
    table = pyarrow.concat_tables(pyarrow.parquet.read_table(file) for file in sorted(options.data.glob("train*.parquet")))
    labels = table["label"].to_numpy()
    of_class = [np.flatnonzero(labels == label) for label in np.unique(labels)]
    few = [rows[np.linspace(0, len(rows) - 1, min(options.images, len(rows))).astype(int)] for rows in of_class]
    pyarrow.parquet.write_table(table.take(np.sort(np.concatenate(few))), options.out / "train-00000-of-00001.parquet")
    for file in options.data.glob("test*.parquet"):
        shutil.copyfile(file, options.out / file.name)


if __name__ == "__main__":
    main()
