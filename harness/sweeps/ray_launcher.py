"""hydra/launcher=ray: a sweep's jobs on the CPUs and GPUs of this machine, or of a cluster that runs Ray."""

from __future__ import annotations

import hashlib
import importlib.util
import os
import re
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from functools import partialmethod
from pathlib import Path
from typing import Any

from hydra.core.singleton import Singleton
from hydra.core.utils import JobReturn, JobStatus, setup_globals
from hydra.plugins.launcher import Launcher
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, open_dict

from harness.config import compose, extensions
from harness.config.errors import ConfigError
from harness.config.registry import CONF
from harness.config.warnings import warn
from harness.files import atomic
from harness.runs import requeue, run_dir, signals
from harness.runs.signals import RunInterruptedError
from harness.store import commit
from harness.sweeps import ray_job
from harness.sweeps.ray_job import Jobs, LeftJobs, NodeStoppedError, Shared

_ANSWER_SECONDS = 10.0
_LEAST = 0.001  # of a CPU or a GPU that a job may have
_LONGEST = 200  # characters of what Ray says about a lost process
_NAMESPACE = "cosine-restarts"
_OBJECT_STORE = 80 * 2**20  # bytes; Ray takes no less, and results of jobs are small
_HANDED_ON = ("HARNESS_", "WANDB_", "TORCH", "PYTORCH_", "OMP_", "MKL_", "CUBLAS_")
Start = Callable[
    [str, bytes], list[Any]
]  # of a job: its folder and configuration to its reference, in a list
_NOT_HANDED_ON = (extensions.VARIABLE, "HARNESS_BARS")


def check_settings(launcher: DictConfig) -> None:
    """Raise `ConfigError` for settings of conf/hydra/launcher/ray.yaml that cannot work, and where Ray is missing."""
    if importlib.util.find_spec("ray") is None:
        raise ConfigError("hydra/launcher=ray: Ray is not installed; pip install -e '.[ray]'")
    cpus, gpus, retries = launcher.num_cpus, launcher.num_gpus, launcher.max_retries
    if not (_is_number(cpus) and cpus >= _LEAST):
        raise ConfigError(f"hydra.launcher.num_cpus={cpus}: must be a number of at least {_LEAST}")
    share = _is_number(gpus) and (
        gpus == 0 or _LEAST <= gpus < 1 or (gpus >= 1 and float(gpus).is_integer())
    )
    if gpus is not None and not share:
        raise ConfigError(
            f"hydra.launcher.num_gpus={gpus}: must be a whole number, or a share of a GPU, as 0.25"
        )
    if isinstance(retries, bool) or not isinstance(retries, int) or retries < 0:
        raise ConfigError(f"hydra.launcher.max_retries={retries}: must be an integer of at least 0")
    if not isinstance(launcher.leave, bool):
        raise ConfigError(f"hydra.launcher.leave={launcher.leave}: must be true or false")
    _check_address(launcher)


def _check_address(launcher: DictConfig) -> None:
    address = launcher.address
    if launcher.leave and address is None:
        raise ConfigError(
            "hydra.launcher.leave=true: a Ray that this command starts ends with it; give "
            "hydra.launcher.address of one that runs"
        )
    if str(address).startswith("ray://"):
        raise ConfigError(
            f"hydra.launcher.address={address}: give the command on a node of the cluster, with "
            "hydra.launcher.address=auto"
        )
    if address not in (None, "auto") and not re.fullmatch(r".+:\d+", str(address)):
        raise ConfigError(
            f"hydra.launcher.address={address}: must be HOST:PORT, as in localhost:6379, or auto"
        )


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


