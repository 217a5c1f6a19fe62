"""What the peers' scripts share: saying that a package is missing, timing equal steps, and the line of JSON.

A script prints one line of JSON whose fields are called as in `phyla bench ... --json`, and exits with 3 and one line
on stderr if a package that it measures is not installed. `phyla bench compare` relies on both.
"""

import importlib
import json
import resource
import statistics
import sys
import time

MISSING = 3


def need(*packages: str):
    """The modules of these names; without one of them the script ends, and says which."""
    modules = []
    for package in packages:
        try:
            modules.append(importlib.import_module(package))
        except ImportError as error:
            print(f"{package} is not installed here: {error}", file=sys.stderr)
            sys.exit(MISSING)
    return modules[0] if len(modules) == 1 else modules


def seconds_of(step, steps: int, warm_up: int = 1) -> list:
    """Seconds of each of `steps` calls, after `warm_up` calls that do not count."""
    times = []
    for _ in range(warm_up + steps):
        start = time.perf_counter()
        step()
        times.append(time.perf_counter() - start)
    return times[warm_up:]


def report(bench: str, step_tokens: int, seconds: list, **more):
    """Prints the line of a benchmark whose steps, of `step_tokens` tokens each, took so many seconds."""
    step = statistics.median(seconds)
    result = dict(bench=bench, tokens_per_second=step_tokens / step, step_ms=1e3 * step)
    result |= dict(step_ms_all=[1e3 * each for each in seconds], peak_rss_mb=peak_mb(), **more)
    print(json.dumps(result), flush=True)


def peak_mb() -> float:
    """Highest resident size of this process, in 10^6 bytes. The usage that getrusage gives may be that of the process
    which started this one, so Linux is asked first."""
    try:
        with open("/proc/self/status") as status:
            return next(int(line.split()[1]) for line in status if line.startswith("VmHWM:")) * 1024e-6
    except (OSError, StopIteration):
        unit = 1e-6 if sys.platform == "darwin" else 1024e-6
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
