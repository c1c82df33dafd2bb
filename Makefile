# make demo    sets everything up, makes a raw log, runs one night, prints the top-K of a few users
# make test    sets everything up, passes all tests
# make check   the same without what takes seconds each: the unit tests
# make setup   the set-up alone: the environment is .venv (first time: minutes, later: a second)
#              STORES=s3,gcs,azure: with Spark's jars for these object stores
# make package dist/sparkrec.zip, the code for spark-submit --py-files
# make clean   removes all of it; Horovod's wheel and Delta's jars stay in the user's cache

BIN := .venv/bin
BEGAN := $(shell date +%s)
# The last words of a target: how long all of it took, set-up and checks included. Its exit code stays.
TOOK = code=$$?; s=$$(($$(date +%s) - $(BEGAN))); \
	printf 'make $@ took %d min %02d s\n' $$((s / 60)) $$((s % 60)) >&2; exit $$code

.PHONY: demo test check setup lint package clean

demo: setup
	@infra/demo.sh

test: setup lint
	$(BIN)/python -m pytest -n 3 --dist loadgroup --no-loadscope-reorder tests; $(TOOK)

check: setup lint
	$(BIN)/python -m pytest -n 2 --dist loadgroup --no-loadscope-reorder -m "not slow and not integration" tests; $(TOOK)

setup: export STORES := $(STORES)
setup:
	@infra/setup.sh

lint: setup
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

package:
	@python3 infra/package.py

clean:
	rm -rf .venv build dist demo warehouse spark-warehouse metastore_db derby.log *.egg-info \
	    .pytest_cache .ruff_cache .mypy_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
