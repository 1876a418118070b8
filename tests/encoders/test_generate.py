"""Words from pictures: against a loop that asks open_clip anew for each word, and against all texts."""

from __future__ import annotations

import functools
import itertools
import json
import math
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import open_clip
import pytest
import torch
from open_clip import coca_model
from pydantic import ValidationError
from torch import Tensor
from train_cases import TINY_COCA

from pathclip.core.errors import FaultError, UserError
from pathclip.encoders import DualEncoder, GenerateConfig, create
from pathclip.encoders.generate import generate
from pathclip.encoders.search import beam_search, draw

START, END = 49406, 49407


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> DualEncoder:
    """Weights drawn large, so that one word does not follow itself for ever and pictures differ."""
    path = tmp_path_factory.mktemp("model") / "coca.json"
    path.write_text(json.dumps(TINY_COCA))
    model = create(path, seed=3)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, weight in model.clip.named_parameters():
            if weight.ndim > 1:
                weight.normal_(std=2.0 if "embedding" in name else 0.4, generator=generator)
        model.clip.text_decoder.text_projection[:, END] *= 3.5  # some texts end by themselves
    return model


@pytest.fixture(scope="module")
def images() -> Tensor:
    return torch.randint(0, 256, (6, 3, 16, 16), generator=torch.Generator().manual_seed(1)).to(torch.uint8)


@torch.no_grad()
def said_slowly(model: DualEncoder, image: Tensor) -> tuple[list[int], float]:
    """One picture, and one pass of open_clip's whole model for each word."""
    tokens, score = [START], 0.0
    while tokens[-1] != END and len(tokens) < model.context_length:
        out = model.clip(model.normalize_pixels(image[None]), torch.tensor([tokens]), output_labels=False)
        chances = out["logits"][0, -1].double()
        chances[0] = -math.inf  # padding
        chances = chances.log_softmax(0)
        tokens.append(int(chances.argmax()))
        score += chances.max().item()
    return tokens[1:], score


def test_greedy_words_are_those_of_the_slow_loop(model: DualEncoder, images: Tensor) -> None:
    model.train()
    tokenizer = open_clip.SimpleTokenizer()
    ends = set()
    for image, said in zip(images, model.generate(images), strict=True):
        tokens, score = said_slowly(model.eval(), image)
        words = [t for t in tokens if t not in (START, END)]
        assert said.text == " ".join(tokenizer.decode(words).split())
        assert said.logprob == pytest.approx(score / len(tokens), abs=1e-4)
        assert said.complete is (tokens[-1] == END)
        ends.add(said.complete)
    assert ends == {True, False}
    assert len({said.text for said in model.generate(images)}) > 1


