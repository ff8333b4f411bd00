# A short front for meson; `make help` lists what it does.

BUILD ?= build
# ccache where it is there, unless CC is set.
ifeq ($(origin CC),default)
CC := $(if $(shell command -v ccache),ccache gcc,gcc)
endif
SETUP = CC="$(CC)" meson setup $(SETUP_OPTIONS)
export VZ_BUILD := $(abspath $(BUILD))

all: $(BUILD)/build.ninja
	ninja -C $(BUILD)

# Again when packages have changed: what meson did not find then may be there now.
$(BUILD)/build.ninja: $(wildcard /var/lib/dpkg/status)
	tools/install-packages --check build
	$(SETUP) $(if $(wildcard $(BUILD)/build.ninja),--reconfigure) $(BUILD)

packages:
	tools/install-packages build lab test

demo: packages-demo all
	lab/demo

packages-demo:
	tools/install-packages build lab

check: packages all
	tests/run $(BUILD)

check-long: packages all
	tests/run --long $(BUILD)

# Not with other work on the machine. VZ_FAULTS_MINUTES: only a part; VZ_TEST_SEED: which one.
check-faults: packages all
	VZ_GUEST_OUT=$(VZ_BUILD)/guest python3 tests/lab/run_faults.py

# Needs no quiet machine; libvirtd makes and ends some fifty guests, which takes minutes.
compare: packages-demo all
	python3 tests/lab/compare_libvirt.py --write

bench: packages-demo all
	python3 tests/bench/migrate.py

# Unit tests; for the lab with one of these: VZ_BUILD=build-asan lab/lab up.
asan tsan clang: test-suites = --suite unit
asan: sanitizer = address,undefined
tsan: sanitizer = thread
asan tsan:
	tools/install-packages build test
	[ -e build-$@/build.ninja ] || $(SETUP) -Db_sanitize=$(sanitizer) -Db_lundef=false build-$@
	ninja -C build-$@
	UBSAN_OPTIONS=halt_on_error=1:print_stacktrace=1 tests/run $(test-suites) build-$@

clang:
	[ -e build-clang/build.ninja ] || CC=clang meson setup build-clang
	ninja -C build-clang
	tests/run $(test-suites) build-clang

install: all
	meson install --no-rebuild -C $(BUILD)

clean:
	rm -rf build build-asan build-tsan build-clang

help:
	@echo "make               build into BUILD=$(BUILD)"
	@echo "make demo          a guest moves between two hosts on this machine; as root"
	@echo "make check         all tests; as root. Installs what they need from this release"
	@echo "make check-long    the same and what takes long"
	@echo "make check-faults  every fault at every step of a move, for VZ_FAULTS_MINUTES; as root"
	@echo "make bench         moves guests by libvirt and by virtvz, in turns, and compares; as root"
	@echo "make compare       asks libvirt and virtvz what they say to every mistake; as root"
	@echo "make asan, tsan    build with sanitizers, into build-asan, build-tsan; unit tests"
	@echo "make clang         the same with clang, into build-clang"
	@echo "make install       install; DESTDIR is honoured"
	@echo "make packages      install what building and testing need"
	@echo "make clean         remove the build directories"

.NOTPARALLEL: # ninja is
.PHONY: all packages packages-demo demo bench compare check check-long check-faults asan tsan clang install clean help
