from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from scipy import stats

from pathclip.core.errors import UserError
from pathclip.heads import Prompts, draw_prompts, load_prompts

POOL = load_prompts(
    {
        "classnames": {
            "LUAD": ["adenocarcinoma", "lung adenocarcinoma", "LUAD"],
            "LUSC": ["squamous", "LUSC"],
        },
        "templates": [f"{word} {{}}." for word in ["a", "photo", "of", "an", "image", "showing", "some"]],
    }
)


def test_a_draw_is_one_name_per_class_and_some_templates_once() -> None:
    for seed in range(60):
        (drawn,) = draw_prompts(POOL, seed).sets
        assert list(drawn.classnames) == ["LUAD", "LUSC"]
        for label, names in drawn.classnames.items():
            assert len(names) == 1
            assert names[0] in POOL.sets[0].classnames[label]
        assert 1 <= len(drawn.templates) <= 7
        assert len(set(drawn.templates)) == len(drawn.templates)
        assert set(drawn.templates) <= set(POOL.sets[0].templates)


def test_equal_seeds_give_equal_draws_and_others_differ() -> None:
    assert draw_prompts(POOL, 3) == draw_prompts(POOL, 3)
    assert len({draw_prompts(POOL, seed).sha256 for seed in range(50)}) > 40


def test_names_and_numbers_of_templates_are_uniform() -> None:
    draws = [draw_prompts(POOL, seed).sets[0] for seed in range(3000)]
    names = Counter(draw.classnames["LUAD"][0] for draw in draws)
    counts = Counter(len(draw.templates) for draw in draws)
    templates = Counter(template for draw in draws for template in draw.templates)
    for tally, kinds in ((names, 3), (counts, 7), (templates, 7)):
        assert len(tally) == kinds
        assert stats.chisquare(list(tally.values())).pvalue > 1e-3
    # names, templates and their number do not hang together
    many = [draw.classnames["LUAD"][0] == "LUAD" for draw in draws if len(draw.templates) > 3]
    assert np.mean(many) == pytest.approx(1 / 3, abs=0.05)


def test_several_sets_are_one_pool() -> None:
    singles = tuple(draw_prompts(POOL, seed).sets[0] for seed in range(50))
    again = draw_prompts(Prompts(singles, "fifty"), 0)
    assert again.name == "fifty, draw 0"
    seen = [draw_prompts(Prompts(singles), seed).sets[0] for seed in range(200)]
    assert {name for draw in seen for name in draw.classnames["LUAD"]} == set(POOL.sets[0].classnames["LUAD"])
    assert {t for draw in seen for t in draw.templates} == set(POOL.sets[0].templates)


def test_classes_never_get_the_same_name() -> None:
    pool = load_prompts({"a": ["x", "y"], "b": ["x", "z"]})
    drawn = [draw_prompts(pool, seed).sets[0].classnames for seed in range(100)]
    assert all(names["a"] != names["b"] for names in drawn)
    crowded = load_prompts({"a": ["x"], "b": ["x", "x "], "c": ["y"]})
    with pytest.raises(UserError, match="classes share names"):
        draw_prompts(crowded, 0)
