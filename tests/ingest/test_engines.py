from __future__ import annotations

import importlib.util
import os

import pytest
from looking import shard_bytes

from pathclip.core.errors import UserError
from pathclip.core.files import sha256_file
from pathclip.ingest import IngestConfig, ingest


@pytest.fixture
def config(synthetic_dump, tmp_path, key_file):
    return IngestConfig(
        sources=(synthetic_dump.tweets,),
        media=synthetic_dump.media,
        out=tmp_path / "serial",
        key_file=key_file,
        pack={"shard_samples": 7},
    )


@pytest.fixture
def cluster():
    ray = pytest.importorskip("ray", reason="Ray is not installed: pip install 'pathclip[ray]'")
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    ray.init(address="local", num_cpus=2, include_dashboard=False, log_to_driver=False)
    yield ray
    ray.shutdown()


def test_ray_writes_the_bytes_of_serial(config, cluster, tmp_path):
    serial = ingest(config)
    on_ray = ingest(config.replace(out=tmp_path / "ray", engine="ray"))
    assert serial.kept > 20
    assert on_ray.data == serial.data
    assert shard_bytes(tmp_path / "ray") == shard_bytes(config.out)
    assert sha256_file(tmp_path / "ray" / "index.json") == sha256_file(config.out / "index.json")


def test_without_ray_nothing_is_begun(config, monkeypatch):
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "ray" else find(name))
    with pytest.raises(UserError, match=r"pip install 'pathclip\[ray\]'"):
        ingest(config.replace(engine="ray"))
    assert not config.out.exists()
