"""Pair <-> webdataset tar: write, index, read, verify. Loads no torch."""

from pathclip.shards.read import Dataset, ShardReader
from pathclip.shards.sample import Sample
from pathclip.shards.verify import VerifyReport, verify
from pathclip.shards.write import ShardInfo, write_index, write_shard

__all__ = [
    "Dataset",
    "Sample",
    "ShardInfo",
    "ShardReader",
    "VerifyReport",
    "verify",
    "write_index",
    "write_shard",
]
