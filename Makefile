# `make demo` and `make test` set up everything they need in .venv; `make test PARITY=1` also compares with PyTorch.
PYTHON ?= $(shell for p in python3 python3.13 python3.12 python3.11; do \
	$$p -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' 2>/dev/null && echo $$p && break; done)
comma := ,
EXTRAS := test$(if $(PARITY),$(comma)parity)
RUN := .venv/bin/python
WORKERS ?= 2

.PHONY: demo test lint environment

demo: environment
	$(RUN) -m experiments.train --config=configs/simsiam_digits.py --workdir=runs/demo --config.data.data_dir=runs/data

test: environment
	$(RUN) -m pytest -n $(WORKERS) --dist loadfile

lint: environment
	$(RUN) -m ruff check .
	$(RUN) -m ruff format --check .

# The stamp names everything that an installation depends on, so an older or moved environment is brought up to date.
environment:
	@test -n "$(PYTHON)" || { echo "error: Python 3.11, 3.12 or 3.13 is needed: make PYTHON=/path/to/python3.12" >&2; exit 2; }
	@stamp=$$( { echo "$(CURDIR) $(PARITY)"; $(PYTHON) --version; cat setup.cfg pyproject.toml constraints.txt Makefile; } | cksum); \
	if [ "$$(cat .venv/stamp 2>/dev/null)" != "$$stamp" ] || ! $(RUN) -c 'import jax' 2>/dev/null; then \
		echo "setting up .venv"; rm -f .venv/stamp; \
		$(RUN) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' 2>/dev/null && $(RUN) -m pip --version >/dev/null 2>&1 \
			|| $(PYTHON) -m venv --clear .venv; \
		$(RUN) -m pip install --quiet --disable-pip-version-check -c constraints.txt -e ".[$(EXTRAS)]" && \
		$(if $(PARITY),$(RUN) -m pip install --quiet --disable-pip-version-check --no-deps torchvision==0.28.0 torch-fidelity==0.4.0 && )\
		echo "$$stamp" > .venv/stamp; \
	fi
