"""A Slurm cluster of one node, this one, on loopback and in a temporary folder, as whoever runs the tests."""

import contextlib
import getpass
import os
import secrets
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

CONF = """
ClusterName=test
SlurmctldHost={host}({address})
SlurmctldPort={controller_port}
SlurmdPort={node_port}
SlurmUser={user}
SlurmdUser={user}
AuthInfo=socket={base}/run/munge.socket,cred_expire=5
CommunicationParameters=NoInAddrAny,NoCtldInAddrAny
StateSaveLocation={base}/state
SlurmdSpoolDir={base}/spool
SlurmctldPidFile={base}/run/slurmctld.pid
SlurmdPidFile={base}/run/slurmd.pid
SlurmctldLogFile={base}/log/slurmctld.log
SlurmdLogFile={base}/log/slurmd.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
MailProg=/bin/true
ReturnToService=2
KillWait=5
SchedulerType=sched/backfill
SchedulerParameters=bf_interval=1,sched_interval=1,sched_min_interval=0,batch_sched_delay=0
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
SlurmctldParameters=preempt_send_user_signal
SlurmdParameters=config_overrides
NodeName={host} NodeAddr={address} CPUs={cores} RealMemory=1024 State=UNKNOWN
PartitionName=first Nodes={host} Default=YES MaxTime=60 PriorityTier=10 PreemptMode=OFF
PartitionName=low Nodes={host} MaxTime=60 PriorityTier=1 PreemptMode=REQUEUE GraceTime=30
"""


def missing() -> str | None:
    """Why no cluster can be started here; None: it can."""
    absent = [name for name in ("munged", "slurmctld", "slurmd") if _daemon(name) is None]
    if absent:
        return f"{', '.join(absent)} not installed (Debian: apt-get install slurm-wlm munge)"
    address = _address()
    return None if address.startswith("127.") else f"this host's name is {address}, where others could reach Slurm"


@contextlib.contextmanager
def started() -> Iterator[Path]:
    """Within it the cluster runs; its slurm.conf, for SLURM_CONF. At the end its jobs, then its daemons, are ended."""
    base = Path(tempfile.mkdtemp(prefix="slurm-"))
    base.chmod(0o755)  # munge wants everyone to reach its socket
    for name in ("etc", "run", "log", "state", "spool"):
        (base / name).mkdir(mode=0o755)
    conf = base / "etc" / "slurm.conf"
    conf.write_text(
        CONF.format(
            base=base,
            host=_host(),
            address=_address(),
            controller_port=_free_port(),
            node_port=_free_port(),
            user=getpass.getuser(),
            cores=len(os.sched_getaffinity(0)),
        )
    )
    (base / "etc" / "cgroup.conf").write_text("CgroupPlugin=cgroup/v1\n")  # 22.05 starts one, used or not
    environment = os.environ | {"SLURM_CONF": str(conf)}
    daemons: list[subprocess.Popen] = []
    try:
        with open(base / "log" / "daemons.log", "w") as log:
            for name, *options in _commands(base):
                command = [_daemon(name) or name, *options]
                daemons.append(subprocess.Popen(command, env=environment, stdout=log, stderr=log))
                if name == "munged":
                    _wait(lambda: (base / "run" / "munge.socket").exists(), daemons, base)
        _wait(
            lambda: _output(environment, "sinfo", "--noheader", "--format=%T", "--partition=low") == "idle",
            daemons,
            base,
        )
        yield conf
    finally:
        _output(environment, "scancel", "--user", getpass.getuser())
        with contextlib.suppress(AssertionError):
            _wait(lambda: not _output(environment, "squeue", "--noheader"), daemons, base)
        for daemon in reversed(daemons):
            daemon.terminate()
            try:
                daemon.wait(20)
            except subprocess.TimeoutExpired:
                daemon.kill()
                daemon.wait()
        shutil.rmtree(base, ignore_errors=True)


def _commands(base: Path) -> list[list[str]]:
    key, run, log = base / "etc" / "munge.key", base / "run", base / "log"
    key.write_bytes(secrets.token_bytes(1024))
    key.chmod(0o600)
    files = [f"--socket={run}/munge.socket", f"--pid-file={run}/munged.pid", f"--log-file={log}/munged.log"]
    munged = ["munged", "--foreground", f"--key-file={key}", *files, f"--seed-file={run}/seed", "--num-threads=2"]
    return [munged, ["slurmctld", "-D", "-i", "-c"], ["slurmd", "-D"]]


def _wait(condition: Callable[[], object], daemons: list[subprocess.Popen], base: Path) -> None:
    end = time.monotonic() + 60
    while not condition():
        logs = "\n".join(path.read_text(errors="replace")[-2000:] for path in (base / "log").glob("*.log"))
        assert time.monotonic() < end, logs
        assert all(daemon.poll() is None for daemon in daemons), logs
        time.sleep(0.2)


def _output(environment: dict[str, str], *command: str) -> str:
    return subprocess.run(command, capture_output=True, text=True, check=False, env=environment).stdout.strip()


def _daemon(name: str) -> str | None:
    return shutil.which(name, path=f"{os.environ['PATH']}:/usr/sbin:/sbin")


def _host() -> str:
    return socket.gethostname().partition(".")[0]


def _address() -> str:
    try:
        return socket.gethostbyname(_host())
    except OSError:
        return "of no address"


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]
