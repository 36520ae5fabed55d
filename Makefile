# The commands of the README; CI runs `make check` and `make test`.
PYTHON ?= python3
# Any torch >= 2.10 will do; this one is pinned so that everybody tests the same.
TORCH ?= torch==2.13.0
BIN := .venv/bin
DATA := examples/data/pedestrians.csv

.PHONY: forecast test check docs clean

forecast: .venv/installed
	$(BIN)/llamacast forecast $(DATA) --horizon 48 --nonnegative --output forecast.csv --plot forecast.png

# Twice where tables come and go: statsforecast and gluonts hold pandas below 3, users may not. What
# only starts processes is the same with either.
SIDE_BY_SIDE := -n 2 --dist loadfile
PROCESSES := $(addprefix --ignore=tests/interfaces/,test_finetunes.py test_openapi.py test_page.py)
test: .venv/installed-dev .venv/pandas3
	$(BIN)/pytest $(SIDE_BY_SIDE)
	PYTHONPATH=.venv/pandas3 $(BIN)/pytest $(SIDE_BY_SIDE) tests/data tests/interfaces tests/test_forecast.py \
		tests/test_forecaster.py tests/evaluation/test_backtest.py tests/evaluation/test_report.py \
		$(PROCESSES)

check: .venv/installed-dev
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/pytest tests/test_architecture.py

# A site in site/, with the examples as notebooks that are run.
docs: .venv/installed-docs
	$(BIN)/python docs/gather.py build/pages
	$(BIN)/mkdocs build --quiet

.venv/torch:
	$(PYTHON) -c 'import sys; sys.exit("LlamaCast needs Python 3.11 or later" if sys.version_info < (3, 11) else 0)'
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet "$(TORCH)"
	touch $@

.venv/installed: .venv/torch pyproject.toml
	$(BIN)/pip install --quiet --editable .
	touch $@

.venv/installed-dev: .venv/installed pyproject.toml
	$(BIN)/pip install --quiet --editable ".[dev]"
	touch $@

.venv/installed-docs: .venv/installed pyproject.toml
	$(BIN)/pip install --quiet --editable ".[docs,covariates,finetune]"
	touch $@

.venv/pandas3: .venv/installed-dev
	$(BIN)/pip install --quiet --no-deps --target $@ "pandas>=3"
	touch $@

clean:
	rm -rf .venv build site
