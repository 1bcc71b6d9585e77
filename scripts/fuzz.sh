#!/bin/sh
# Drives every fuzz target by coverage for a while: fuzz.sh SECONDS [TARGET...]
#
# Where there is no nightly compiler or no cargo-fuzz it says what to install, and runs the property tests over the
# same targets on the stable compiler instead. What is found stays in fuzz/libfuzzer/artifacts/TARGET; put it into
# fuzz/corpus/TARGET once it is mended. What covers something new stays in fuzz/libfuzzer/working/TARGET.
set -eu

seconds=${1:-60}
[ $# -gt 0 ] && shift
cargo=${CARGO:-cargo}
fuzz=$(cd "$(dirname "$0")/../fuzz" && pwd)

missing=
rustup run nightly rustc --version > /dev/null 2>&1 || missing="rustup toolchain install nightly"
$cargo fuzz --version > /dev/null 2>&1 || missing="${missing:+$missing; }cargo install cargo-fuzz --locked"
if [ -n "$missing" ]; then
    echo "fuzzing by coverage needs more than is installed: $missing" >&2
    echo "running the property tests over the same targets instead" >&2
    exec $cargo test -p fuzz
fi

cd "$fuzz/libfuzzer"
targets=${*:-$(ls ../corpus)}
# All code is safe Rust: coverage is worth more than an address sanitizer, which would make it several times slower.
$cargo +nightly fuzz build --fuzz-dir . --sanitizer none target
binary=$(find "${CARGO_TARGET_DIR:-target}" -path '*/release/target' -type f | head -n 1)
failed=
for target in $targets; do
    mkdir -p "working/$target" "artifacts/$target"
    # New inputs go into the first folder; the seeds of the second are read and never written.
    status=found
    FUZZ_TARGET=$target "$binary" "working/$target" "../corpus/$target" "-artifact_prefix=artifacts/$target/" \
        -max_total_time="$seconds" -timeout=10 -rss_limit_mb=2048 -max_len=8192 -print_final_stats=1 \
        2> "working/$target.log" && status=good
    runs=$(sed -n 's/^stat::number_of_executed_units: *//p' "working/$target.log")
    covered=$(sed -n 's/.* cov: \([0-9]*\).*/\1/p' "working/$target.log" | tail -n 1)
    echo "$target: $status, ${runs:-no} runs, ${covered:-nothing} covered"
    if [ $status = found ]; then
        failed="$failed $target"
        grep -E "^(==|SUMMARY|thread )" "working/$target.log" || true
    fi
done
if [ -n "$failed" ]; then
    echo "found something in:$failed; see fuzz/libfuzzer/working/*.log and fuzz/libfuzzer/artifacts" >&2
    exit 1
fi
