"""Time the chunked loss over shapes of its blocks and sizes of what it keeps, beside open_clip's loss.

python run.py            the experiment, about four minutes of CPU
python run.py --smoke    a small batch, one round
"""

from __future__ import annotations

import argparse
import statistics
import time
import tomllib
from pathlib import Path
from typing import Any

import torch
from open_clip.loss import ClipLoss

from pathclip.core.files import write_json
from pathclip.loss import chunked, contrastive_loss

HERE = Path(__file__).parent


def run(config: dict[str, Any]) -> dict[str, Any]:
    """Median CPU seconds of forward + backward per candidate, in turn, and the ratio to open_clip's."""
    torch.set_num_threads(1)
    generator = torch.Generator().manual_seed(0)
    image, text = (
        torch.nn.functional.normalize(
            torch.randn(config["size"], config["width"], generator=generator), dim=1
        ).requires_grad_()
        for _ in range(2)
    )
    scale = torch.tensor(14.3, requires_grad=True)
    seconds: dict[str, list[float]] = {}
    for _ in range(config["rounds"]):
        seconds.setdefault("open_clip", []).append(cpu_seconds(ClipLoss(), image, text, scale))
        for rows, columns, kept in config["candidates"]:
            chunked.BLOCK["cpu"], chunked.KEPT_BYTES = (rows, columns), kept << 20
            name = f"{rows} x {columns}, {kept} MiB kept"
            seconds.setdefault(name, []).append(cpu_seconds(contrastive_loss, image, text, scale))
    medians = {name: statistics.median(values) for name, values in seconds.items()}
    figures = {
        name: {"cpu_seconds": round(value, 3), "ratio": round(value / medians["open_clip"], 3)}
        for name, value in medians.items()
    }
    return {"experiment": HERE.name, "size": config["size"], "width": config["width"], "figures": figures}


def cpu_seconds(loss: Any, *inputs: torch.Tensor) -> float:
    """Of one forward and backward."""
    started = time.process_time()
    torch.autograd.grad(loss(*inputs), inputs)
    return time.process_time() - started


def main() -> None:
    """Read the arguments and run."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--smoke", action="store_true", help="a small batch, one round")
    config = tomllib.loads((HERE / "config.toml").read_text(encoding="utf-8"))
    if parser.parse_args().smoke:
        print(run(config | {"size": 256, "rounds": 1}))
        return
    result = run(config)
    write_json(HERE / "result.json", result)
    print(result)


if __name__ == "__main__":
    main()
