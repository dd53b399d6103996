# Every target does its own set-up: the environment in .venv, the pinned packages, the extensions. Later runs redo
# only what changed.
#
#   make PYTHON=python3.12 test      which Python the environment is made with
#   make VENV=../env test            another place for it, or an environment that exists: pinned packages are added
#   make TORCH=2.14.1 VENV=../torch214 test
#                                    another torch than the pinned one, in an environment of its own
#   make PYTHON=../env/bin/python VENV= gpu
#                                    no environment: that Python with the packages it has; nothing but imgops is added

PYTHON ?= python3
VENV ?= .venv
TORCH ?=
PYTEST_ARGS ?=

ifeq ($(strip $(VENV)),)
PY := $(PYTHON)
STAMPS := build/stamps
else
PY := $(VENV)/bin/python
STAMPS := $(VENV)/stamps
endif
# may be missing where VENV is empty: PYTHON need not have it
CLANG_FORMAT := $(dir $(PY))clang-format
PACKAGES := $(STAMPS)/packages
INSTALLED := $(STAMPS)/installed
SOURCES := setup.py pyproject.toml $(shell find csrc -type f)

.PHONY: help demo test test-slow fuzz sanitize lint bench gpu install hooks wheel clean

help:
	@echo "make demo       train a small StyleGAN2 within five minutes and show what it learned: demo/"
	@echo "make test       lint and the quick tests; make test-slow runs the rest"
	@echo "make fuzz       20,000 and more random calls of the ops against the reference, for some minutes"
	@echo "make sanitize   the CPU kernels with AddressSanitizer and UndefinedBehaviorSanitizer, under their tests (gcc)"
	@echo "make bench      the fused ops against plain PyTorch on this CPU, for 6 minutes or more: build/benchmarks/"
	@echo "make gpu        correctness and speed on this GPU, for 8 minutes: build/gpu/"
	@echo "make lint       ruff, clang-format and mypy; changes nothing"
	@echo "make install    the environment and an editable install, which the others do by themselves"
	@echo "make hooks      the same checks of what you commit, before each commit"
	@echo "make wheel      a wheel for this Python: dist/"
	@echo "make clean      remove what was built; the environment stays"

demo: $(INSTALLED)
	$(PY) -m imgops demo --out demo

test: lint $(INSTALLED)
	$(PY) -m pytest -n auto -m "not slow" $(PYTEST_ARGS)

test-slow: $(INSTALLED)
	$(PY) -m pytest -n auto -m slow $(PYTEST_ARGS)

fuzz: $(INSTALLED)
	IMGOPS_FUZZ_DRAWS=2500 $(PY) -m pytest -n auto --hypothesis-show-statistics tests/ops/test_fuzz.py $(PYTEST_ARGS)

sanitize: $(INSTALLED)
	$(PY) -m tests.sanitize -n auto $(PYTEST_ARGS)

bench: $(INSTALLED)
	$(PY) -m benchmarks.report

gpu: $(INSTALLED)
	$(PY) -m benchmarks.gpu

lint: $(PACKAGES)
	$(PY) -m ruff check .
	$(PY) -m ruff format --check .
	if test -x "$(CLANG_FORMAT)"; then find csrc tests/emulated_cuda -type f -exec $(CLANG_FORMAT) -n -Werror {} +; fi
	$(PY) -m mypy

install: $(INSTALLED)

hooks: $(PACKAGES)
	$(PY) -m pre_commit install

wheel: $(PACKAGES)
	$(PY) -m pip wheel --no-build-isolation --no-deps -w dist .

ifeq ($(strip $(VENV)),)
$(PACKAGES):
	@mkdir -p $(@D)
	@touch $@
else
$(PACKAGES): requirements-dev.txt
	test -x $(PY) || $(PYTHON) -m venv $(VENV)
	@mkdir -p $(@D)
	sed '$(if $(TORCH),s/^torch==.*/torch==$(TORCH)/)' requirements-dev.txt > $(STAMPS)/requirements.txt
	$(PY) -m pip install -r $(STAMPS)/requirements.txt
	$(PY) -c "import triton" 2>/dev/null || $(PY) -m pip install "triton==3.9.0; platform_system == 'Linux'"
	@touch $@
endif

# pip hides what a build prints; the page of info says what was built, and why something was not
$(INSTALLED): $(PACKAGES) $(SOURCES)
	$(PY) -m pip install --no-build-isolation --no-deps -e .
	$(PY) -m imgops info
	@mkdir -p $(@D)
	@touch $@

clean:
	rm -rf build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis .benchmarks
	rm -f imgops/*.so imgops/_build_report.json $(STAMPS)/installed
	find . -name __pycache__ -type d -not -path "./.venv/*" -prune -exec rm -rf {} +
