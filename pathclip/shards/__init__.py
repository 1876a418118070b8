"""Pair <-> webdataset tar: write, index, read, verify. Loads no torch."""

from pathclip.shards.fetch import LostShardError
from pathclip.shards.read import Dataset, ShardReader
from pathclip.shards.sample import Sample
from pathclip.shards.verify import VerifyReport, verify
from pathclip.shards.window import Passed, ShardWindow
from pathclip.shards.write import ShardInfo, write_index, write_shard

__all__ = [
    "Dataset",
    "LostShardError",
    "Passed",
    "Sample",
    "ShardInfo",
    "ShardReader",
    "ShardWindow",
    "VerifyReport",
    "verify",
    "write_index",
    "write_shard",
]
