#!/usr/bin/env python3
"""Makes gtsrb-sample-train.parquet and gtsrb-sample-test.parquet from the full set.

    python make_sample.py /path/to/gtsrb [output folder]

The folder holds the full set as train-*.parquet and test.parquet (columns: image
struct<bytes, path>, label int64, track string). Nothing is random and no image is re-encoded:
rows are chosen by rule and their PNG bytes are copied as they are.

Train: up to 9 tracks of each class, evenly spaced over its tracks; of each track 5 frames (6 where
the class has fewer than 9 tracks), evenly spaced over its later, sharper two thirds. Track
00014_00023 is left out: eight test images of the full set are identical to frames of it.
Test: 12 images of each class, evenly spaced over the class in file-name order.
"""

import collections
import json
import pathlib
import sys

import pyarrow as pa
import pyarrow.parquet as pq

TRACKS = 9
FRAMES = 5
FRAMES_OF_SMALL_CLASS = 6
TEST_IMAGES = 12
EXCLUDED_TRACK = "00014_00023"

NAMES = [
    "Speed limit (20km/h)",
    "Speed limit (30km/h)",
    "Speed limit (50km/h)",
    "Speed limit (60km/h)",
    "Speed limit (70km/h)",
    "Speed limit (80km/h)",
    "End of speed limit (80km/h)",
    "Speed limit (100km/h)",
    "Speed limit (120km/h)",
    "No passing",
    "No passing for vehicles over 3.5 metric tons",
    "Right-of-way at the next intersection",
    "Priority road",
    "Yield",
    "Stop",
    "No vehicles",
    "Vehicles over 3.5 metric tons prohibited",
    "No entry",
    "General caution",
    "Dangerous curve to the left",
    "Dangerous curve to the right",
    "Double curve",
    "Bumpy road",
    "Slippery road",
    "Road narrows on the right",
    "Road work",
    "Traffic signals",
    "Pedestrians",
    "Children crossing",
    "Bicycles crossing",
    "Beware of ice/snow",
    "Wild animals crossing",
    "End of all speed and passing limits",
    "Turn right ahead",
    "Turn left ahead",
    "Ahead only",
    "Go straight or right",
    "Go straight or left",
    "Keep right",
    "Keep left",
    "Roundabout mandatory",
    "End of no passing",
    "End of no passing by vehicles over 3.5 metric tons",
]


def spaced(items, count):
    """`count` items evenly spaced over the list, both ends included; all of a shorter list."""
    if len(items) <= count:
        return list(items)
    return [items[round(i * (len(items) - 1) / (count - 1))] for i in range(count)]


def train_rows(rows):
    """The chosen rows of the training part, in file-name order."""
    tracks = collections.defaultdict(lambda: collections.defaultdict(list))
    for index, (label, track) in enumerate(rows):
        if track != EXCLUDED_TRACK:
            tracks[label][track].append(index)
    chosen = []
    for label in sorted(tracks):
        picked = spaced(sorted(tracks[label]), TRACKS)
        frames = FRAMES if len(picked) == TRACKS else FRAMES_OF_SMALL_CLASS
        for track in picked:
            of_track = tracks[label][track]
            chosen += spaced(of_track[len(of_track) // 3 :], frames)
    return chosen


def test_rows(rows):
    """The chosen rows of the test part, in class and file-name order."""
    classes = collections.defaultdict(list)
    for index, (label, _) in enumerate(rows):
        classes[label].append(index)
    return [index for label in sorted(classes) for index in spaced(classes[label], TEST_IMAGES)]


def main():
    full = pathlib.Path(sys.argv[1])
    out = pathlib.Path(sys.argv[2]) if len(sys.argv) > 2 else pathlib.Path(__file__).parent
    features = {
        "image": {"_type": "Image"},
        "label": {"names": NAMES, "_type": "ClassLabel"},
        "track": {"dtype": "string", "_type": "Value"},
    }
    metadata = {"huggingface": json.dumps({"info": {"features": features}})}
    for part, pattern, choose in [
        ("train", "train-*.parquet", train_rows),
        ("test", "test*.parquet", test_rows),
    ]:
        table = pa.concat_tables(pq.read_table(file) for file in sorted(full.glob(pattern)))
        rows = list(zip(table["label"].to_pylist(), table["track"].to_pylist()))
        sample = table.take(choose(rows)).replace_schema_metadata(metadata)
        target = out / f"gtsrb-sample-{part}.parquet"
        pq.write_table(sample, target, compression="none", row_group_size=2048, use_dictionary=["track"])
        print(f"{target}: {sample.num_rows} images, {target.stat().st_size:,} bytes")


if __name__ == "__main__":
    main()