class RayLauncher(Launcher):
    """Hydra's launcher of conf/hydra/launcher/ray.yaml. It composes jobs, for nodes have no conf/ of the user's."""

    def __init__(self, **settings: Any) -> None:
        self._connected = False
        self.config: DictConfig
        self.hydra_context: HydraContext
        self.task_function: TaskFunction

    def setup(
        self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig
    ) -> None:
        self.config, self.hydra_context, self.task_function = config, hydra_context, task_function

    def launch(
        self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int
    ) -> Sequence[JobReturn]:
        setup_globals()
        from ray.exceptions import RayError

        jobs = (self._composed(one, at) for at, one in enumerate(job_overrides, initial_job_idx))
        try:
            if not self._connected:
                connect(self.config.hydra.launcher)
                self._connected = True
            with _jobs(self.config, self._shared()) as (start, were_left):
                return self._launch(jobs, start, were_left)
        except RayError as error:
            again = run_dir.how_to_go_on("hydra.sweep.dir", self.config.hydra.sweep.dir)
            reason = " ".join(str(error).split())[:_LONGEST]
            text = f"hydra/launcher=ray: Ray has ended, or a node that it needs is lost ({reason}); {again}"
            raise ConfigError(text) from error

    def _launch(
        self, jobs: Iterable[tuple[str, bytes]], start: Start, were_left: bool
    ) -> list[JobReturn]:
        from ray.exceptions import RayError

        started: list[tuple[Any, str]] = []  # reference and folder of each job
        try:
            for folder, job in jobs:
                started += [(reference, folder) for reference in start(folder, job)]
            if were_left:  # said once a Ctrl-C stops them
                text = (
                    "jobs that an earlier command left go on, with its code and its hydra.launcher"
                )
                print(text, file=sys.stderr)
            return _results(started)
        except BaseException as error:
            number = signals.received()  # Ray's waiting makes an exit of its own of it
            stop = RunInterruptedError(number) if number is not None else error
            if not isinstance(stop, RayError):  # which nothing answers any more
                self._stop([reference for reference, _ in started], stop)
            raise stop from None

    def _shared(self) -> Shared:
        """Check that every node sees the sweep, and return what all jobs are given."""
        import ray.cloudpickle as pickle

        launcher, folders = self.config.hydra.launcher, [self.config.hydra.sweep.dir]
        if self.config.reuse:
            folders.append(self.config.store.dir)
        tokens: dict[str, str] = {}
        if launcher.address:
            tokens = {os.path.abspath(folder): _token(Path(folder)) for folder in folders}
            check_nodes_see(os.getcwd(), tokens)
        hydra = (self.hydra_context, self.task_function, Singleton.get_state())
        return Shared(
            os.getcwd(), tokens, environment(launcher), extensions.loaded(), pickle.dumps(hydra)
        )

    def _composed(self, overrides: Sequence[str], number: int) -> tuple[str, bytes]:
        """Return the folder of a job and its configuration."""
        import ray.cloudpickle as pickle

        loader = self.hydra_context.config_loader
        config = loader.load_sweep_config(self.config, list(overrides))
        with open_dict(config):
            config.hydra.job.id = config.hydra.job.num = number
        folder = os.path.abspath(os.path.join(config.hydra.sweep.dir, config.hydra.sweep.subdir))
        return folder, pickle.dumps(config)

    def _stop(self, references: Sequence[Any], error: BaseException) -> None:
        """Let runs write their checkpoints and end; where they are to be left, say how to come back to them."""
        import ray
        from ray.exceptions import RayError

        asked = isinstance(error, KeyboardInterrupt | RunInterruptedError)
        if asked and self.config.hydra.launcher.leave:
            again = run_dir.how_to_go_on("hydra.sweep.dir", self.config.hydra.sweep.dir)
            text = "the jobs go on; the same command waits for them, and with hydra.launcher.leave=false its Ctrl-C stops them;"
            print(f"{text} {again}", file=sys.stderr)
            return
        if asked:
            print("runs write their checkpoints; Ctrl-C again ends them at once", file=sys.stderr)
        with suppress(RayError):  # a signal to all processes ends Ray, and the runs by themselves
            for reference in references:
                ray.cancel(reference)
            if references:
                ray.wait([*references], num_returns=len(references))


def connect(launcher: DictConfig) -> None:
    """Connect to Ray, or start it, and ship the code. Raises `ConfigError` if that fails."""
    import ray
    from ray.exceptions import AuthenticationError

    _refuse_silence(launcher.address)
    local: dict[str, Any] = {}
    if launcher.address is None:
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        local = {"include_dashboard": False, "object_store_memory": _OBJECT_STORE}
        token = secrets.token_hex(32)  # or Ray makes ~/.ray/auth_token
        os.environ.setdefault("RAY_AUTH_TOKEN", token)
    main = threading.current_thread() is threading.main_thread()
    before = signal.getsignal(signal.SIGTERM)  # Ray takes its place
    with tempfile.TemporaryDirectory() as folder, _out_of_our_process_group():
        copy_code(Path(folder))
        try:
            ray.init(
                address=launcher.address or "local", namespace=_NAMESPACE, log_to_driver=False,
                logging_level="ERROR", runtime_env={"working_dir": folder}, **local,
            )  # fmt: skip
        except (ConnectionError, RuntimeError, ValueError, AuthenticationError) as error:
            raise ConfigError(_not_connected(launcher.address, error)) from error
        finally:
            if main:
                signal.signal(signal.SIGTERM, before)
    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    cpus, gpus = (sum(node.get(name, 0) for node in nodes) for name in ("CPU", "GPU"))
    where = (
        f"Ray {ray.get_runtime_context().gcs_address}: {len(nodes)} node{'s' * (len(nodes) != 1)}"
    )
    print(
        f"{where}, {cpus:g} CPUs, {gpus:g} GPUs; what runs print: {ray_job.LOG} in their folders",
        file=sys.stderr,
    )
    _check_room(launcher, nodes)


