"""One rank of a job array: its share of reading and of looking at pictures, beside others in one folder.

A scheduler starts ``world_size`` runs that differ in ``rank``. The array is run twice: pictures are known
only when everything is read. The run that plans and writes the shards is an ordinary one, afterwards.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pathclip.core.errors import UserError
from pathclip.core.files import claim
from pathclip.ingest.collect import collect_share
from pathclip.ingest.config import IngestConfig
from pathclip.ingest.key import load_key
from pathclip.ingest.look import Scorer
from pathclip.ingest.record import difference, fingerprints, previous, write_record
from pathclip.ingest.report import IngestReport
from pathclip.ingest.tombstones import Tombstones

__all__ = ["ranks_at_work", "run_rank"]

WAIT_S = 600.0


def run_rank(config: IngestConfig, scorer: Scorer | None = None) -> IngestReport:
    """Do this rank's share; the report has no counts, and its messages say what other ranks still owe.

    Raises:
        UserError: If the rank already works, an ordinary run does, or the folder was made from other input.
    """
    private = config.out / "private"
    with claim(private / f"lock.rank-{config.rank:05d}") as owned:
        if not owned:
            raise UserError(f"rank {config.rank} of {config.world_size} already works on {config.out}")
        key = _begin(config)
        unread, unseen = collect_share(config, private / "parts", Tombstones.load(private, key), scorer)
    share = f"rank {config.rank} of {config.world_size}"
    if unread:
        message = f"{share}: read its share; {unread} chunks are with others: then run the array again"
    elif unseen:
        message = f"{share}: looked at its share; {unseen} batches of pictures are with others"
    else:
        message = f"{share}: all is collected; run once more without rank and world_size"
    return IngestReport(config.out, {}, "share", (message,))


def _begin(config: IngestConfig) -> bytes:
    """The key, after the folder was begun by the first rank that comes and compared by the others."""
    with _folder_lock(config):
        key = load_key(config.out / "private", config.key_file)
        now, before = fingerprints(config, key), previous(config.out)
        if before is None:
            write_record(config, now, "new")
        elif differs := difference(config, now, before):
            raise UserError(
                f"{config.out} was made from something else: {'; '.join(differs)}. Choose another --out"
            )
    return key


def ranks_at_work(private: Path) -> list[str]:
    """Claims of ranks whose process may live; those of dead ones on this machine are removed."""
    found = []
    for path in sorted(private.glob("lock.rank-*")):
        with claim(path) as owned:
            if not owned:
                found.append(path.name)
    return found


@contextmanager
def _folder_lock(config: IngestConfig) -> Iterator[None]:
    """The lock of ordinary runs, held for as long as the folder is begun."""
    lock, until = config.out / "private" / "lock", time.monotonic() + WAIT_S
    while True:
        with claim(lock) as owned:
            if owned:
                yield
                return
        if time.monotonic() > until:
            raise UserError(
                f"another run is writing {config.out}; wait for it, or remove {lock} if it is dead"
            )
        time.sleep(0.2)
