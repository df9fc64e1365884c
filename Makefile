# `make run` and `make test` do all the set-up by themselves; `make clean` undoes it.

PYTHON ?= python3
PYENV_ROOT ?= $(HOME)/.pyenv
VERSIONS := 3.10 3.11 3.12 3.13

# Debian's names; .ci/packages adds Python's own where they are needed.
BUILD_PACKAGES := gcc libc6-dev libevent-dev libffi-dev libssl-dev
TEST_PACKAGES := bind9-dnsutils curl debootstrap haproxy memcached netcat-openbsd nginx-light openssl \
	pgbouncer postgresql redis-server strace tmux valgrind zlib1g-dev
BENCH_PACKAGES := curl wrk
SOURCE_PACKAGES := gcc libc6-dev libssl-dev make patch
FUZZ_PACKAGES := clang libclang-rt-dev
# The list of Python's own names, so that they are links: nothing is fetched while the site is built.
DOCS_PACKAGES := python3-doc

BIN := .venv/bin
SOURCES := pyproject.toml setup.py build_ffi.py build_trace.py vendor/fetch.py vendor/libevent.toml \
	$(wildcard libevent_py/_c/* libevent_py/_trace/*.c)
# Not the headers of libevent_py/_c: they are libevent's own, token by token.
OUR_C := $(shell find libevent_py benchmarks samples tests -name '*.c') \
	$(wildcard benchmarks/c/*.h samples/c/*.h)
TWINS := $(patsubst samples/c/%.c,build/samples/%,$(wildcard samples/c/*.c))
# One more than there are processors, as many a test waits for a time or for another process.
WORKERS := $(shell expr $$(getconf _NPROCESSORS_ONLN) + 1)
PYTEST := MALLOC_PERTURB_=165 python -X dev -W error -m pytest --numprocesses $(WORKERS) \
	--dist worksteal
# Builds of libevent from its source, which vendor/builds.py makes: tests/kit/builds.py tells of them.
OTHER_BUILDS := asan ndebug 2.1.13
# Which tests run on them.
PYTEST_ARGUMENTS := -m 'not more'
# --final for the release itself.
RELEASE_ARGUMENTS :=
PIP := python -m pip --disable-pip-version-check install --quiet

# Installed by a path that type checkers find, too, as setuptools' own finder they don't.
EDITABLE := --config-settings editable_mode=compat --editable

# The tests start some thousands of Pythons: each would compile the whole package for itself.
unexport PYTHONDONTWRITEBYTECODE

# The versions of Python share one libevent_py/_ffi.abi3.so.
.NOTPARALLEL:
.DELETE_ON_ERROR:
.PHONY: run test more others quick test-all bench docs soak fuzz fuzz-parsers lint build release-check samples-c clean $(OTHER_BUILDS:%=test-%)

run: .venv/installed
	@$(BIN)/python -m samples.upper_listener

test: .venv/installed build/test-packages lint
	. $(BIN)/activate && $(PYTEST) -m 'not more' --durations 15

# What make test takes a sample of, or leaves out.
more: .venv/docs build/docs-packages build/test-packages
	. $(BIN)/activate && $(PYTEST) -m more --durations 15

# What depends on Python most: asyncio, C that knows Python's objects, and what is interrupted. Two minutes or so for each
# other version that is found.
OTHERS := tests/aio tests/serve tests/bufferevent tests/event tests/core/test_interrupts.py
OWN = $(shell $(PYTHON) -c 'import sys; print("%d.%d" % sys.version_info[:2])')
others: build/test-packages $(patsubst %,others-%,$(filter-out $(OWN),$(VERSIONS)))

# What takes a second or less: no valgrind, no random walks, no samples; and without the checks on
# Python's own memory, which take a fifth of the time.
quick: .venv/installed build/test-packages
	. $(BIN)/activate && PYTHONMALLOC=pymalloc $(PYTEST) -m 'not slow and not more' --durations 15

lint: .venv/installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy --strict
	$(BIN)/python build_ffi.py --lint
	$(BIN)/clang-format --dry-run -Werror $(OUR_C)

# Every version of VERSIONS that is found, each in its own virtual environment.
test-all: build/build-packages build/test-packages $(VERSIONS:%=test-%)

find = $(firstword $(wildcard $(PYENV_ROOT)/versions/$(1).*/bin/python$(1)) \
	$(shell command -v python$(1)))

in = @$(if $(call find,$*),$(MAKE) --no-print-directory interpreter=$(call find,$*) \
	.venvs/$*/installed && . .venvs/$*/bin/activate && python --version && $(1),echo 'Python $*: not found, left out')

test-%:
	$(call in,$(PYTEST) -m 'not more')

others-%:
	$(call in,$(PYTEST) -m 'not slow and not more' $(OTHERS) && $(PYTEST) -m 'not more' tests/aio/test_cpython.py)

.venvs/%/installed: build/build-packages $(SOURCES)
	test -x $(@D)/bin/python || $(interpreter) -m venv $(@D)
	. $(@D)/bin/activate && $(PIP) $(EDITABLE) '.[test]'
	touch $@

