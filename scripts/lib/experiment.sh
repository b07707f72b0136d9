# Shared by scripts/demo and scripts/million: one run of monitor, server and fleet, with everything ended and removed on
# every exit. Sourced from the project's root, with `set -euo pipefail`.

inside=()          # what precedes each command, where it runs elsewhere: `ip netns exec NAME`
server_options=()  # more options of the server
fleet_options=()   # more options of the fleet
fleet_nice=0       # how far the fleet stands back behind the server, where both share the processors
pids=()
bin=${CARGO_TARGET_DIR:-target}/release
run=recordings/$(date -u +%Y%m%dT%H%M%SZ)
work=$(mktemp -d)

usage() { sed -n '2,/^set /{/^#/s/^# \{0,1\}//p}' "$0"; }

# Reads `--name VALUE` for each given name into the variable of that name. --summary takes a file, --storm a share or none,
# --announcements a number or none, --subject one of two, all others a number.
options() {
    local known=" $1 " number='[1-9][0-9]{0,8}' form wanted
    shift
    while [ $# -gt 0 ]; do
        local name=${1#--}
        case "$1" in
            -h | --help) usage; exit 0 ;;
            --*) [[ "$known" == *" $name "* ]] || { echo "$0: unknown option '$1' (see --help)" >&2; exit 2; } ;;
            *) echo "$0: unexpected argument '$1' (see --help)" >&2; exit 2 ;;
        esac
        [ $# -ge 2 ] || { echo "$0: $1 wants a value" >&2; exit 2; }
        case "$name" in
            summary) form='.+' wanted='a file' ;;
            storm) form='none|[1-9][0-9]?(\.[0-9]+)?%' wanted='a share such as 30%, or none' ;;
            subject) form='server|floor' wanted='server or floor' ;;
            announcements) form="none|[1-9][0-9]{0,2}" wanted='a number from 1 to 999, or none' ;;
            *) form=$number wanted='a number from 1 on' ;;
        esac
        if ! [[ "$2" =~ ^($form)$ ]]; then
            echo "$0: $1 wants $wanted, not '$2'" >&2
            exit 2
        fi
        # A relative file is meant from where the script was called.
        case "$1$2" in --summary/*) ;; --summary*) set -- "$1" "$OLDPWD/$2" "${@:3}" ;; esac
        printf -v "$name" '%s' "$2"
        shift 2
    done
}

# Ends what this script started, newest first, and waits for it.
stop() {
    local index
    for ((index = ${#pids[@]} - 1; index >= 0; index--)); do
        kill -TERM "${pids[$index]}" 2>/dev/null || true
        wait "${pids[$index]}" 2>/dev/null || true
    done
    pids=()
}

# Waits for a file that process $2 writes once it serves; its log is $3.
ready() {
    until [ -e "$1" ]; do
        kill -0 "$2" 2>/dev/null || { cat "$3" >&2; exit 1; }
        sleep 0.05
    done
}

field() { sed -n "s/.*\"$2\":\"\([^\"]*\)\".*/\1/p" "$1"; }

# The whole run: $1 users on $2 machines through the phases $3. Sets `status`.
experiment() {
    local users=$1 machines=$2 phases=$3 monitor server
    (umask 077 && "$bin/hongbao-server" secret >"$work/secret")
    export HONGBAO_SECRET_FILE=$work/secret

    # The dashboard is to be seen from here, wherever the rest runs.
    local seen=()
    [ ${#inside[@]} -eq 0 ] || seen=(python3 scripts/lib/listening.py)
    "${seen[@]}" "${inside[@]}" "$bin/hongbao-monitor" --listen 127.0.0.1:0 --http 127.0.0.1:0 --record "$run" --view none \
        --expect-balanced --ready-file "$work/monitor.json" >"$work/monitor.out" 2>"$work/monitor.log" &
    monitor=$!
    pids+=("$monitor")
    ready "$work/monitor.json" "$monitor" "$work/monitor.log"

    "${inside[@]}" "$bin/hongbao-server" --listen 127.0.0.1:0 --admin 127.0.0.1:0 --ledger "$run/hongbao.ledger" \
        --monitor "$(field "$work/monitor.json" ingest)" --ready-file "$work/server.json" "${server_options[@]}" \
        >"$run/server.log" 2>&1 &
    server=$!
    pids+=("$server")
    ready "$work/server.json" "$server" "$run/server.log"
    echo "dashboard: http://$(field "$work/monitor.json" http)/     shake it yourself: http://$(field "$work/monitor.json" http)/shake"
    (umask 077 && "$bin/hongbao-server" token --for admin --ttl 1day operator >"$work/operator.token")
    echo "to operate it there, the token in $work/operator.token"

    status=0
    "${inside[@]}" nice -n "$fleet_nice" "$bin/hongbao-sim" fleet --users "$users" --machines "$machines" \
        --server "$(field "$work/server.json" listen)" --admin "http://$(field "$work/server.json" admin)" \
        --monitor "$(field "$work/monitor.json" ingest)" --phases "$phases" --rain 200 \
        --journal-dir "$run/journals" --guest-journal "$run/journals/guests.csv" --summary "$run/summary.json" \
        "${fleet_options[@]}" || status=$?

    kill -TERM "$server"
    wait "$server" || { echo "the server did not stop in order (exit code $?): $run/server.log" >&2; status=1; }
    kill -TERM "$monitor"
    wait "$monitor" || { echo "the monitor's books do not agree (exit code $?)" >&2; status=1; }
    pids=()
    sed -n '/^| books/,/agree/p' "$work/monitor.out"
    grep -v INFO "$work/monitor.log" || true

    echo
    local journals=() journal
    for journal in "$run"/journals/*.csv; do journals+=(--journal "$journal"); done
    "$bin/hongbao-server" audit --ledger "$run/hongbao.ledger" "${journals[@]}" || status=1
    # A fleet that could not even begin has no summary; what was recorded is told all the same.
    if [ -n "${summary:-}" ] && [ -e "$run/summary.json" ]; then cp "$run/summary.json" "$summary"; fi
    echo
    "$bin/hongbao-monitor" report "$run" || status=1
    echo "recording, journals and ledger: $run"
}

# What this machine can do at best: server/examples/floor.rs in the server's place, with the same fleet, $1 users on $2 machines,
# through the phases $3. It has no stock, no ledger and no books. Sets `status`.
experiment_on_the_floor() {
    local users=$1 machines=$2 phases=$3 floor
    (umask 077 && "$bin/hongbao-server" secret >"$work/secret")
    mkdir -p "$run"
    mkfifo "$work/orders"
    exec 5<>"$work/orders"
    "${inside[@]}" "$bin/examples/floor" 127.0.0.1:0 "$machines" <&5 >"$work/floor.json" 2>"$run/floor.log" &
    floor=$!
    pids+=("$floor")
    until grep -q listen "$work/floor.json"; do
        kill -0 "$floor" 2>/dev/null || { cat "$run/floor.log" >&2; exit 1; }
        sleep 0.05
    done
    status=0
    HONGBAO_SECRET_FILE=$work/secret "${inside[@]}" nice -n "$fleet_nice" "$bin/hongbao-sim" fleet --users "$users" \
        --machines "$machines" --server "$(field "$work/floor.json" listen)" --phases "$phases" \
        --journal-dir "$run/journals" --summary "$run/summary.json" "${fleet_options[@]}" || status=$?
    if [ -n "${summary:-}" ] && [ -e "$run/summary.json" ]; then cp "$run/summary.json" "$summary"; fi
    stop
    echo "summary: $run/summary.json"
}
