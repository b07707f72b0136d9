"""What scripts/bench, scripts/broadcast and scripts/memory share: the programs that are measured, an idle fleet to hold connections
to them, and a network namespace for more connections than a host's own tables are made for.

Everything that is started here is a context manager, so that it ends with the `with` block, however that is left.
"""

import contextlib
import json
import os
import pathlib
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
BIN = pathlib.Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target")) / "release"
SCRIPT = f"scripts/{pathlib.Path(sys.argv[0]).name}"
TICK = os.sysconf("SC_CLK_TCK")
PAGE = os.sysconf("SC_PAGE_SIZE")
# Set for the script that runs inside the namespace.
INSIDE = "HONGBAO_INSIDE_NAMESPACE"
# Beyond this the host's table of established sockets (262,144 entries for twice as many sockets) is what is measured.
NAMESPACE_FROM = 200_000
# Both ends and the kernel: what scripts/memory finds, rounded up.
BYTES_PER_CONNECTION = 10 * 1024
HASH = "net.ipv4.tcp_child_ehash_entries"
HASH_ENTRIES = 4_194_304


def fail(message):
    """Ends the script with one line that says what to do."""
    sys.exit(f"{SCRIPT}: {message}")


def end_on_signals():
    """Lets `with` blocks end what they started when the script itself is told to end."""
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, lambda number, _: sys.exit(128 + number))


def build(*examples):
    """Builds the programs, and the examples of these names."""
    if os.environ.get(INSIDE):
        return
    print("building", flush=True)
    for what in [["--bins", "-p", "hongbao-server", "-p", "hongbao-sim"]] + [["-p", "hongbao-server", "--example", name] for name in examples]:
        if subprocess.run(["cargo", "build", "--release", *what], cwd=ROOT).returncode != 0:
            fail("cargo could not build what is to be measured; its words are above")


@contextlib.contextmanager
def workplace():
    """A directory for this run, with a secret that every program started from here on finds."""
    with tempfile.TemporaryDirectory() as folder:
        work = pathlib.Path(folder)
        secret = work / "secret"
        secret.touch(mode=0o600)
        secret.write_bytes(subprocess.check_output([BIN / "hongbao-server", "secret"]))
        os.environ["HONGBAO_SECRET_FILE"] = str(secret)
        yield work


def tables(connections):
    """How many threads, each with a descriptor table of its own where one is too small, carry so many connections."""
    hard, cores = resource.getrlimit(resource.RLIMIT_NOFILE)[1], os.cpu_count()
    if hard == resource.RLIM_INFINITY or connections <= hard - 256:
        return cores
    # The rule of `descriptors::shards_for`.
    return next(count for count in range(cores, 1_025) if (hard - 64 - 6 * count) * count * 15 // 16 >= connections)


def cpu_seconds(pid):
    """User and system time of a process so far."""
    stat = pathlib.Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(stat[11]) + int(stat[12])) / TICK


def resident_bytes(pid):
    return int(pathlib.Path(f"/proc/{pid}/statm").read_text().split()[1]) * PAGE


