"""A small virtual machine: the machine's own root filesystem under another kernel, for one command.

The root filesystem is shared over 9p, read-only, with a writable layer in the guest's memory, so that nothing the
command does is seen outside. One directory is shared read-write: it carries the command in, and its output and
exit status out. The console holds kernel messages only, because what a guest prints there can be lost.
"""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from e2e.lab.errors import LabError
from e2e.lab.initramfs import make_initramfs
from e2e.lab.kernel import Kernel, fetch_busybox, fetch_kernel

MEMORY = "1536M"
CPUS = 2
KVM_START_SECONDS = 20.0
"""A machine that has not reached user space by then gets emulation instead: nested KVM can be there and hang."""
TCG_START_SECONDS = 300.0
END_SECONDS = 3.0
QEMU = "qemu-system-x86_64"

GUEST = """# Second stage, in the guest, run by the first as process 1.
export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t devtmpfs dev /dev
mkdir -p /dev/pts /dev/shm
mount -t devpts devpts /dev/pts
mount -t tmpfs tmpfs /dev/shm
mount -t tmpfs tmpfs /run
mkdir -p /lib/modules/{version}
mount --bind {modules} /lib/modules/{version}
ip link set lo up
cd {cwd}
: > /.lab-shared/started
{run}
echo $? > /.lab-shared/exit.new
mv /.lab-shared/exit.new /.lab-shared/exit
sync
echo b > /proc/sysrq-trigger
sleep 60
"""

_BATCH = "env -i {env} {command} < /dev/null > /.lab-shared/output 2>&1"
_CONSOLE = (
    "stty rows {rows} cols {columns} sane < /dev/ttyS0\n"
    "setsid -c env -i {env} {command} < /dev/ttyS0 > /dev/ttyS0 2>&1"
)


@dataclass(frozen=True, slots=True)
class Job:
    """What to run in the guest. `interactive` joins it to this terminal; `limit` is in seconds."""

    command: Sequence[str]
    env: Mapping[str, str]
    cwd: Path
    limit: float
    interactive: bool = False


@dataclass(frozen=True, slots=True)
class Machine:
    """Everything that is needed to start the virtual machine."""

    kernel: Kernel
    initramfs: Path

    def argv(self, accel: str, shared: Path, *, interactive: bool) -> list[str]:
        """Return the command that starts it; `accel` is "kvm" or "tcg"."""
        export = "-virtfs"
        console = "stdio,id=console,signal=off" if interactive else f"file,id=console,path={shared}/console"
        return [
            # The kernel ends the machine when this process ends, however it ends.
            *("setpriv", "--pdeathsig", "KILL", QEMU),
            *(
                "-machine",
                "pc,vmport=off",
                "-nodefaults",
                "-no-user-config",
                "-no-reboot",
                "-display",
                "none",
            ),
            *("-accel", "kvm" if accel == "kvm" else "tcg,thread=multi"),
            *("-cpu", "host,arch-capabilities=off" if accel == "kvm" else "max"),
            *("-smp", str(CPUS), "-m", MEMORY),
            *("-kernel", str(self.kernel.image), "-initrd", str(self.initramfs)),
            *("-append", "console=ttyS0 quiet loglevel=3 panic=-1 random.trust_cpu=on"),
            *("-chardev", console, "-serial", "chardev:console"),
            *(export, "local,path=/,mount_tag=root,security_model=none,readonly=on,multidevs=remap"),
            *(export, f"local,path={shared},mount_tag=shared,security_model=none"),
        ]


def prepare(cache: Path, say: Callable[[str], None]) -> Machine:
    """Find or fetch the kernel, make the initial filesystem. Raises LabError if that cannot be done here."""
    if os.uname().machine != "x86_64":
        raise LabError(f"the virtual machine is for x86_64, this is {os.uname().machine}")
    if not shutil.which(QEMU):
        raise LabError(f"{QEMU} is not installed: 'e2e/lab/setup vm' does that")
    kernel = fetch_kernel(cache, say)
    busybox = fetch_busybox(cache, say)
    return Machine(kernel, make_initramfs(kernel, busybox, cache / f"initramfs-{kernel.version}"))


