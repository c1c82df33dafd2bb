#!/usr/bin/env bash
# One night from nothing: makes a raw log, runs the night on it, prints the lists of a few users. What `make demo`
# calls after the set-up. Everything lands in ./demo (DEMO=DIR for another folder), which is made anew.
set -euo pipefail
cd "$(dirname "$0")/.."
DEMO=${DEMO:-demo}
EVENTS=${EVENTS:-60000}
START=2024-01-01
LAST=2024-01-30 # 30 days, a file each
PATH=$PWD/.venv/bin:$PATH

say() { printf '\n\033[1m%s\033[0m\n' "$*"; }

show() { # prints a command as the user would type it, then runs it
    printf '$ %s\n' "$*"
    "$@"
}

rm -rf "$DEMO"
say "1. A raw log: $EVENTS invoice lines, a file a day"
settings=$(sparkrec make-log --format invoices --events "$EVENTS" --days 30 --start "$START" --out "$DEMO/raw")
echo "$settings"

say "2. The night of $LAST"
read -ra settings <<<"$settings"
show sparkrec nightly --conf conf/local.yaml --run-date "$LAST" "${settings[@]}" "warehouse.path=$DEMO/warehouse"

say "3. The lists of some users"
statement="select distinct user_id from topk_als where user_id in (select user_id from topk_gru)
    and user_id in (select user_id from topk_two_tower) order by user_id limit 2"
users=$(sparkrec query sql --format csv "$statement" "warehouse.path=$DEMO/warehouse" | tail -n +2)
for model in als gru two_tower; do
    for user in $users; do
        show sparkrec query topk --model "$model" --user "$user" --k 5 "warehouse.path=$DEMO/warehouse"
    done
done

say "4. How good they are, on the last days held out"
show sparkrec query metrics "warehouse.path=$DEMO/warehouse"

say "5. The report of the night is $DEMO/warehouse/reports/$LAST.html"