$(OTHER_BUILDS:%=test-%): test-%: .venv/installed build/test-packages build/source-packages
	. $(BIN)/activate && MALLOC_PERTURB_=165 python -m tests.kit.builds $* \
		--numprocesses $(WORKERS) --dist worksteal --durations 15 $(PYTEST_ARGUMENTS)

bench: .venv/bench build/bench-packages
	$(BIN)/python -m benchmarks

# The site, in build/docs: open build/docs/index.html. Python 3.11 or later, as Sphinx wants it.
docs: .venv/docs build/docs-packages
	$(BIN)/sphinx-build --fail-on-warning --keep-going --fresh-env --quiet docs build/docs

# Servers under good and bad clients, and then coroutines that are cancelled anywhere, for as long as one likes each:
# make soak MINUTES=60
MINUTES := 5
soak: .venv/soak build/test-packages
	$(BIN)/python -m tests.kit.soak --minutes $(MINUTES) --json build/soak.json --svg build/soak.svg
	$(BIN)/python -m tests.kit.soak.coroutines --minutes $(MINUTES) --json build/soak-coroutines.json

# Random programs in trouble, on libevent with AddressSanitizer: make fuzz MINUTES=60 FIRST=1
FIRST := $(shell date +%s)
fuzz: .venv/installed build/test-packages build/source-packages
	. $(BIN)/activate && python -m tests.kit.builds asan --module tests.kit.fuzz \
		--minutes $(MINUTES) --first $(FIRST)

# Whatever reads bytes from others, led by what they reach in C and in Python; TARGETS says which:
# make fuzz-parsers MINUTES=10 TARGETS='requests answers'
TARGETS := all
fuzz-parsers: .venv/parsers build/test-packages build/source-packages build/fuzz-packages
	mkdir -p build/corpus
	. $(BIN)/activate && python -m tests.kit.builds fuzz --module tests.kit.parsers \
		$(TARGETS) --minutes $(MINUTES) --seed $(FIRST) --corpus $(CURDIR)/build/corpus

build: .venv/installed
	$(BIN)/python -m build

# What is to be released, made twice of what is committed, and checked; into dist. See docs/releasing.md.
release-check: .venv/installed build/test-packages
	. $(BIN)/activate && python -m vendor.release $(RELEASE_ARGUMENTS) dist

# The samples in C, beside those in Python: build/samples/NAME is made of samples/c/NAME.c. It needs the development
# files of libevent, OpenSSL and zlib. Elsewhere than with GNU's linker: make samples-c LDFLAGS=-L/where/libevent/is
LDFLAGS ?= -Wl,--as-needed
samples-c: $(TWINS)

build/samples/%: samples/c/%.c $(wildcard samples/c/*.h) Makefile
	@mkdir -p $(@D)
	$(CC) -std=gnu11 -O2 -g -Wall -Wextra -Werror $(CFLAGS) $(LDFLAGS) -o $@ $< \
		-levent_openssl -levent_extra -levent_core -lssl -lcrypto -lz

# cffi is compiled here because its wheels are made without optimization: each callback would take a
# third longer to reach Python.
.venv/installed: build/build-packages $(SOURCES)
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	. $(BIN)/activate && $(PIP) --no-binary cffi 'cffi>=2.1'
	. $(BIN)/activate && $(PIP) $(EDITABLE) '.[test]'
	touch $@

.venv/bench: .venv/installed
	. $(BIN)/activate && $(PIP) $(EDITABLE) '.[bench]'
	touch $@

.venv/docs: .venv/installed
	. $(BIN)/activate && $(PIP) $(EDITABLE) '.[docs]'
	touch $@

.venv/soak: .venv/installed
	. $(BIN)/activate && $(PIP) $(EDITABLE) '.[soak]'
	touch $@

.venv/parsers: .venv/installed
	. $(BIN)/activate && $(PIP) $(EDITABLE) '.[parsers]'
	touch $@

build/build-packages: .ci/packages Makefile
	.ci/packages '$(PYTHON)' $(BUILD_PACKAGES)
	mkdir -p build && touch $@

build/test-packages: .ci/packages Makefile
	.ci/packages '$(PYTHON)' $(TEST_PACKAGES)
	mkdir -p build && touch $@

build/source-packages: .ci/packages Makefile
	.ci/packages '$(PYTHON)' $(SOURCE_PACKAGES)
	mkdir -p build && touch $@

build/fuzz-packages: .ci/packages Makefile
	.ci/packages '$(PYTHON)' $(FUZZ_PACKAGES)
	mkdir -p build && touch $@

build/docs-packages: .ci/packages Makefile
	.ci/packages '$(PYTHON)' $(DOCS_PACKAGES)
	mkdir -p build && touch $@

build/bench-packages: .ci/packages Makefile
	.ci/packages '$(PYTHON)' $(BENCH_PACKAGES)
	mkdir -p build && touch $@

clean:
	rm -rf .venv .venvs build dist vendor/include libevent_py/_ffi.*.so libevent_py/_trace/*.so *.egg-info
	rm -rf .mypy_cache .pytest_cache .ruff_cache
	find . -name __pycache__ -prune -exec rm -rf {} +
