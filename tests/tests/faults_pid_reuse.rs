//! The pid file names a stranger. In a pid namespace of the test's own the number of a dead master is given to somebody
//! else: a program that notes every signal, and another proxy. Neither is ever signalled.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::process::Command;

use anyhow::{Context as _, Result, ensure};
use dysvr_tests::prefix::{MainConf, Prefix};
use dysvr_tests::proxy::LIMIT;
use dysvr_tests::{binaries, ports, process};

/// Runs in the namespace, where it is process 1. Whatever signals processes by the pid file is tried on each stranger.
const SCRIPT: &str = r#"
set -u
say() { echo "$*"; }
proxy() { "$PROXY" -p "$1" -c conf/nginx.conf; }
pid() { cat "$PREFIX/logs/nginx.pid"; }
alive() { kill -0 "$1" 2>/dev/null; }
# Ends a master and its workers, and reaps them: a number is free when nobody is left in the session that it names.
crash() {
    all="$1 $(cat "/proc/$1/task/$1/children")"
    kill -9 $all
    for one in $all; do while alive $one; do wait; done; done
}
# The next process gets this number: exactly that one is wanted, or the test shows nothing.
next() { echo $(($1 - 1)) > /proc/sys/kernel/ns_last_pid; }
try_all() {
    for verb in stop quit reload reopen dysvr; do
        "$PROXY" -p "$PREFIX" -c conf/nginx.conf -s $verb > "$OUT/said" 2>&1 && say "-s $verb was sent"
        grep -q 'is not our master' "$OUT/said" || say "-s $verb: $(cat "$OUT/said")"
    done
    for verb in "task add $PREFIX/1.conf" "verify" "status" "probe live"; do
        "$NODE" $verb --prefix "$PREFIX" --conf conf/nginx.conf > "$OUT/said" 2>&1
        grep -q 'is not our master' "$OUT/said" || say "$verb: $(cat "$OUT/said")"
    done
}

# A stranger that notes every signal.
proxy "$PREFIX"; dead=$(pid); crash $dead; next $dead
sh "$OUT/stranger" "$OUT" & stranger=$!
[ $stranger = $dead ] || say "the stranger got $stranger, not $dead"
until [ -e "$OUT/ready" ]; do sleep 0.01; done
try_all
alive $stranger || say "the stranger was killed"
# The agent starts a master of its own, and ends it with itself.
"$NODE" run --id n --prefix "$PREFIX" --conf conf/nginx.conf --proxy "$PROXY" --state "$OUT/state" > "$OUT/agent" 2>&1 & agent=$!
tries=0; until "$NODE" probe ready --prefix "$PREFIX" --conf conf/nginx.conf > "$OUT/said" 2>&1; do
    tries=$((tries + 1)); [ $tries -lt 3000 ] || { say "no agent: $(cat "$OUT/agent" "$OUT/said")"; break; }; sleep 0.02
done
[ "$(pid)" = $stranger ] && say "the pid file still names the stranger"
kill -TERM $agent; wait $agent
alive $stranger || say "the stranger was killed"
[ -e "$OUT/signals" ] && say "signals: $(cat "$OUT/signals")"
kill -9 $stranger; wait $stranger

# A stranger that is a proxy of the same program, younger than the pid file by next to nothing.
proxy "$PREFIX"; dead=$(pid); crash $dead; next $dead
"$PROXY" -p "$OTHER" -c conf/nginx.conf -g 'daemon off;' & stranger=$!
[ $stranger = $dead ] || say "the other proxy got $stranger, not $dead"
until [ -e "$OTHER/logs/nginx.pid" ]; do sleep 0.01; done
try_all
alive $stranger || say "the other proxy was ended"
grep -E 'signal .* received|reconfiguring' "$OTHER/logs/error.log"
"$PROXY" -p "$OTHER" -c conf/nginx.conf -s quit || say "its own command does not reach it"
wait $stranger
say over
"#;

/// Notes each signal that can be caught; the others end it or stop it, which is seen. CHLD comes of its own waiting.
const STRANGER: &str = r#"
for number in 1 2 3 4 5 6 7 8 10 11 12 13 14 15 16 18 20 21 22 23 24 25 26 27 28 29 30 31 $(seq 34 64); do
    trap "echo $number >> '$1/signals'" $number
done
: > "$1/ready"
while :; do sleep 0.05; done
"#;

#[test]
fn who_was_given_the_number_of_a_dead_master_is_never_signalled() -> Result<()> {
    let namespace = || {
        let mut command = Command::new("unshare");
        command.args(["--pid", "--fork", "--kill-child", "--mount-proc"]);
        command
    };
    if !namespace().args(["sh", "-c", "echo 99 > /proc/sys/kernel/ns_last_pid"]).output()?.status.success() {
        println!("skipped: a pid namespace takes root");
        return Ok(());
    }
    let conf = MainConf { daemon: true, ..MainConf::default() };
    let (prefix, other) = (Prefix::new(&conf)?, Prefix::new(&MainConf::default())?);
    // The other one is told by the command line whether to be a daemon.
    let text = other.main_conf(&MainConf::default()).replace("daemon off;\n", "");
    other.write("nginx.conf", &text)?;
    let port = ports::free()?;
    fs::write(prefix.path().join("1.conf"), format!("server {{ vsvc_id 1; listen 127.0.0.1:{port}; return 200; }}\n"))?;
    let out = tempfile::tempdir()?;
    fs::set_permissions(out.path(), fs::Permissions::from_mode(0o755))?;
    fs::write(out.path().join("stranger"), STRANGER)?;
    let mut command = namespace();
    command.args(["sh", "-c", SCRIPT]).env("PREFIX", prefix.path()).env("OTHER", other.path()).env("OUT", out.path());
    command.env("PROXY", binaries::path("dysvr-proxy")?).env("NODE", binaries::path("dysvr-node")?);
    let said = process::run(&mut command, LIMIT * 3).context("the script in its namespace")?;
    let (said, errors) = (String::from_utf8_lossy(&said.stdout), String::from_utf8_lossy(&said.stderr));
    ensure!(said == "over\n", "{said}\n{errors}\n{}", process::tail(&prefix.error_log()));
    Ok(())
}
