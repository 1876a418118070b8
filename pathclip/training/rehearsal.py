"""Two steps of a run on tensors that have shapes and no memory, to see how much memory they would take."""

from __future__ import annotations

import copy
import itertools
import logging
import weakref
from typing import Any

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import (
    DataDependentOutputException,
    DynamicOutputShapeException,
    FakeTensorMode,
    UnsupportedOperatorException,
)
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_map_only

from pathclip.batches import Batch, ShardLoader
from pathclip.core.errors import UserError
from pathclip.encoders import DualEncoder
from pathclip.training.config import TrainConfig
from pathclip.training.image_cache import CHUNK, input_bytes
from pathclip.training.trainer import Trainer, towers_cast
from pathclip.training.world import World

__all__ = ["rehearse"]

log = logging.getLogger("pathclip")
TEXTS_READ = 1024  # samples; how long texts get is known well enough from these
HOLES = 1.25  # bytes held for one in use: malloc gives back what lies at an end; see tests/benchmarks/results
UNKNOWN = (DataDependentOutputException, DynamicOutputShapeException, UnsupportedOperatorException)
READ = torch.ops.aten._local_scalar_dense.default  # what `item` comes to


def rehearse(model: DualEncoder, config: TrainConfig, loader: ShardLoader, size: int) -> int:
    """Bytes at the highest point of two steps: weights, gradients, optimizer, average, activations, batch.

    The trainer itself takes the steps, with all that the config asks of it, so that nothing is listed here
    that it does. The second one is the higher: the optimizer's state is there from the start. A kernel's own
    workspace does not count, nor what ``compile`` saves.

    Args:
        model: Stays as it is, and is not computed with.
        config: The run.
        loader: Of the run; some captions are read, to know how long they get.
        size: Samples of one process's batch.

    Raises:
        UserError: If the model does not run on such a batch.
    """
    length = _text_length(model, config, loader)
    piece = -(-size // config.accumulation)
    pieces = min(config.accumulation, 2)  # the second is the higher: the gradients are there
    left_out, size = max(size - piece * pieces, 0), min(size, piece * pieces)
    config = config.replace(compile=False, accumulation=pieces, batch=config.batch.replace(size=size))
    watched = _Watched()
    rng = torch.get_rng_state()
    with FakeTensorMode(allow_non_fake_inputs=True), watched:
        try:
            shell = _emptied(model)
            if config.model.image_cache:  # the tower is run once, before the first step
                with torch.no_grad(), towers_cast(config, torch.device("cpu")):
                    shell.encode_pixels(_pictures(model, CHUNK))
            trainer = Trainer(config, shell, loader, 2, World(0, 1, torch.device("cpu")))
            trainer.batches = itertools.repeat(_batch(config, model, size, length))  # type: ignore[assignment]
            for _ in range(2):
                trainer.take_step()
        except UNKNOWN as error:  # what a result's shape or a branch hangs on is not there
            log.warning("the memory estimate is too low: %s", str(error).splitlines()[0])
        except (RuntimeError, ValueError) as error:  # a ValueError where one sample has no statistics
            if isinstance(error, UserError):
                raise
            raise UserError(f"model {model.name} does not run: {str(error).splitlines()[0]}") from None
        finally:
            torch.set_rng_state(rng)
    return int(HOLES * watched.peak) + left_out * _kept_bytes(config, model)


class _Watched(TorchDispatchMode):
    """Counts the bytes of storages that are alive.

    Attributes:
        held: Now.
        peak: The most at a time.
    """

    def __init__(self) -> None:
        super().__init__()
        self.peak = self.held = 0
        self.alive: dict[int, weakref.ref[torch.UntypedStorage]] = {}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is READ:  # a loss or a norm: any finite number will do
            return 1.0
        result = func(*args, **(kwargs or {}))
        tree_map_only(Tensor, self._note, result)
        return result

    def _note(self, tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        key, size = storage._cdata, storage.nbytes()
        if size and key not in self.alive:
            self.held += size
            self.peak = max(self.peak, self.held)

            def gone(_: object) -> None:
                del self.alive[key]
                self.held -= size

            self.alive[key] = weakref.ref(storage, gone)
        return tensor


def _emptied(model: DualEncoder) -> DualEncoder:
    """A copy whose weights have shapes only, laid out as the trainer lays them out."""
    memo: dict[int, Any] = {}
    for tensor in itertools.chain(model.parameters(), model.buffers()):
        layout = torch.channels_last if tensor.ndim == 4 else torch.contiguous_format
        value = torch.empty(tensor.shape, dtype=tensor.dtype, memory_format=layout)
        if isinstance(tensor, nn.Parameter):
            value = nn.Parameter(value, requires_grad=tensor.requires_grad)
        memo[id(tensor)] = value
    return copy.deepcopy(model, memo)


def _kept_bytes(config: TrainConfig, model: DualEncoder) -> int:
    """What a waiting sample holds: picture, tokens, two features thrice (parts, whole, gradient)."""
    return input_bytes(config, model) + 8 * model.context_length + 4 * 6 * model.embed_dim


def _text_length(model: DualEncoder, config: TrainConfig, loader: ShardLoader) -> int:
    """T of a batch: of the longest caption among many; all that the model reads where that is unknown."""
    texts = [] if config.compile else loader.captions(TEXTS_READ)
    return model.trim_tokens(model.tokenize(texts)).shape[1] if texts else model.context_length


def _batch(config: TrainConfig, model: DualEncoder, size: int, length: int) -> Batch:
    ids = torch.zeros(size, dtype=torch.int64)
    return Batch(
        images=torch.empty(size, model.embed_dim) if config.model.image_cache else _pictures(model, size),
        tokens=torch.zeros(size, length, dtype=torch.int64),
        positive_ids=ids,
        caption_ids=ids,
        keys=[],
        sampler={},
    )


def _pictures(model: DualEncoder, count: int) -> Tensor:
    return torch.empty(count, model.image_size, model.image_size, 3, dtype=torch.uint8).permute(0, 3, 1, 2)
