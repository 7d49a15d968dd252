"""The virtual board: a Debian arm64 machine under qemu's full-system emulation.

    with Board("IMAGEDIR") as board:
        board.run("systemctl is-system-running")

Every board starts from the clean image; its disk is a throw-away overlay.  With `state` it starts from a saved
machine that had booted, in seconds; with `prepare` from one on which something was done before it was saved.
"""
import contextlib
import fcntl
import hashlib
import json
import os
import shlex
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

BOARD_FAILED = 125
MACHINES = {
    "arm64": dict(
        qemu="qemu-system-aarch64",
        machine="virt,gic-version=3",
        cpu="cortex-a76",
        console="ttyAMA0",
    ),
    "amd64": dict(
        qemu="qemu-system-x86_64", machine="q35", cpu="max", console="ttyS0"
    ),
}


class BoardError(Exception):
    """The board, not the command run on it, failed."""


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


class Board:
    """A running virtual board.  A context manager; leaves nothing behind.

    prepare: (key, function): what function(board) does is done once and saved; boards of the same key start behind it.
    """

    def __init__(self, image, *, kvm=False, cpu=None, cpus=2, memory=1024, state=False, prepare=None,
                 forwards=(), log=None, boot_timeout=300, qemu_args=()):
        self.image = Path(image).resolve()
        for name in ("disk.qcow2", "vmlinuz", "initrd.img", "board.env", "ssh_key", "known_hosts"):
            if not (self.image / name).is_file():
                raise BoardError(f"{self.image / name} is missing: run build-image.sh")
        env = dict(l.split("=", 1) for l in (self.image / "board.env").read_text().split())
        self.hw = MACHINES[env["arch"]]
        self.kvm, self.cpu = kvm, cpu or ("host" if kvm else self.hw["cpu"])
        self.cpus, self.memory, self.use_state = cpus, memory, state or prepare is not None
        self.prepare = prepare
        self.forwards = {int(p): None for p in forwards}  # guest port -> host port
        self.boot_timeout, self.qemu_args, self.log = boot_timeout, list(qemu_args), log
        self.qemu = self.tmp = self._qmp = None
        self.boot_seconds = None

    # -- life cycle ---------------------------------------------------------------------
    def __enter__(self):
        self.tmp = Path(tempfile.mkdtemp(prefix="board-"))
        try:
            if self.use_state:
                with self._saved_state() as (base, incoming):
                    self._start(base, incoming)
            else:
                self._start(self.image / "disk.qcow2", None)
        except BaseException:
            self.__exit__(*sys.exc_info())
            raise
        return self

    def __exit__(self, kind, value, tb):
        if kind is not None and issubclass(kind, BoardError):
            self._show_console()
        self._stop()
        if self.log and self.tmp and (self.tmp / "console.log").exists():
            shutil.copy(self.tmp / "console.log", self.log)
        shutil.rmtree(self.tmp, ignore_errors=True)

    def _command_line(self, overlay, port, incoming):
        hw = self.hw
        accel = "kvm" if self.kvm else "tcg,thread=multi,tb-size=256"
        hostfwd = f",hostfwd=tcp:127.0.0.1:{port}-:22"
        for guest in self.forwards:
            self.forwards[guest] = free_port()
            hostfwd += f",hostfwd=tcp:127.0.0.1:{self.forwards[guest]}-:{guest}"
        args = [
            hw["qemu"], "-nodefaults", "-no-user-config", "-display", "none",
            "-M", hw["machine"], "-accel", accel, "-cpu", self.cpu,
            "-smp", str(self.cpus), "-m", str(self.memory),
            "-kernel", str(self.image / "vmlinuz"), "-initrd", str(self.image / "initrd.img"),
            "-append", f"root=/dev/vda console={hw['console']} loglevel=6",
            "-drive", f"if=none,id=disk,file={overlay},format=qcow2,cache=unsafe,discard=unmap",
            "-device", "virtio-blk-pci,drive=disk",
            # restrict=on: the board reaches no other machine, only the forwarded ports work.
            "-netdev", f"user,id=net,restrict=on{hostfwd}",
            "-device", "virtio-net-pci,netdev=net,romfile=",
            "-device", "virtio-rng-pci",
            "-serial", f"file:{self.tmp}/console.log",
            "-qmp", f"unix:{self.tmp}/qmp,server=on,wait=off",
        ]
        if incoming:
            args += ["-incoming", f"exec:cat {shlex.quote(str(incoming))}"]
        return args + self.qemu_args

    def _start(self, base, incoming):
        started = time.monotonic()
        overlay = self.tmp / "overlay.qcow2"
        self._tool("qemu-img", "create", "-q", "-f", "qcow2", "-F", "qcow2", "-b", base, overlay)
        for attempt in range(3):
            self.port = free_port()
            with open(self.tmp / "qemu.err", "wb") as err:
                # Its own session, so that Ctrl-C here is handled by us, not by qemu.
                self.qemu = subprocess.Popen(
                    self._command_line(overlay, self.port, incoming),
                    stdin=subprocess.DEVNULL, stdout=err, stderr=err, start_new_session=True)
            time.sleep(0.3)
            if self.qemu.poll() is None:
                break
            message = (self.tmp / "qemu.err").read_text(errors="replace")
            if "forwarding" not in message:  # another process took the port: try again
                raise BoardError(f"qemu did not start: {message.strip()}")
        else:
            raise BoardError("no free port for ssh")
        if incoming:
            self._wait_incoming()
        self._wait_ssh(started)
        if incoming:  # the saved clock is old; the board has no time server
            self.run(f"date -s @{time.time():.3f} >/dev/null", check=True)
        else:
            self._wait_running()
        self.boot_seconds = time.monotonic() - started

    def _wait_running(self):
        state = self.run("systemctl is-system-running --wait", capture=True).stdout.strip()
        if state != "running":
            failed = self.run("systemctl --failed --no-legend --plain", capture=True).stdout
            raise BoardError(f"the board came up {state!r}: {failed}")

    def reboot(self, power_cut=False):
        """Restart with the disk as it is.  power_cut: no shutdown, unsynced data is lost."""
        started = time.monotonic()
        boot_id = "cat /proc/sys/kernel/random/boot_id"
        before = self.run(boot_id, check=True, capture=True).stdout
        if not power_cut:
            self.run("systemctl reboot", capture=True)
        self._ssh_exit()
        if power_cut:
            self.qmp("system_reset")
        while True:
            self._wait_ssh(started)
            after = self.run(boot_id, capture=True)
            if after.returncode == 0 and after.stdout != before:
                break
            self._ssh_exit()  # still the old boot, on its way down
            time.sleep(0.5)
        self._wait_running()

    def _wait_ssh(self, started):
        while True:
            self._alive()
            try:
                if self.run("true", capture=True, timeout=20).returncode == 0:
                    return
            except subprocess.TimeoutExpired:
                pass
            if time.monotonic() - started > self.boot_timeout:
                raise BoardError(f"no ssh after {self.boot_timeout} s")
            time.sleep(0.3)

    def _alive(self):
        if self.qemu.poll() is not None:
            err = (self.tmp / "qemu.err").read_text(errors="replace").strip()
            raise BoardError(f"qemu ended with {self.qemu.returncode}: {err}")

    def _stop(self):
        self._ssh_exit()
        if self.qemu and self.qemu.poll() is None:
            with contextlib.suppress(Exception):
                self.qmp("quit")
            try:
                self.qemu.wait(5)
            except subprocess.TimeoutExpired:
                self.qemu.kill()
                self.qemu.wait()
        if self._qmp:
            self._qmp.close()
            self._qmp = None

    def poweroff(self, timeout=60):
        """Shut down in order (systemd stops the services) and wait for qemu to end."""
        self.run("systemctl poweroff", capture=True)
        try:
            self.qemu.wait(timeout)
        except subprocess.TimeoutExpired:
            raise BoardError(f"the board did not power off in {timeout} s") from None

    # -- saved machine state ------------------------------------------------------------
    @contextlib.contextmanager
    def _saved_state(self):
        """(disk, memory) of a machine that has booted, and was prepared; makes and saves what there is not.

        Nobody else saves or removes one meanwhile.
        """
        version = subprocess.run([self.hw["qemu"], "--version"], check=True, text=True,
                                 capture_output=True).stdout
        built = (self.image / "disk.qcow2").stat()
        key = repr((version, self.cpu, self.cpus, self.memory, self.kvm, self.qemu_args,
                    sorted(self.forwards), built.st_mtime_ns, built.st_size))
        with open(self.image / "state.lock", "w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            disk, memory = self._saved("booted", key, self.image / "disk.qcow2", None, None)
            if self.prepare:
                more, function = self.prepare
                disk, memory = self._saved("prepared", key + more, disk, memory, function)
            yield disk, memory

    def _saved(self, kind, key, base, incoming, prepare):
        """(disk, memory) of that key; one of each kind is kept."""
        folder = self.image / f"state-{kind}-{hashlib.sha256(key.encode()).hexdigest()[:12]}"
        if not (folder / "complete").exists():
            for old in self.image.glob(f"state-{kind}-*"):
                shutil.rmtree(old)
            folder.mkdir()
            self._start(base, incoming)
            if prepare:
                prepare(self)
            self._save(folder)
            (folder / "complete").touch()
        return folder / "disk.qcow2", folder / "memory"

    def _save(self, folder):
        self.run("sync", check=True)
        self._ssh_exit()
        self.qmp("stop")
        self.qmp("migrate-set-parameters", **{"max-bandwidth": 10 << 30})
        self.qmp("migrate", uri=f"exec:cat > {shlex.quote(str(folder / 'memory'))}")
        deadline = time.monotonic() + 120
        while True:
            status = self.qmp("query-migrate").get("status")
            if status == "completed":
                break
            if status == "failed" or time.monotonic() > deadline:
                raise BoardError(f"saving the machine state: {status}")
            time.sleep(0.1)
        self._stop()
        shutil.move(self.tmp / "overlay.qcow2", folder / "disk.qcow2")
        self.qemu = None

    def _wait_incoming(self):
        deadline = time.monotonic() + 60
        while True:
            self._alive()
            status = self.qmp("query-status")["status"]
            if status not in ("inmigrate", "postmigrate", "prelaunch"):
                break
            if time.monotonic() > deadline:
                raise BoardError(f"restoring the machine state: {status}")
            time.sleep(0.05)
        if status != "running":
            self.qmp("cont")

    # -- channels -----------------------------------------------------------------------
    def qmp(self, command, **arguments):
        """One qemu monitor command: device_del, system_reset, set_link, ..."""
        if not self._qmp:
            deadline = time.monotonic() + 10
            while True:
                try:
                    self._qmp = socket.socket(socket.AF_UNIX)
                    self._qmp.connect(str(self.tmp / "qmp"))
                    break
                except OSError:
                    if time.monotonic() > deadline:
                        raise BoardError("no qemu monitor") from None
                    time.sleep(0.05)
            self._qmp.settimeout(30)
            self._qmp_file = self._qmp.makefile("r")
            self._qmp_file.readline()  # greeting
            self.qmp("qmp_capabilities")
        message = {"execute": command, "arguments": arguments}
        self._qmp.sendall(json.dumps(message).encode())
        while True:
            line = self._qmp_file.readline()
            if not line:
                raise BoardError(f"qemu closed its monitor during {command}")
            reply = json.loads(line)
            if "error" in reply:
                raise BoardError(f"qemu: {command}: {reply['error']['desc']}")
            if "return" in reply:
                return reply["return"]  # anything else is an event

    def _ssh(self):
        return ["ssh", "-F", "none", "-p", str(self.port), "-i", str(self._key()),
                "-o", f"UserKnownHostsFile={self.image}/known_hosts", "-o", "HostKeyAlias=board",
                "-o", "StrictHostKeyChecking=yes", "-o", "BatchMode=yes",
                "-o", "IdentitiesOnly=yes", "-o", "ConnectTimeout=15", "-o", "LogLevel=ERROR",
                "-o", "ControlMaster=auto", "-o", f"ControlPath={self.tmp}/ssh",
                "-o", "ControlPersist=600", "root@127.0.0.1"]

    def _key(self):
        # ssh refuses a key that others can read; a copied or cached image may have lost its mode.
        key = self.tmp / "ssh_key"
        if not key.exists():
            key.touch(mode=0o600)
            key.write_bytes((self.image / "ssh_key").read_bytes())
        return key

    def _ssh_exit(self):
        if self.tmp and (self.tmp / "ssh").exists():
            subprocess.run(self._ssh()[:-1] + ["-O", "exit", "root@127.0.0.1"],
                           stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

    def lend_port(self, port):
        """What listens on this port of the host's loopback is reached on the same port of the board's."""
        forward = ["-O", "forward", "-R", f"127.0.0.1:{port}:127.0.0.1:{port}", "root@127.0.0.1"]
        result = subprocess.run(self._ssh()[:-1] + forward, capture_output=True, text=True)
        if result.returncode:
            raise BoardError(f"cannot lend the board port {port}: {result.stderr.strip()}")

    def throttle_writes(self, bytes_per_second):
        """Let the disk take so many bytes a second; 0 for as many as come."""
        limits = {name: 0 for name in ("bps", "bps_rd", "iops", "iops_rd", "iops_wr")}
        self.qmp("block_set_io_throttle", device="disk", bps_wr=bytes_per_second, **limits)

    def run(self, command, *, check=False, capture=False, timeout=None, stdin=None):
        """Run a shell command on the board; returns subprocess.CompletedProcess."""
        extra = dict(capture_output=True, text=True) if capture else {}
        result = subprocess.run(self._ssh() + ["--", command], timeout=timeout,
                                stdin=stdin or subprocess.DEVNULL, **extra)
        if check and result.returncode:
            raise BoardError(f"{command!r} on the board: exit {result.returncode} "
                             f"{(result.stderr or '') if capture else ''}")
        return result

    def popen(self, command, stdout=subprocess.PIPE):
        """Start a shell command on the board; what it prints can be read while it runs."""
        return subprocess.Popen(self._ssh() + ["--", command], stdin=subprocess.DEVNULL, stdout=stdout,
                                stderr=subprocess.STDOUT, text=True, errors="replace")

    def write(self, path, text):
        """Write a file on the board, as a shell would: owner and mode of one that exists stay."""
        result = subprocess.run(self._ssh() + ["--", f"cat > {shlex.quote(path)}"], input=text, text=True)
        if result.returncode:
            raise BoardError(f"cannot write {path} on the board")

    def copy(self, source, dest="/srv/"):
        """Copy a file or folder to the board; DEST ending in / is a folder."""
        source = Path(source)
        if not source.exists():
            raise BoardError(f"{source} does not exist")
        folder, name = (dest, source.name) if dest.endswith("/") else os.path.split(dest)
        tar = subprocess.Popen(
            ["tar", "-C", str(source.resolve().parent), "--owner=0", "--group=0",
             "--transform", f"s,^{source.resolve().name},{name},", "-cf", "-",
             source.resolve().name], stdout=subprocess.PIPE)
        folder = shlex.quote(folder or "/")
        self.run(f"mkdir -p {folder} && tar -C {folder} -xf -", check=True, stdin=tar.stdout)
        if tar.wait():
            raise BoardError(f"tar {source}: exit {tar.returncode}")

    def get(self, remote, local):
        """Copy one file from the board."""
        with open(local, "wb") as out:
            result = subprocess.run(self._ssh() + ["--", "cat", "--", shlex.quote(remote)],
                                    stdin=subprocess.DEVNULL, stdout=out)
        if result.returncode:
            raise BoardError(f"cannot read {remote} on the board")

    def _tool(self, *args):
        result = subprocess.run([str(a) for a in args], capture_output=True, text=True)
        if result.returncode:
            raise BoardError(f"{args[0]}: {result.stderr.strip()}")

    def _show_console(self):
        log = self.tmp / "console.log"
        if log.exists():
            print("--- the board's console, last 40 lines", file=sys.stderr)
            lines = log.read_text(errors="replace").splitlines()[-40:]
            print("\n".join(lines), file=sys.stderr)