def test_greedy_words_are_those_of_open_clips_generate(
    model: DualEncoder, images: Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It refuses to run beside transformers 5, which lacks one class it does not need here: lent to it."""
    transformers = pytest.importorskip("transformers")
    names = ("LogitsProcessorList", "MinLengthLogitsProcessor", "RepetitionPenaltyLogitsProcessor")
    for name in (*names, "MaxLengthCriteria", "StoppingCriteriaList", "TopKLogitsWarper"):
        monkeypatch.setattr(coca_model, name, getattr(transformers, name), raising=False)
    monkeypatch.setattr(coca_model, "_has_transformers", True)
    monkeypatch.setitem(coca_model.GENERATION_TYPES, "top_k", transformers.TopKLogitsWarper)
    theirs = model.eval().clip.generate(
        model.normalize_pixels(images), generation_type="top_k", top_k=1, seq_len=17, min_seq_len=0
    )
    tokenizer = open_clip.SimpleTokenizer()
    for row, said in zip(theirs[:, :16].tolist(), model.generate(images), strict=True):
        words = [t for t in row[1:] if t not in (0, START, END)]
        assert said.text == " ".join(tokenizer.decode(words).split())


@pytest.mark.parametrize("options", [{}, {"beams": 3}, {"top_k": 5, "seed": 4}])
def test_a_text_does_not_hang_on_the_pictures_beside_it(
    model: DualEncoder, images: Tensor, options: dict[str, Any]
) -> None:
    chosen = GenerateConfig(**options)
    together = model.generate(images, chosen)
    assert together == model.generate(images, chosen)
    alone = [generate(model, images[i : i + 1], chosen, places=[i])[0] for i in range(len(images))]
    assert [said.text for said in alone] == [said.text for said in together]


def test_options_reach_the_words(model: DualEncoder, images: Tensor) -> None:
    short = model.generate(images, GenerateConfig(max_tokens=2))
    assert all(len(model.tokenize(said.text)[0].nonzero()) <= 2 + 2 for said in short)
    greedy = [said.text for said in model.generate(images)]
    assert [said.text for said in model.generate(images, GenerateConfig(top_k=1))] == greedy
    cold = GenerateConfig(top_k=50, temperature=1e-4)
    assert [said.text for said in model.generate(images, cold)] == greedy
    first, second = (model.generate(images, GenerateConfig(top_k=50, seed=seed)) for seed in (0, 1))
    assert first != second
    beams = model.generate(images, GenerateConfig(beams=8))
    better = [b.logprob >= g.logprob - 1e-6 for b, g in zip(beams, model.generate(images), strict=True)]
    assert sum(better) >= 5  # not always: the best text may be lost on the way
    assert model.generate(images[:0]) == []


VOCABULARY, LENGTH, LAST = 4, 3, 3


def table(seed: int, texts: int = 1) -> Callable[[Tensor], Tensor]:
    """Log-probabilities that hang on all tokens so far, and on which of the texts it is."""

    @functools.cache
    def likely(words: tuple[int, ...], text: int) -> Tensor:
        place = sum(t * 7**i for i, t in enumerate(words)) + 10**5 * (seed + 100 * text)
        return torch.rand(VOCABULARY, generator=torch.Generator().manual_seed(place)).mul(4).log_softmax(0)

    def step(tokens: Tensor) -> Tensor:
        rows = enumerate(tokens.tolist())
        return torch.stack([likely(tuple(words), i * texts // len(tokens)) for i, words in rows])

    return step


def all_texts(step: Callable[[Tensor], Tensor], row: int, texts: int) -> dict[tuple[int, ...], float]:
    """Every text of a row and the sum of its log-probabilities."""
    found = {}
    for length in range(1, LENGTH + 1):
        for words in itertools.product(range(VOCABULARY), repeat=length):
            if LAST in words[:-1] or (words[-1] != LAST and length < LENGTH):
                continue
            so_far = [[0, *words[:i]] for i in range(length)]
            found[words] = sum(
                step(torch.tensor([s] * texts))[row, w].item() for s, w in zip(so_far, words, strict=True)
            )
    return found


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_with_room_for_all_beams_find_the_best_text_there_is(seed: int) -> None:
    step = table(seed, texts=2)
    found = beam_search(step, 2, beams=64, length=LENGTH, start=0, end=LAST)
    for row, (words, score) in enumerate(found):
        every = all_texts(step, row, 2)
        assert math.fsum(math.exp(s) for s in every.values()) == pytest.approx(1, abs=1e-5)
        best = max(every, key=lambda text: every[text] / len(text))
        assert tuple(words) == best
        assert score == pytest.approx(every[best], abs=1e-5)


def test_what_is_drawn_is_as_frequent_as_it_is_likely() -> None:
    step = table(1)
    drawn = draw(step, range(3000), top_k=VOCABULARY, temperature=1.0, length=LENGTH, start=0, end=LAST)
    every = all_texts(step, 0, 1)
    counts = Counter(tuple(words) for words, _ in drawn)
    assert counts.keys() <= every.keys()
    for words, score in every.items():
        share = math.exp(score)
        assert abs(counts[words] / 3000 - share) < 5 * math.sqrt(share / 3000) + 1e-3
    for words, score in drawn[:20]:
        assert score == pytest.approx(every[tuple(words)], abs=1e-4)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"seed": 1}, "temperature and seed are of drawing: set top_k too"),
        ({"temperature": 0.5}, "set top_k too"),
        ({"beams": 2, "top_k": 3}, "set one of them"),
        ({"beams": 0}, "greater than or equal to 1"),
        ({"top_p": 0.9}, "Extra inputs"),
    ],
)
def test_options_that_contradict_each_other_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        GenerateConfig(**options)


def test_more_than_the_model_reads_is_refused_and_nan_is_named(
    model: DualEncoder, images: Tensor, tmp_path: Path
) -> None:
    with pytest.raises(UserError, match="max_tokens is 16; coca reads 15 after the start mark"):
        model.generate(images, GenerateConfig(max_tokens=16))
    (tmp_path / "coca.json").write_text(json.dumps(TINY_COCA))
    broken = create(tmp_path / "coca.json")
    torch.nn.init.constant_(broken.clip.text_decoder.ln_final.weight, math.nan)
    with pytest.raises(FaultError, match="coca gives NaN for a word: its weights are damaged"):
        broken.generate(images)
