# Sourced by run: steps that print what they cost.

export CARGO_TERM_COLOR=never
export CARGO_INCREMENTAL=0 # everything is built once

steps=()

# Sets `cpu` to the CPU seconds, user and system, of all that has ended. In a subshell `times` would know of none.
take_cpu() {
    times >"$times_file"
    cpu=$(awk 'NR == 2 { split($1, u, "m"); split($2, s, "m"); printf "%d", (u[1] + s[1]) * 60 + u[2] + s[2] }' "$times_file")
}
times_file=$(mktemp)

# step NAME COMMAND...: runs the command and notes what it cost; ends the script if it fails.
step() {
    local name=$1 begun=$SECONDS status=0 cpu_before
    shift
    take_cpu && cpu_before=$cpu
    printf '\n== %s: %s\n' "$name" "$*"
    ("$@") || status=$?
    take_cpu
    steps+=("$(printf '%6d s %6d s  %s' $((SECONDS - begun)) $((cpu - cpu_before)) "$name")")
    ((status == 0)) || { printf '\n%s has failed (exit code %d)\n' "$name" "$status" >&2; exit "$status"; }
}

# What each step cost, also when one of them has failed.
print_steps() {
    take_cpu
    printf '\n== what it cost on %d cores\n    time      CPU\n' "$(nproc)"
    printf '%s\n' "${steps[@]}" "$(printf '%6d s %6d s  together' "$SECONDS" "$cpu")"
    rm -f "$times_file"
}
trap print_steps EXIT