@contextmanager
def _out_of_our_process_group() -> Iterator[None]:
    """Give each program that starts within the block a process group of its own, on Linux.

    A signal to our group, as from a terminal that is closed, would end Ray, and a Ray that has ended
    ends this process, while runs write their checkpoints. `ray.init` has no setting for it. Elsewhere
    Ray needs the common group to end with this process; on Linux the kernel ends it.
    """
    start = subprocess.Popen.__init__
    if sys.platform == "linux":
        subprocess.Popen.__init__ = partialmethod(start, process_group=0)  # type: ignore[assignment]
    try:
        yield
    finally:
        subprocess.Popen.__init__ = start  # type: ignore[method-assign]


def _not_connected(address: str | None, error: Exception) -> str:
    reason = " ".join(str(error).split())[:_LONGEST]
    if address is None:
        return f"hydra/launcher=ray: Ray does not start: {reason}"
    if address == "auto":
        fix = "start one by `ray start --head`, or leave hydra.launcher.address out"
        return f"hydra.launcher.address=auto: no Ray is found on this machine; {fix} ({reason})"
    return (
        f"hydra.launcher.address={address}: {reason}; a cluster with a token takes RAY_AUTH_MODE=token, and "
        "~/.ray/auth_token of its head"
    )


def _refuse_silence(address: str | None) -> None:
    """Raise `ConfigError` for an address where nothing answers: Ray would wait for minutes."""
    host, _, port = (address or "").rpartition(":")
    if not (host and port.isdecimal()):
        return
    try:
        socket.create_connection((host, int(port)), timeout=_ANSWER_SECONDS).close()
    except OSError as error:
        raise ConfigError(
            f"hydra.launcher.address={address}: no Ray answers there ({error})"
        ) from error


def copy_code(folder: Path) -> None:
    """Copy the code of the program, its configuration and the extensions; no data, no sweeps, nothing else."""
    for part in (Path(__file__).parents[1], CONF):
        shutil.copytree(
            part, folder / part.name, ignore=shutil.ignore_patterns("__pycache__", ".*")
        )
    extensions.ship(folder / ray_job.EXTENSIONS)


def _check_room(launcher: DictConfig, nodes: Sequence[Mapping[str, float]]) -> None:
    """Warn if no node has what a job asks for; raise `ConfigError` where no other can join."""
    wanted = {"CPU": launcher.num_cpus, "GPU": gpus_of_a_job(launcher)}
    if any(all(node.get(name, 0) >= share for name, share in wanted.items()) for node in nodes):
        return
    has = "; ".join(
        sorted({f"{node.get('CPU', 0):g} CPUs, {node.get('GPU', 0):g} GPUs" for node in nodes})
    )
    text = f"hydra.launcher.num_cpus={wanted['CPU']:g}, num_gpus={wanted['GPU']:g}: no node has as many ({has})"
    if launcher.address is None:
        raise ConfigError(text)
    warn(f"{text}; runs wait until one joins the cluster")


def gpus_of_a_job(launcher: DictConfig) -> float:
    """Return the share of GPUs that each job asks for: by default one, where there are any."""
    if launcher.num_gpus is not None:
        return float(launcher.num_gpus)
    import ray

    return float(ray.cluster_resources().get("GPU", 0) >= 1)


def environment(launcher: DictConfig) -> dict[str, str]:
    """Return the variables that jobs take from this process, and those of a job."""
    own = {
        name: value
        for name, value in os.environ.items()
        if name.startswith(_HANDED_ON) and name not in _NOT_HANDED_ON
    }
    threads = {"OMP_NUM_THREADS": str(max(1, int(launcher.num_cpus)))}
    hidden = {} if gpus_of_a_job(launcher) else {"CUDA_VISIBLE_DEVICES": ""}
    copy = {compose.PROJECT: str(CONF.parent), requeue.IN_RAY: "1"} | commit.for_copies()
    return threads | hidden | own | copy


