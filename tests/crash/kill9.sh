#!/usr/bin/env bash
# kill -9 of the broker in the middle of `loadgen both --verify` at full rate, restarted each time: 20 times,
# or as often as the first argument says. Ends with 0 if no acknowledged record was lost, repeated or corrupt.
set -euo pipefail
cd "$(dirname "$0")/../.."
MILLSTREAM_KILLS=${1:-20} MILLSTREAM_REQUIRE=io_uring exec cargo test --test crash kill_in -- --nocapture
