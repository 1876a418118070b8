# ---
# jupyter:
#   jupytext:
#     formats: ipynb,py:percent
#     text_representation:
#       extension: .py
#       format_name: percent
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # From posts to pairs
#
# A dump of posts goes in; filtered, cleaned, deduplicated image-text pairs in webdataset shards come out, and every
# candidate is accounted for. The dump here is generated, with the noise that real ones have, so nothing is downloaded.

# %%
import io
import tempfile
from pathlib import Path

import matplotlib.pyplot as plt
from PIL import Image

import pathclip
from pathclip.shards import Dataset
from pathclip.synthetic import write_dump

folder = Path(tempfile.mkdtemp())
write_dump(folder / "dump", seed=0)

# %% [markdown]
# One call ingests it. `pathclip ingest dump/tweets.jsonl --media dump/media --out data` does the same.

# %%
report = pathclip.ingest(
    pathclip.IngestConfig(
        sources=(folder / "dump/tweets.jsonl",), media=folder / "dump/media", out=folder / "data"
    )
)
report.by_code

# %% [markdown]
# Every candidate ended once: kept, or rejected with a reason. The kept ones lie in plain webdataset tars.

# %%
dataset = Dataset.open(folder / "data")
pairs = [(bytes(jpg), record) for jpg, record in dataset.samples("train")]
figure, axes = plt.subplots(2, 4, figsize=(12, 6.5))
for axis, (jpg, record) in zip(axes.flat, pairs[:: len(pairs) // 8], strict=False):
    axis.imshow(Image.open(io.BytesIO(jpg)))
    axis.set_title(record["captions"][0]["text"][:40], fontsize=8)
    axis.axis("off")

# %%
assert report.candidates == report.kept + report.rejected
assert len(pairs) == dataset.count("train") > 0
