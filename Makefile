# The Python that builds the test host (3.10 to 3.13); everything else runs in the host's own environment.
PYTHON ?= python3
HOST = $(PYTHON) -m scripts.host
# As they were given: a dollar sign in a name would stand for a variable of make.
override IN := $(value IN)
override OUT := $(value OUT)
export IN OUT

.PHONY: help demo convert test test-all lint types bench

help:
	@echo "make demo                        an HDR picture from a photo, in ./demo_output"
	@echo "make convert IN=photos OUT=hdr   the same for your own pictures (a file or a folder)"
	@echo "make test                        all tests; 'make test-all' adds the slow ones"
	@echo "make bench                       times and memory beside their limits"

demo:
	@$(HOST) run -m scripts.demo

convert:
	$(if $(and $(IN),$(OUT)),,$(error Usage: make convert IN=file-or-folder OUT=folder))
	@$(HOST) run -m scripts.convert --input="$$IN" --output="$$OUT"

test: lint
	@$(HOST) --tests run -m pytest -m "not slow"

test-all: lint
	@$(HOST) --tests run -m pytest

lint:
	@$(HOST) --tests run -m ruff check .

types:
	@$(HOST) --tests run -m scripts.check_types

bench:
	@$(HOST) --tests run -m benchmarks.run

# One area by itself, such as bench-formats for benchmarks/formats.py.
bench-%:
	@$(HOST) --tests run -m benchmarks.$*