def accelerators(cache: Path) -> tuple[str, ...]:
    """Return what to try, in order; KVM that did not work since the last boot is not tried again."""
    usable = os.access("/dev/kvm", os.R_OK | os.W_OK) and not _kvm_failed(cache).exists()
    return ("kvm", "tcg") if usable else ("tcg",)


def _kvm_failed(cache: Path) -> Path:
    boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    return cache / f"kvm-does-not-work-{boot}"


def run(machine: Machine, job: Job, say: Callable[[str], None], accels: Sequence[str], cache: Path) -> int:
    """Run the job in a machine of the first accelerator that works, print its output, return its exit status.

    Raises LabError if no machine starts, or the command does not end within its limit.
    """
    for accel in accels:
        with tempfile.TemporaryDirectory(prefix="dzagent-lab-") as name:
            status = _Session(machine, job, accel, Path(name), say).run()
        if status is not None:
            return status
        if accel == "kvm":
            _kvm_failed(cache).touch()
    raise LabError(f"no virtual machine starts here (tried {', '.join(accels)})")


def _end(qemu: subprocess.Popen[bytes]) -> None:
    """End the machine; it is asked first, because it gives the terminal back then."""
    try:
        qemu.wait(END_SECONDS)
    except subprocess.TimeoutExpired:
        qemu.terminate()
        try:
            qemu.wait(END_SECONDS)
        except subprocess.TimeoutExpired:
            qemu.kill()
            qemu.wait()


@dataclass(slots=True)
class _Session:
    machine: Machine
    job: Job
    accel: str
    shared: Path
    say: Callable[[str], None]

    def run(self) -> int | None:
        """Return the exit status of the job, None if the machine did not start."""
        began = time.monotonic()
        (self.shared / "guest").write_text(self._script())
        (self.shared / "output").touch()
        argv = self.machine.argv(self.accel, self.shared, interactive=self.job.interactive)
        keyboard = None if self.job.interactive else subprocess.DEVNULL
        with (self.shared / "qemu").open("wb") as errors:
            qemu = subprocess.Popen(argv, stdin=keyboard, stderr=errors)
        try:
            if not self._started(qemu, began):
                return None
            self.say(
                f"Linux {self.machine.kernel.version} is up after {time.monotonic() - began:.1f} s ({self.accel})"
            )
            return self._follow(qemu, began)
        finally:
            _end(qemu)

    def _script(self) -> str:
        # Emulation is slow where processes start, so everything that waits inside is given more time.
        env = {**self.job.env, "LAB_SLOW": "1" if self.accel == "kvm" else "10"}
        size = shutil.get_terminal_size()
        values = {
            "env": " ".join(shlex.quote(f"{name}={value}") for name, value in env.items()),
            "command": shlex.join(self.job.command),
            "rows": size.lines,
            "columns": size.columns,
        }
        return GUEST.format(
            version=shlex.quote(self.machine.kernel.version),
            modules=shlex.quote(str(self.machine.kernel.modules)),
            cwd=shlex.quote(str(self.job.cwd)),
            run=(_CONSOLE if self.job.interactive else _BATCH).format(**values),
        )

    def _started(self, qemu: subprocess.Popen[bytes], began: float) -> bool:
        limit = KVM_START_SECONDS if self.accel == "kvm" else TCG_START_SECONDS
        while time.monotonic() - began < limit:
            if (self.shared / "started").exists():
                return True
            if qemu.poll() is not None:
                break
            time.sleep(0.05)
        self.say(f"the virtual machine does not start with {self.accel}: {self._last_words()}")
        return False

    def _last_words(self) -> str:
        text = ""
        for name in ("qemu", "console"):
            path = self.shared / name
            if path.exists():
                text += path.read_text(errors="replace")
        return text.strip()[-1500:] or "it says nothing"

    def _follow(self, qemu: subprocess.Popen[bytes], began: float) -> int:
        with (self.shared / "output").open("rb") as output:
            while True:
                over = qemu.poll() is not None or (self.shared / "exit").exists()
                sys.stdout.buffer.write(output.read())
                sys.stdout.buffer.flush()
                if over:
                    break
                if time.monotonic() - began > self.job.limit:
                    raise LabError(f"the command did not end within {self.job.limit:.0f} s")
                time.sleep(0.1)
        result = self.shared / "exit"
        if not result.exists():
            raise LabError(f"the virtual machine ended early: {self._last_words()}")
        return int(result.read_text())
