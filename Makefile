VENV ?= .venv
TORCH ?= cpu
BIN := $(VENV)/bin
export OMP_NUM_THREADS := 1
unexport PYTHONDONTWRITEBYTECODE  # the tests start hundreds of processes, which need not compile our modules each

.PHONY: help setup demo test test-full bench-server bench-refine bench-extract bench-quality bench-anonymise bench-pay bench-judge bench-null bench-attacks bench-regmix bench-train bench-optimizer check fix lock sdk clean

help:  ## what can be made
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

setup: $(VENV)/.ready  ## a virtual environment with the locked versions (TORCH=cuda for a GPU build)

$(VENV)/.ready: setup.py requirements.lock scripts/setup.sh
	bash scripts/setup.sh $(VENV) $(TORCH)

demo: setup  ## the whole loop on this machine: WARC files in, a released model out (ARGS="--warc FILE")
	$(BIN)/athena demo $(ARGS)

test: setup  ## the test suite; the longest tests first, among them a whole loop whose processes are killed
	$(BIN)/python -m pytest -n 3 --dist loadfile --no-loadscope-reorder -m "not full"

test-full: setup  ## everything, full-size runs included
	$(BIN)/python -m pytest -n 3 --dist loadfile --no-loadscope-reorder --ignore tests/loop
	$(BIN)/python -m pytest -n 2 --dist load tests/loop

bench-server: setup  ## claims per second of the task server, as JSON lines (takes minutes; ARGS=--quick)
	$(BIN)/python scripts/bench_server.py $(ARGS)

bench-refine: setup build/stock/.ready  ## pages per second of fineweb-1 against datatrove's blocks, as JSON lines (takes long; ARGS=--quick)
	$(BIN)/python scripts/bench_refine.py $(ARGS)

# What datatrove's own blocks need beside our packages; it would overwrite our fastText, so it lies in a folder apart.
build/stock/.ready: Makefile
	$(BIN)/pip install --quiet --no-deps --upgrade --target build/stock fasttext-numpy2-wheel==0.9.2 pyahocorasick==2.3.1
	touch $@

bench-extract: setup  ## F1 and speed of extractors on labelled pages, as JSON lines (ARGS="--all --quick")
	$(BIN)/python scripts/bench_extract.py $(ARGS)

bench-quality: setup  ## good and bad texts that each recipe keeps, as JSON lines (ARGS="--recipe fineweb-1")
	$(BIN)/python scripts/bench_quality.py $(ARGS)

bench-anonymise: setup  ## precision and recall of the anonymiser by kind, and its speed; a table and a JSON line
	$(BIN)/python scripts/bench_anonymise.py $(ARGS)

bench-pay: setup  ## what the pay formula pays under the measured noise, as JSON lines (ARGS="--rules 1")
	$(BIN)/python scripts/bench_pay.py $(ARGS)

bench-judge: setup  ## does the proxy rank datasets of known order, as JSON lines (takes up to an hour; ARGS=--quick)
	$(BIN)/python scripts/bench_judge.py $(ARGS)

bench-null: setup  ## does the proxy tell equally refined samples apart, as JSON lines (takes half an hour; ARGS=--quick)
	$(BIN)/python scripts/bench_null.py $(ARGS)

bench-attacks: setup  ## what attacks on the judge earn, and who catches them, as JSON lines (takes long; ARGS=--quick)
	$(BIN)/python -m scripts.bench_attacks $(ARGS)

bench-regmix: setup  ## do learnt weights of a mixture's sources help, as a JSON line (needs ARGS="--data FOLDER"; minutes)
	$(BIN)/python scripts/bench_regmix.py $(ARGS)

bench-train: setup  ## tokens per second beside transformers' Trainer, as JSON lines (takes long; ARGS=--quick)
	$(BIN)/python scripts/bench_train.py $(ARGS)

bench-optimizer: setup  ## do our defaults need 75 % of AdamW's tokens, as JSON lines (takes an hour; ARGS="--steps 150")
	$(BIN)/python scripts/bench_optimizer.py $(ARGS)

check: setup  ## lint, types, direction of imports, the style guide's numbers
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python scripts/check_style.py

fix: setup  ## let ruff mend what it can
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

lock: setup  ## write the installed versions to requirements.lock
	( head -1 requirements.lock; $(BIN)/pip freeze --exclude-editable | sed 's/+cpu$$//' ) > requirements.lock.new
	mv requirements.lock.new requirements.lock

sdk: setup  ## clients of the task server for Python and TypeScript in build/sdk (needs PyPI and npm once)
	$(BIN)/python scripts/sdk.py

clean:  ## remove caches, the clients and the demo's output, keep the environment
	rm -rf demo-out build/sdk .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