def _token(folder: Path) -> str:
    """Return what is in the token of a folder; a new one if there is none."""
    path = folder / ray_job.TOKEN
    try:
        if not path.exists():
            own = folder / f"{ray_job.TOKEN}-{uuid.uuid4().hex}"
            with atomic(own, "w") as file:
                file.write(uuid.uuid4().hex)
            with suppress(FileExistsError):  # of another sweep that begins
                os.link(own, path)
            own.unlink()
        return path.read_text()
    except OSError as error:
        raise ConfigError(
            f"hydra/launcher=ray: {folder} must be a folder that all nodes see and that can be written to ({error})"
        ) from error


def check_nodes_see(cwd: str, tokens: dict[str, str]) -> None:
    """Raise `ConfigError` if a node of the cluster does not see the current folder, or those with `tokens`."""
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    ask = ray.remote(num_cpus=0)(ray_job.unseen)
    nodes = [node for node in ray.nodes() if node["Alive"]]
    there = [NodeAffinitySchedulingStrategy(node["NodeID"], soft=False) for node in nodes]
    answers = [ask.options(scheduling_strategy=one).remote(cwd, tokens) for one in there]
    for node, answer in zip(nodes, answers, strict=True):
        if folder := _get(answer):
            raise ConfigError(
                f"hydra/launcher=ray: node {node['NodeManagerAddress']} does not see {folder}; give the command in a "
                "folder that all nodes share, with hydra.sweep.dir and store.dir on it"
            )


@contextmanager
def _jobs(config: DictConfig, shared: Shared) -> Iterator[tuple[Start, bool]]:
    """Yield a function that starts a job and returns its reference in a list, and whether jobs had been left.

    Jobs that are to outlive this command belong to an actor, as do those that an earlier command left.
    """
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    launcher = config.hydra.launcher
    options = {
        "num_cpus": launcher.num_cpus,
        "num_gpus": gpus_of_a_job(launcher),
        "max_retries": launcher.max_retries,
        "retry_exceptions": [NodeStoppedError],
    }
    name = hashlib.sha256(os.path.realpath(config.hydra.sweep.dir).encode()).hexdigest()
    if options["num_gpus"]:
        options["max_calls"] = 1  # or a GPU's memory stays taken, and its number the first one's
    owner: Any = None
    were_left = False
    if launcher.address:
        here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
        try:
            owner = ray.get_actor(name)
            were_left = ray.get(owner.running.remote())
            if not were_left:
                ray.kill(owner)
                raise ValueError
        except ValueError:
            if launcher.leave:
                owner = (
                    ray.remote(LeftJobs)
                    .options(name=name, lifetime="detached", num_cpus=0, scheduling_strategy=here)
                    .remote(options, shared)
                )
    if owner is None:
        yield Jobs(options, shared).start, were_left
        return
    yield lambda folder, job: ray.get(owner.start.remote(folder, job)), were_left
    ray.kill(owner)


def _results(started: Sequence[tuple[Any, str]]) -> list[JobReturn]:
    """Wait for jobs and return what they have returned, in their order."""
    import ray

    folders, found = dict(started), dict[Any, JobReturn]()
    waiting = [*folders]
    while waiting:
        (ended,), waiting = ray.wait(waiting)
        found[ended] = _result(ended, Path(folders[ended]))
    return [found[reference] for reference, _ in started]


def _result(reference: Any, folder: Path) -> JobReturn:
    """Return what a job has returned, and print how its run ended; one that was lost is a warning."""
    from ray.exceptions import RayError

    try:
        result: JobReturn = _get(reference)
        print(ray_job.last_line(folder), file=sys.stderr, flush=True)
        return result
    except (NodeStoppedError, RayError) as error:
        lost = " ".join(f"{type(error).__name__}: {error}".split())[:_LONGEST]
    warn(f"a run was lost more often than hydra.launcher.max_retries allows ({lost})")
    return JobReturn(_return_value=float("nan"), status=JobStatus.COMPLETED)


def _get(reference: Any) -> Any:
    """Return what a function has returned on a node, or raise what it raised there.

    Raises `ConfigError` if the code cannot be set up on that node, `RayError` if the process was lost.
    """
    import ray
    from ray.exceptions import RayTaskError, RuntimeEnvSetupError

    try:
        return ray.get(reference)
    except RuntimeEnvSetupError as error:
        raise ConfigError(
            f"hydra/launcher=ray: the code cannot be set up on a node: {error}"
        ) from error
    except RayTaskError as error:
        raise error.cause from error
