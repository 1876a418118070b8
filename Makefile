# `make check` is what continuous integration runs; `pip install '.[dev]'` brings what it needs.
.PHONY: check lint floors docs test format generated

check: lint floors docs test

lint:
	ruff format --check .
	ruff check .
	codespell pathclip tests docs experiments notebooks README.md CHANGELOG.md

floors:
	lint-imports --no-cache

docs:
	mkdocs build --strict --quiet

test:
	pytest -q --durations=15 --cov=pathclip --cov-report=term:skip-covered --cov-fail-under=85

format:
	ruff format .
	ruff check --fix .

# files that are derived from others; the tests compare them
generated:
	python docs/generate.py
	jupytext --sync notebooks/*.py
