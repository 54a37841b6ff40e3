# `make report` and `make test` need only python3 >= 3.11 and make; everything else is installed into .venv.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
CACHE := .cache/xla
AOT := .cache/aot
DOCS := .cache/docs
# the CUDA plug-in would complain that there are no CUDA libraries; nothing is executed that needs them
FOR_AOT := JAX_PLATFORMS=cpu JAX_SKIP_CUDA_CONSTRAINTS_CHECK=1
export JAX_COMPILATION_CACHE_DIR ?= $(abspath $(CACHE))
export JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS ?= 0.2

.PHONY: install report test kills scale long aot aot-table docs quickstart lint types compatibility parity bench same experiments experiments-long newest package lock clean

install: $(VENV)/installed

# --require-hashes: exactly the files that the lock was made from.
$(VENV)/installed: requirements.lock pyproject.toml
	$(PYTHON) -c 'import sys; assert sys.version_info >= (3, 11), f"jaxsmooth needs python 3.11 or newer, not {sys.version}"'
	$(PYTHON) -m venv --clear $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements.lock
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	touch $@

report: install
	$(BIN)/jaxsmooth diagnose minilm-l6 --data movie-reviews --limit 256 --out reports/minilm-l6

test: install
	$(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder -m "not long and not parity and not aot and not kills and not scale"

# a real run, killed twenty times at random moments, must end in the bits of an undisturbed one
kills: install
	$(BIN)/python -m pytest -m kills -s

# eight simulated devices, two and four processes: the losses of one device
scale: install
	$(BIN)/python -m pytest -m scale

long: install
	JAXSMOOTH_VERDICTS=experiments/results/no_false_verdict.json JAXSMOOTH_TEST_PROFILE=long $(BIN)/python -m pytest -m long

# the compilers of accelerators that are not here: an environment of its own, because with libtpu installed every
# jax process looks for a TPU
aot: $(AOT)/installed
	$(FOR_AOT) $(AOT)/bin/python -m pytest -m aot

# BERT-base and BERT-large for every accelerator, once; the tests of `make aot` make do with a small model
aot-table: $(AOT)/installed
	$(FOR_AOT) $(AOT)/bin/python benchmarks/aot.py

$(AOT)/installed: requirements.lock pyproject.toml
	$(PYTHON) -m venv --clear $(AOT)
	$(AOT)/bin/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements.lock
	$(AOT)/bin/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	version=$$($(AOT)/bin/python -c 'import importlib.metadata as m; print(m.version("jax"))'); \
	  $(AOT)/bin/python -m pip install --quiet --disable-pip-version-check "jax[tpu]==$$version" && \
	  $(AOT)/bin/python -m pip install --quiet --disable-pip-version-check --no-deps \
	    "jax-cuda13-plugin==$$version" "jax-cuda13-pjrt==$$version" "nvidia-cudnn-cu13>=9.12,<10"
	touch $@

# the site, in .cache/docs/html: examples are run (and kept until the library changes), and a failing example, a
# broken link or anchor, a public name without an entry and any warning is an error
docs: $(DOCS)/installed
	PYTHONPATH=$(abspath docs/_site) $(DOCS)/env/bin/python -m sphinx -b html -W --keep-going -d $(DOCS)/read docs $(DOCS)/html

# docs/quickstart.md anew: its commands in an empty folder, with an environment of their own
quickstart:
	$(PYTHON) docs/_site/transcript.py docs/quickstart.md

$(DOCS)/installed: requirements-docs.lock pyproject.toml
	$(PYTHON) -m venv --clear $(DOCS)/env
	$(DOCS)/env/bin/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements-docs.lock
	$(DOCS)/env/bin/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	touch $@

lint: install
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .

types: install
	$(BIN)/mypy

# docs/compatibility.md, from the tests that show its rows, once they pass
compatibility: install
	$(BIN)/python -m pytest -m "compatibility and not parity and not long and not scale"
	PYTHONPATH=tests $(BIN)/python -m support.compatibility docs/compatibility.md

# torch and transformers, for comparison only
parity: install
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-build-isolation --editable ".[parity]"
	JAXSMOOTH_PARITY_TABLE=benchmarks/results/parity.txt JAXSMOOTH_HEADS_TABLE=benchmarks/results/parity-heads.txt \
	  $(BIN)/python -m pytest -m parity -s

bench: install
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-build-isolation --editable ".[bench]"
	$(BIN)/python benchmarks/diagnose.py
	$(BIN)/python benchmarks/spectra.py
	$(BIN)/python benchmarks/train_step.py

# whether a refactoring changed a number or the speed: make same PARENT=HEAD~1
same: install
	$(BIN)/python benchmarks/same_numbers.py --parent $(PARENT)
	$(BIN)/python benchmarks/old_and_new.py --parent $(PARENT)

# every experiment with few sentences and short sweeps, into reports/experiments: the committed results, which the pages
# quote, stay as they are
SHORT := reports/experiments
FEW := --models minilm-l3 minilm-l6 --corpora movie-reviews --limit 8 --out $(SHORT)/paper
experiments: install
	$(BIN)/python experiments/ladder.py --limit 32 --out $(SHORT)
	$(BIN)/python experiments/phase_diagram.py --encoders 8 --stds 32 --sentences 4 --out $(SHORT)
	$(BIN)/python experiments/converge_heads.py --limit 4 --out $(SHORT)
	$(BIN)/python experiments/spectra.py --tokens 1024 2048 4096 --real-tokens 2048 --out $(SHORT)
	$(BIN)/python experiments/collapse_speed.py --out $(SHORT)
	$(BIN)/python -m experiments.neighbours.power_method --out $(SHORT)/neighbours
	$(BIN)/python -m experiments.neighbours.projection --models minilm-l3 --corpora movie-reviews --limit 8 \
	  --repeated minilm-l3 --out $(SHORT)/neighbours
	$(BIN)/python -m experiments.neighbours.softdecay --models minilm-l6 --tasks reuters-r8 --texts 40 --out $(SHORT)/neighbours
	$(BIN)/python -m experiments.paper.figure_1a $(FEW)
	$(BIN)/python -m experiments.paper.figure_3 $(FEW)
	$(BIN)/python -m experiments.paper.convolution $(FEW)
	$(BIN)/python -m experiments.paper.std $(FEW) --caused minilm-l3 --reviews 4
	$(BIN)/python -m experiments.paper.criticisms $(FEW) --probed minilm-l3 --probe-texts 100 --rows-texts 4
	$(BIN)/python experiments/speed.py --depth 16 --width 64 --models minilm-l6 --limit 8 --labelled movie-reviews --texts 60 --out $(SHORT)
	$(BIN)/python experiments/rates.py minilm-l6 --sentences 1 --out $(SHORT)
	$(BIN)/python experiments/rates_adversary.py --models minilm-l6 --out $(SHORT)
	$(BIN)/python experiments/rates_certified.py --out $(SHORT)
	$(BIN)/python experiments/rates_region.py --models minilm-l6 --sentences 1 --lengths 16 24 --boxes 0.05 0.4 --out $(SHORT)
	$(BIN)/python experiments/rates_ball.py --sentences 1 --longest 16 --radii 1e-3 --out $(SHORT)
	$(BIN)/python experiments/fate.py --again --only "minilm-l6, layer, " --out $(SHORT)
	$(BIN)/python experiments/basin.py --only "random encoder, std 2" "minilm-l6 layer 5" --out $(SHORT)
	$(BIN)/python experiments/every_input.py --models minilm-l3 --again --out $(SHORT)
	$(BIN)/python experiments/head_statements.py --models minilm-l3 --sentences 2 --out $(SHORT)
	$(BIN)/python experiments/loops.py --model minilm-l3 --sentences 2 --steps 40 --out $(SHORT)
	$(BIN)/python experiments/studies.py --models minilm-l3 --texts 8 --out $(SHORT)

# hours; fate, basin, every_input, studies and those under paper/ and neighbours/ add what their results lack
experiments-long: install
	$(BIN)/python experiments/ladder.py
	$(BIN)/python experiments/phase_diagram.py
	$(BIN)/python experiments/converge_heads.py --limit 32
	$(BIN)/python experiments/spectra.py --tokens 1024 2048 4096 8192 16384 32768 131072 --steps 12
	$(BIN)/python experiments/collapse_speed.py
	$(BIN)/python -m experiments.neighbours.power_method
	$(BIN)/python -m experiments.neighbours.projection
	$(BIN)/python -m experiments.neighbours.softdecay
	$(BIN)/python -m experiments.paper.figure_1a
	$(BIN)/python -m experiments.paper.figure_3
	$(BIN)/python -m experiments.paper.convolution
	$(BIN)/python -m experiments.paper.std
	$(BIN)/python -m experiments.paper.criticisms
	$(BIN)/python -m experiments.paper.tables_2_3
	$(BIN)/python -m experiments.paper.table_1
	$(BIN)/python -m experiments.paper.figure_1b
	$(BIN)/python -m experiments.paper.figure_1c
	$(BIN)/python -m experiments.paper.figure_5_6
	$(BIN)/python -m experiments.paper.skips
	$(BIN)/python -m experiments.paper.cost
	$(BIN)/python -m experiments.neighbours.remedies
	$(BIN)/python experiments/rates.py minilm-l6 e5-small-q4
	$(BIN)/python experiments/rates_adversary.py
	$(BIN)/python experiments/rates_certified.py
	$(BIN)/python experiments/rates_region.py
	$(BIN)/python experiments/every_input.py
	$(BIN)/python experiments/rates_ball.py
	$(BIN)/python experiments/fate.py
	$(BIN)/python experiments/basin.py
	$(BIN)/python experiments/head_statements.py
	$(BIN)/python experiments/loops.py
	$(BIN)/python experiments/loops.py --model minilm-l3
	$(BIN)/python experiments/loops.py --model e5-small-q4
	$(BIN)/python experiments/loops.py --model mpnet-base --sentences 2
	$(BIN)/python experiments/loops.py --model antiberty
	$(BIN)/python experiments/studies.py
	$(BIN)/python -m experiments.pages

# the suite on the newest Python at hand with the newest releases of everything, nothing locked
newest:
	sh tests/newest.sh

# wheel and sdist, installed into empty environments of python 3.11 and the newest one and used
package:
	sh tests/package.sh

LOCKED := --universal --generate-hashes --python-version 3.11 --fork-strategy fewest --no-emit-index-url --no-header \
  --no-annotate
lock:
	$(PYTHON) -m venv .cache/lock && .cache/lock/bin/python -m pip install --quiet uv
	.cache/lock/bin/uv pip compile $(LOCKED) --extra dev pyproject.toml tests/build.in --output-file requirements.lock
	.cache/lock/bin/uv pip compile $(LOCKED) --extra docs --constraint requirements.lock pyproject.toml tests/build.in \
	  --output-file requirements-docs.lock

clean:
	rm -rf $(VENV) .cache reports
