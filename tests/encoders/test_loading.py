from __future__ import annotations

import json
import logging
import pickle
import warnings
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import open_clip
import open_clip.factory
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from pathclip.core.errors import UserError
from pathclip.encoders import DualEncoder, create, load
from pathclip.encoders.hub import NO_CONFIG, hub_folder, looks_like_hub_name

SMALL = Path(__file__).with_name("small.json")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    create(SMALL, seed=3).save(tmp_path / "m")
    return tmp_path / "m"


@pytest.fixture
def listed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[DualEncoder]:
    """A small ViT that open_clip lists by name, so that a bare weights file of it is recognised."""
    config = json.loads(SMALL.read_text())["model_cfg"]
    monkeypatch.setattr(open_clip.factory, "_MODEL_CONFIGS", {"listed-vit": {**config, "quick_gelu": False}})
    return create("listed-vit", seed=4).eval()


def same(one: DualEncoder, other: DualEncoder, picture: Image.Image) -> bool:
    images = torch.equal(one.encode_images(picture), other.encode_images(picture))
    return images and torch.equal(one.encode_text("mucin"), other.encode_text("mucin"))


def test_a_run_folder_and_its_model_folder_and_its_file_are_one_model(
    folder: Path, picture: Image.Image, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    run.mkdir()
    folder.rename(run / "model")
    (run / "config.toml").write_text("")
    expected = create(SMALL, seed=3)
    for place in (run, run / "model", run / "model/open_clip_model.safetensors", f"local-dir:{run}"):
        model = load(place)
        assert same(model, expected, picture)
        assert model.provenance()["checkpoint_sha256"]


@pytest.mark.parametrize(
    "prefix", ["", "module.", "clip.", "module.clip.", "_orig_mod.", "module._orig_mod."]
)
@pytest.mark.parametrize("wrapper", [None, "state_dict", "model_state_dict"])
def test_training_checkpoints_of_a_listed_architecture_load_bare(
    listed: DualEncoder, tmp_path: Path, picture: Image.Image, prefix: str, wrapper: str | None
) -> None:
    weights = {f"{prefix}{key}": value for key, value in listed.clip.state_dict().items()}
    content = weights if wrapper is None else {wrapper: weights, "epoch": 3, "optimizer": {"lr": 1.0}}
    torch.save(content, tmp_path / "epoch_3.pt")
    model = load(tmp_path / "epoch_3.pt", quick_gelu=False)
    assert model.name == "listed-vit"
    assert same(model, listed, picture)


def test_a_bare_file_that_hides_its_activation_is_loaded_with_a_warning(
    listed: DualEncoder, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    weights = listed.clip.state_dict()
    torch.save(weights, tmp_path / "plain.pt")
    openai = {key: value.half() for key, value in weights.items()}
    openai |= {
        "input_resolution": torch.tensor(42),
        "context_length": torch.tensor(20),
        "vocab_size": torch.tensor(9),
    }
    torch.save(openai, tmp_path / "openai.pt")
    assert load(tmp_path / "plain.pt").architecture.model_cfg["quick_gelu"] is False
    assert "plain.pt does not state its activation; plain GELU is assumed" in caplog.text
    caplog.clear()
    model = load(tmp_path / "openai.pt")
    assert model.architecture.model_cfg["quick_gelu"] is True
    assert model.logit_scale.dtype == torch.float32
    assert "openai.pt does not state its activation; QuickGELU is assumed" in caplog.text


def test_a_quilt_like_folder_that_hides_its_activation_is_loaded_with_a_warning(
    folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    config = json.loads((folder / "open_clip_config.json").read_text())
    del config["model_cfg"]["quick_gelu"]
    (folder / "open_clip_config.json").write_text(json.dumps(config))
    (folder / "pathclip.json").unlink()
    (folder / "open_clip_model.safetensors").rename(folder / "model.safetensors")
    with caplog.at_level(logging.WARNING, logger="pathclip"):
        model = load(folder)
    assert model.name == "m"
    assert "does not state quick_gelu; plain GELU is assumed" in caplog.text
    caplog.clear()
    assert load(folder, quick_gelu=True).architecture.model_cfg["quick_gelu"] is True
    assert not caplog.records


def test_a_folder_without_a_name_is_called_by_its_place(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (folder / "pathclip.json").unlink()
    (folder / "sub").mkdir()
    for here, name in ((folder, "."), (folder / "sub", "..")):
        monkeypatch.chdir(here)
        assert load(name).name == "m"


def test_our_own_folders_load_without_a_word(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    load(folder)
    assert not caplog.records


def test_a_custom_text_folder_takes_weights_in_clips_old_names(folder: Path, picture: Image.Image) -> None:
    expected = load(folder)
    config = json.loads((folder / "open_clip_config.json").read_text())
    config["model_cfg"]["custom_text"] = True
    (folder / "open_clip_config.json").write_text(json.dumps(config))
    model = load(folder)
    assert hasattr(model.clip, "text")
    assert same(model, expected, picture)


def test_a_temperature_of_shape_one_is_taken(folder: Path) -> None:
    weights = load(folder).clip.state_dict()
    weights["logit_scale"] = weights["logit_scale"].reshape(1)
    (folder / "open_clip_model.safetensors").unlink()
    torch.save(weights, folder / "open_clip_pytorch_model.bin")
    assert load(folder).logit_scale.shape == ()


def test_device_and_precision_are_obeyed(folder: Path) -> None:
    model = load(folder, device="auto", precision="bf16")
    assert model.device.type == ("cuda" if torch.cuda.is_available() else "cpu")
    assert model.precision == "bf16"
    assert model.provenance()["precision"] == "bf16"
    with pytest.raises(UserError, match="device 'tpu9' cannot be used"):
        load(folder, device="tpu9")
    with pytest.raises(UserError, match="precision 'int8' is unknown"):
        load(folder, precision="int8")


def test_a_step_of_a_run_loads_before_and_after_the_run_has_ended(
    tmp_path: Path, picture: Image.Image
) -> None:
    step = tmp_path / "checkpoints/step-00000004"
    step.mkdir(parents=True)
    early, late = create("tiny-resnet-96", seed=1), create("tiny-resnet-96", seed=2)
    save_file(early.clip.state_dict(), step / "model.safetensors")
    (step / "optimizer.pt").write_bytes(b"not looked at")
    (step / "meta.json").write_text(
        '{"schema": "pathclip.checkpoint/1", "step": 4, "model": "tiny-resnet-96"}'
    )
    assert same(load(step), early, picture)
    late.save(tmp_path / "model")
    for place in (step, step / "model.safetensors"):
        model = load(place)
        assert same(model, early, picture)
        assert model.name == "tiny-resnet-96"
    with pytest.raises(UserError, match=r"optimizer\.pt is no whole PyTorch weights file"):
        load(step / "optimizer.pt")
    assert same(load(tmp_path), late, picture)


class Evil:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return (print, ("code from a checkpoint was run",))


def test_a_pickle_with_code_is_not_opened(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    torch.save({"state_dict": Evil()}, tmp_path / "evil.pt")
    with pytest.raises(
        UserError,
        match=r"evil\.pt holds more than tensors \(.*print\) and may run code, so it is not opened",
    ):
        load(tmp_path / "evil.pt")
    (tmp_path / "old.bin").write_bytes(pickle.dumps(Evil(), protocol=2))
    with pytest.raises(UserError, match=r"old\.bin holds more than tensors \(.*print\)"):
        load(tmp_path / "old.bin")
    assert "was run" not in capsys.readouterr().out


@pytest.mark.parametrize("keep", [0.5, 0.01, 0.0])
@pytest.mark.parametrize("kind", ["safetensors", "pt"])
def test_a_file_cut_off_is_called_not_whole(folder: Path, keep: float, kind: str) -> None:
    path = folder / "open_clip_model.safetensors"
    if kind == "pt":
        weights = load(folder).clip.state_dict()
        path.unlink()
        path = folder / "open_clip_pytorch_model.bin"
        torch.save(weights, path)
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * keep)])
    with pytest.raises(UserError, match=f"{path.name} is no whole .*; copy or download it again") as caught:
        load(folder)
    assert "\n" not in str(caught.value)


def test_a_git_lfs_pointer_is_called_by_its_name(folder: Path) -> None:
    (folder / "open_clip_model.safetensors").write_text(
        "version https://git-lfs.github.com/spec/v1\noid sha256:1\n"
    )
    with pytest.raises(UserError, match="is a git-lfs pointer, not the weights; run `git lfs pull`"):
        load(folder)


def test_a_torchscript_archive_is_refused_with_the_way_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = "def forward(self, x):\n    return x\n"
    module = torch.jit.ScriptModule()
    module.define(source)
    monkeypatch.setattr(warnings, "warn", lambda *_, **__: None)  # torch.jit is on its way out
    torch.jit.save(module, str(tmp_path / "jit.pt"))
    with pytest.raises(
        UserError, match="is a TorchScript archive, which holds code; save its tensors alone first"
    ):
        load(tmp_path / "jit.pt")


def test_weights_of_another_architecture_are_refused_with_the_difference(folder: Path) -> None:
    config = json.loads((folder / "open_clip_config.json").read_text())
    config["model_cfg"]["vision_cfg"]["layers"] = 3
    config["model_cfg"]["embed_dim"] = 17
    (folder / "open_clip_config.json").write_text(json.dumps(config))
    with pytest.raises(
        UserError, match=r"does not fit small: 12 missing \(visual.*, \.\.\.\); 2 of another shape"
    ):
        load(folder)


def test_surplus_weights_are_refused(folder: Path) -> None:
    weights = {**load(folder).clip.state_dict(), "decoder.weight": torch.zeros(1)}
    (folder / "open_clip_model.safetensors").unlink()
    torch.save(weights, folder / "model.pth")
    with pytest.raises(UserError, match=r"1 unexpected \(decoder.weight\)"):
        load(folder)


def test_a_bare_file_of_an_unlisted_architecture_is_refused_not_guessed(tmp_path: Path) -> None:
    torch.save(create(SMALL).clip.state_dict(), tmp_path / "w.pt")
    torch.save({"a": torch.zeros(1)}, tmp_path / "other.pt")
    for name in ("w.pt", "other.pt"):
        with pytest.raises(
            UserError, match=f"{name} comes without a config, .*put open_clip_config.json beside it"
        ):
            load(tmp_path / name)


def test_places_without_a_model_are_refused_with_what_was_expected(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "run/checkpoints").mkdir(parents=True)
    (tmp_path / "hf").mkdir()
    (tmp_path / "hf/config.json").write_text('{"model_type": "bert"}')
    (tmp_path / "odd").mkdir()
    (tmp_path / "odd/config.json").write_text("[1]")
    (tmp_path / "two").mkdir()
    create(SMALL).save(tmp_path / "two")
    (tmp_path / "two/open_clip_model.safetensors").rename(tmp_path / "two/a.pt")
    (tmp_path / "two/b.pt").write_bytes(b"")
    torch.save([1], tmp_path / "list.pt")
    torch.save({"a": 1}, tmp_path / "none.pt")
    torch.save({"vision_model.a": torch.zeros(1)}, tmp_path / "hf.pt")
    expected = {
        tmp_path / "empty": "holds no model; expected open_clip_config.json or Hugging Face's config.json",
        tmp_path / "run": r"is a run without a model folder; finish it .*, or load one of its checkpoints",
        tmp_path / "hf": "is of model_type 'bert'; expected 'clip'",
        tmp_path / "odd": "is of model_type None; expected 'clip'",
        tmp_path / "two": r"found several \(a.pt, b.pt\); give one of them",
        tmp_path / "absent": "does not exist; expected a model folder, a weights file or a hub name",
        tmp_path / "list.pt": "holds list; expected a state dict",
        tmp_path / "none.pt": "holds no tensors; expected a state dict",
        tmp_path / "hf.pt": "holds a Hugging Face CLIPModel; load a folder with it and its config.json",
        tmp_path / "hf/config.json": "is a config, not weights",
        "ViT-B-32": "is an architecture without weights; load a folder, a file or a hub name",
        "no-such-thing": "no-such-thing does not exist",
    }
    for place, message in expected.items():
        with pytest.raises(UserError, match=message):
            load(place)
    (tmp_path / "two/a.pt").unlink()
    (tmp_path / "two/b.pt").unlink()
    with pytest.raises(
        UserError, match=r"expected one weights file such as open_clip_model\.safetensors, found none"
    ):
        load(tmp_path / "two")


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("vinid/plip", True),
        ("wisdomik/QuiltNet-B-32", True),
        ("./plip", False),
        ("../plip", False),
        ("/plip", False),
        ("~/plip", False),
        ("plip", False),
        ("a/b/c", False),
        ("runs/model.pt", False),
    ],
)
def test_hub_names_are_told_from_paths(name: str, expected: bool) -> None:
    assert looks_like_hub_name(name) is expected


@pytest.fixture
def empty_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr("huggingface_hub.try_to_load_from_cache", lambda *_: None)
    return tmp_path / "hub"


class Hub:
    """A hub that holds one model, or that fails."""

    def __init__(self, folder: Path | None = None, error: Exception | None = None) -> None:
        self.folder, self.error, self.asked = folder, error, []

    def install(self, monkeypatch: pytest.MonkeyPatch) -> Hub:
        monkeypatch.setattr("huggingface_hub.HfApi.model_info", lambda _, name, **options: self.info(name))
        monkeypatch.setattr("huggingface_hub.hf_hub_download", self.download)
        return self

    def info(self, name: str) -> SimpleNamespace:
        if self.error is not None:
            raise self.error
        files = sorted(path.name for path in self.folder.iterdir())
        return SimpleNamespace(sha="abc", siblings=[SimpleNamespace(rfilename=file) for file in files])

    def download(self, name: str, file: str, revision: str) -> str:
        assert (name, revision) == ("someone/model", "abc")
        self.asked.append(file)
        return str(self.folder / file)


def test_a_hub_name_without_cache_says_how_to_get_the_files(
    empty_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(
        UserError, match=r"vinid/plip is not in the cache .* run `hf download vinid/plip`"
    ) as e:
        load("vinid/plip")
    assert "offline mode is on" in str(e.value)
    assert str(empty_cache) in str(e.value)
    assert "\n" not in str(e.value)


class GatedRepoError(Exception):
    pass


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (
            ConnectionError("no route to host\nand more"),
            "ConnectionError: no route to host; run `hf download",
        ),
        (GatedRepoError("403"), "its owner must grant access: accept the terms on its page"),
    ],
)
def test_a_hub_that_refuses_or_cannot_be_reached_is_one_line_too(
    error: Exception, reason: str, empty_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Hub(error=error).install(monkeypatch)
    with pytest.raises(UserError, match=f"could not be fetched: {reason}") as caught:
        load("someone/model")
    assert "\n" not in str(caught.value)


def test_a_cached_hub_name_loads_without_asking_the_hub(
    folder: Path, monkeypatch: pytest.MonkeyPatch, picture: Image.Image
) -> None:
    def cached(name: str, file: str) -> str | None:
        assert name == "someone/model"
        return str(folder / file) if (folder / file).is_file() else None

    Hub(error=AssertionError("asked")).install(monkeypatch)
    monkeypatch.setattr("huggingface_hub.try_to_load_from_cache", cached)
    model = load("hf-hub:someone/model")
    assert same(model, load(folder), picture)
    assert model.provenance()["pretrained"] == "someone/model"


def test_what_is_not_cached_is_fetched_in_one_revision(
    folder: Path, empty_cache: Path, monkeypatch: pytest.MonkeyPatch, picture: Image.Image
) -> None:
    hub = Hub(folder).install(monkeypatch)
    assert same(load("someone/model"), load(folder), picture)
    assert hub.asked == ["pathclip.json", "open_clip_model.safetensors", "open_clip_config.json"]


def test_a_hub_model_in_another_format_is_refused(
    folder: Path, empty_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (folder / "open_clip_model.safetensors").unlink()
    Hub(folder).install(monkeypatch)
    with pytest.raises(
        UserError, match=r"someone/model on the hub is in no format .* none of open_clip_model"
    ):
        load("someone/model")


def test_conch_and_musk_are_the_hub_models_without_a_config() -> None:
    assert {"mahmoodlab/conch", "xiangjx/musk"} == NO_CONFIG


def test_a_hub_model_whose_weights_say_all_needs_no_config(
    folder: Path, empty_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (folder / "open_clip_config.json").unlink()
    (folder / "tokenizer.spm").write_bytes(b"")
    monkeypatch.setattr("pathclip.encoders.hub.NO_CONFIG", {"someone/model"})
    hub = Hub(folder).install(monkeypatch)
    assert hub_folder("someone/model") == folder
    assert hub.asked == ["pathclip.json", "tokenizer.spm", "open_clip_model.safetensors"]
    monkeypatch.setattr(
        "huggingface_hub.try_to_load_from_cache",
        lambda _, file: str(folder / file) if (folder / file).is_file() else None,
    )
    assert hub_folder("someone/model") == folder
    assert len(hub.asked) == 3
    monkeypatch.setattr("pathclip.encoders.hub.NO_CONFIG", set())
    with pytest.raises(UserError, match=r"on the hub is in no format .* none of open_clip_config"):
        load("someone/model")