def check_memory(connections):
    needed = connections * BYTES_PER_CONNECTION + (1 << 30)
    lines = pathlib.Path("/proc/meminfo").read_text().splitlines()
    available = next(int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:"))
    if needed > available:
        most = (available - (1 << 30)) // BYTES_PER_CONNECTION
        fail(f"{connections} connections need about {needed >> 20} MiB, {available >> 20} MiB are available: ask for at most {most}")


def inside_namespace(connections):
    """Runs this whole script again inside a network namespace of its own, if so many connections need one; does not return then.

    As in scripts/million: a large table of established sockets, and the settings of sysctl/ as far as they are the network's.
    """
    check_memory(connections)
    if connections <= NAMESPACE_FROM or os.environ.get(INSIDE):
        return
    if os.geteuid() != 0:
        fail(f"{connections} connections need a network namespace, and that needs root; up to {NAMESPACE_FROM} do without")
    for program in ("ip", "sysctl"):
        if not shutil.which(program):
            fail(f"no {program!r} here: apt-get install iproute2 procps")
    name, before = f"hongbao-{os.getpid()}", subprocess.check_output(["sysctl", "-n", HASH], text=True).strip()
    try:
        # The size holds for namespaces made after it was set.
        subprocess.run(["sysctl", "-qw", f"{HASH}={HASH_ENTRIES}"], check=True)
        try:
            subprocess.run(["ip", "netns", "add", name], check=True)
        finally:
            subprocess.run(["sysctl", "-qw", f"{HASH}={before}"], check=True)
        inside = ["ip", "netns", "exec", name]
        subprocess.run([*inside, "ip", "link", "set", "lo", "up"], check=True)
        for file in sorted((ROOT / "sysctl").glob("*.conf")):
            for line in file.read_text().splitlines():
                if line.startswith("net."):
                    key, _, value = line.partition("=")
                    subprocess.run([*inside, "sysctl", "-qw", f"{key.strip()}={value.strip()}"], check=True)
        with running([*inside, sys.executable, *sys.argv], patience=180, env={**os.environ, INSIDE: "1"}) as script:
            sys.exit(script.wait())
    except subprocess.CalledProcessError as error:
        fail(f"no network namespace: {error}")
    finally:
        subprocess.run(["ip", "netns", "delete", name], stderr=subprocess.DEVNULL)


@contextlib.contextmanager
def running(command, patience=60, **options):
    """A process that ends with the block: politely, and after so many seconds for certain."""
    process = subprocess.Popen([str(word) for word in command], **options)
    try:
        yield process
    finally:
        if process.poll() is None:
            process.terminate()
        try:
            process.wait(timeout=patience)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def heard(process, log):
    """The next line of JSON of a process."""
    line = process.stdout.readline()
    if not line:
        fail(f"a program ended early:\n{tail(log)}")
    return json.loads(line)


def tail(log):
    return "\n".join(log.read_text(errors="replace").splitlines()[-5:])


class Subject:
    """A server to be measured, `ours` or the `floor`: started afresh for each run, stopped by its pid."""

    def __init__(self, name, work, shards=None, options=(), core=None):
        self.name, self.work, self.core, self.options = name, work, core, [str(option) for option in options]
        self.shards = shards or os.cpu_count()
        self.log = work / f"{name}.log"

    def __enter__(self):
        with contextlib.ExitStack() as stack:
            self._start(stack)
            self.stack = stack.pop_all()
        return self

    def _start(self, stack):
        pin = ["taskset", "-c", str(self.core)] if self.core is not None else []
        log = stack.enter_context(open(self.log, "a"))
        if self.name == "floor":
            command = [*pin, BIN / "examples/floor", "127.0.0.1:0", self.shards]
            self.process = stack.enter_context(
                running(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, text=True))
            self.address, self.admin = heard(self.process, self.log)["listen"], None
            return
        ready = self.work / f"{self.name}.ready"
        for stale in [ready, *self.work.glob("subject.ledger*")]:
            stale.unlink(missing_ok=True)
        self.process = stack.enter_context(
            running([*pin, BIN / "hongbao-server", "--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0", "--shards", self.shards,
                     "--ledger", self.work / "subject.ledger", "--ready-file", ready, *self.options], stderr=log))
        while not ready.exists():
            if self.process.poll() is not None:
                fail(f"the server did not start:\n{tail(self.log)}")
            time.sleep(0.02)
        addresses = json.loads(ready.read_text())
        self.address, self.admin = addresses["listen"], f"http://{addresses['admin']}"
        self.token = subprocess.check_output(
            [BIN / "hongbao-server", "token", "--for", "admin", "--ttl", "1day", SCRIPT], text=True).strip()

    def __exit__(self, *error):
        return self.stack.__exit__(*error)

    def tell(self, line):
        """Gives the floor an order, and returns its answer."""
        self.process.stdin.write(line + "\n")
        self.process.stdin.flush()
        return heard(self.process, self.log)

    def call(self, path, body=None):
        """Calls the server's admin API: POST with a body, else GET. Returns the text of the answer."""
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(self.admin + path, data=data, headers={
            "authorization": f"Bearer {self.token}", "content-type": "application/json"})
        try:
            # No proxy of the environment stands between this script and what it has started.
            opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
            with opener.open(request, timeout=60) as answer:
                return answer.read().decode()
        except urllib.error.HTTPError as error:
            fail(f"{path} answered {error.code}: {error.read().decode(errors='replace').strip()}")
        except OSError as error:
            fail(f"{path}: {error}; the server's log ends:\n{tail(self.log)}")

    def online(self):
        return self.tell("online")["online"] if self.name == "floor" else json.loads(self.call("/v1/stats"))["users_online"]

    def cpu_seconds(self):
        return cpu_seconds(self.process.pid)


def fleet_command(work, address, users, phases, *options):
    """The whole fleet, connecting below the server's rate of logins. A machine has a source address, and may use half of its ports
    before `connect` slows down."""
    machines = max(4, -(-users // (18_000 if users > NAMESPACE_FROM else 12_000)))
    # Dozens of machines share the cores: waking each of them every millisecond costs more than the requests.
    pace = "4ms" if machines > 8 else "1ms"
    return [BIN / "hongbao-sim", "fleet", "--machines", machines, "--users", users, "--server", address, "--phases", phases,
            "--connect-rate", 18_000 if users > 50_000 else 5_000, "--pace", pace, "--journal-dir", work / "journals", *options]


@contextlib.contextmanager
def idle_fleet(subject, users):
    """All users logged in and silent, for as long as the block lasts."""
    log_path = subject.work / "fleet.log"
    # A schedule whose first request is a day away would be best; one request a second is as good as none.
    command = fleet_command(subject.work, subject.address, users, "1x86400s")
    with open(log_path, "w") as log, running(command, stdout=log, stderr=log) as fleet:
        deadline, online = time.monotonic() + 60 + users / 2_500, 0
        while online < users:
            if fleet.poll() is not None:
                fail(f"the fleet ended early:\n{tail(log_path)}")
            if time.monotonic() > deadline:
                fail(f"only {online} of {users} users could log in: see --help for what so many need")
            time.sleep(0.5 if users <= NAMESPACE_FROM else 2)
            online = subject.online()
            if users > NAMESPACE_FROM:
                print(f"  {subject.name}: {online} of {users} logged in", flush=True)
        # Logins leave work behind: acknowledgements, timers, memory on its way back.
        time.sleep(3)
        yield fleet
