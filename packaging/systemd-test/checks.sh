# What is done inside the booted system: the steps of a real installation, and
# what must then be so. Reads as a list; the first that fails ends it.
set -euo pipefail
fail() { echo "FAILED: $1" >&2; exit 1; }
step() { echo "ok  $1"; }
property() { systemctl show --property "$2" --value "$1"; }
# has is grep -q that reads to the end: who writes is not cut off.
has() { grep "$@" > /dev/null; }
# The status line is brought up to date every 15 s at the latest.
wait_for() { for _ in $(seq 800); do eval "$1" && return; sleep 0.05; done; fail "waited 40 s for: $1"; }

install -m 755 /share/hsagentd /share/hsctl /usr/bin/
install -m 644 /share/systemd/system/* /usr/lib/systemd/system/
install -m 644 /share/systemd/user/* /usr/lib/systemd/user/
install -m 644 /share/sysusers.d/* /usr/lib/sysusers.d/
install -m 644 /share/tmpfiles.d/* /usr/lib/tmpfiles.d/
systemd-sysusers hsagent.conf
systemd-tmpfiles --create hsagent.conf
systemctl daemon-reload
systemd-analyze verify --man=no --recursive-errors=no hsagentd.service hsagentd.socket
step "units verified where they are installed"

mkdir -m 755 /run/hub
systemd-run --quiet --unit=hub /share/hub /run/hub
wait_for '[ -s /run/hub/base.txt ]'
hsagentd init --upstream "$(cat /run/hub/base.txt)" --upstream-ca /run/hub/ca.pem
[ "$(stat -c %a:%U /etc/hsagent/identity.txt)" = 600:root ] || fail "the identity is not root's alone"
[ "$(stat -c %a:%U /var/lib/hsagent/store.age)" = 600:hsagent ] || fail "the store is not the service's"
[ "$(stat -c %a:%U /etc/hsagent/audit.key)" = 600:root ] || fail "the audit log's key is not root's alone"
step "init"

systemctl enable --quiet --now hsagentd.socket
[ "$(property hsagentd.service ActiveState)" = inactive ] || fail "the service runs before anybody called"
export HSAGENT_SOCK=/run/hsagent/agent.sock
hsctl onboard acme-corp < /run/hub/token > /dev/null
step "the first client starts the service, and the identity came as a credential"
pid=$(property hsagentd.service MainPID)
! runuser -u hsagent -- cat /etc/hsagent/identity.txt 2>/dev/null || fail "the service's user can read the identity's file"
tr '\0' '\n' < "/proc/$pid/environ" | has '^CREDENTIALS_DIRECTORY=' || fail "no credential was handed over"

! runuser -u hsagent -- cat /etc/hsagent/audit.key 2>/dev/null || fail "the service's user can read the log's key in /etc"
grep -q "$(hsctl audit checkpoint | head -1)" <(hsctl audit key) || fail "no checkpoint by the log's key"
hsctl call acme-corp GET /crm/v3/objects/contacts --query limit=2 | has '"results"' || fail "no contacts"
curl -s --unix-socket $HSAGENT_SOCK "http://hsagent/v1/call/acme-corp/crm/v3/objects/contacts?limit=2" | has '"results"' || fail "no contacts for curl"
step "calls through the socket, by hsctl and by curl"
hsctl audit query --slug acme-corp -o json | has call.outcome || fail "the call is not recorded"
hsctl status -o json | has '"socketActivated": true' || fail "the socket is not systemd's"
step "recorded"

[ "$(property hsagentd.service ActiveState)/$(property hsagentd.service SubState)" = active/running ] || fail "not running"
wait_for '[[ $(property hsagentd.service StatusText) == "portals: 1 ready"* ]]'
step "READY and STATUS: $(property hsagentd.service StatusText)"
journalctl -o json -u hsagentd.service _TRANSPORT=journal | has '"SYSLOG_IDENTIFIER":"hsagentd"' || fail "nothing in the journal's own protocol"
! journalctl -o export -u hsagentd.service | has -i 'pat-na1-[0-9a-f]' || fail "a token in the journal"
step "journal"

# What the kernel hides from all other programs without the unit, it hides with it.
memory() { grep -o '"tokenMemory": *"[a-z]*"' | grep -o '[a-z]*"$' | tr -d '"'; }
able=$(hsagentd demo -- hsctl status -o json 2>/dev/null | memory)
[ -n "$able" ] && [ "$(hsctl status -o json | memory)" = "$able" ] || fail "tokens are in $(hsctl status -o json | memory) memory, and could be in $able memory"
step "the tokens are in $able memory"

grep -q '^Max core file size *0 *0' "/proc/$pid/limits" || fail "core files are allowed"
grep -q '^Seccomp:[[:space:]]*2' "/proc/$pid/status" || fail "no system call filter"
grep -q '^CapEff:[[:space:]]*0*$' "/proc/$pid/status" || fail "it has capabilities"
grep -q '^NoNewPrivs:[[:space:]]*1' "/proc/$pid/status" || fail "it can gain privileges"
[ "$(stat -c %U "/proc/$pid/environ")" = root ] || fail "it is dumpable"
step "closed"

systemctl reload hsagentd.service
[ "$(property hsagentd.service MainPID)" = "$pid" ] || fail "a reload restarted it"
hsctl portals acme-corp -o json | has '"ready"' || fail "not ready after the reload"
step "reload"

kill -KILL "$pid"
wait_for '[ "$(property hsagentd.service NRestarts)" = 1 ]'
hsctl call acme-corp GET /crm/v3/objects/contacts --query limit=1 | has '"results"' || fail "no contacts after the crash"
hsctl audit query -o json | has agent.started || fail "the start is not recorded"
step "killed, restarted, serves"

# The drop-in of docs/policy.md.
groupadd dashboards
useradd --groups dashboards bob
mkdir /etc/systemd/system/hsagentd.service.d
printf '%s\n' '[Service]' RuntimeDirectory=hsagent-readonly SupplementaryGroups=dashboards 'SystemCallFilter=chown fchownat' \
	> /etc/systemd/system/hsagentd.service.d/readonly.conf
sed -i '1i socket_readonly = "/run/hsagent-readonly/agent.sock"\nsocket_readonly_group = "dashboards"' /etc/hsagent/config.toml
systemctl daemon-reload
systemctl restart hsagentd.service || fail "no start with a read-only socket"
bob() { runuser -u bob -- hsctl --socket /run/hsagent-readonly/agent.sock "$@"; }
bob call acme-corp GET /crm/v3/objects/contacts --query limit=1 | has '"results"' || fail "no contacts on the read-only socket"
! bob call acme-corp POST /crm/v3/objects/contacts -d '{}' 2>/dev/null || fail "a change on the read-only socket"
step "a socket for reading, with the drop-in that the documentation names"

systemctl stop hsagentd.service hsagentd.socket
[ "$(property hsagentd.service Result)" = success ] || fail "the stop was no success"
hsagentd check || fail "check found something"
# Root's look for a loss finds none, and leaves the log the service's.
! hsagentd accept-loss 2>/dev/null || fail "a loss was accepted where there is none"
systemctl start hsagentd.service || fail "no start after root's check"
hsctl call acme-corp GET /crm/v3/objects/contacts --query limit=1 | has '"results"' || fail "no contacts after root's check"
systemctl stop hsagentd.service
step "stopped, and the audit log is sound"

useradd --create-home alice
loginctl enable-linger alice
uid=$(id -u alice)
wait_for '[ -S /run/user/$uid/systemd/private ]'
alice() { setpriv --reuid="$uid" --regid="$uid" --init-groups env -i HOME=/home/alice PATH="$PATH" XDG_RUNTIME_DIR="/run/user/$uid" "$@"; }
alice hsagentd init --upstream "$(cat /run/hub/base.txt)" --upstream-ca /run/hub/ca.pem > /dev/null
alice systemctl --user enable --quiet --now hsagentd.socket
alice HSAGENT_SOCK="/run/user/$uid/hsagent/agent.sock" hsctl onboard acme-corp < /run/hub/token > /dev/null
alice HSAGENT_SOCK="/run/user/$uid/hsagent/agent.sock" hsctl call acme-corp GET /crm/v3/objects/contacts --query limit=1 | has '"results"' || fail "no contacts for alice"
[ "$(alice systemctl --user show -p ActiveState --value hsagentd.service)" = active ] || fail "alice's service is not active"
step "a user's own agent"
