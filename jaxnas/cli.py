"""The command line: arguments in, one call of the library out; parsing only.

Whatever is wrong with the arguments is said in one line on standard error, with exit
status 2, before anything expensive is imported.
"""

import dataclasses
import os
import runpy
import shlex
import sys
import traceback
from pathlib import Path
from typing import NamedTuple

from jaxnas import __version__
from jaxnas.overrides import override, print_help, split_arguments, suggestion

USAGE = """\
usage: jaxnas search CONFIG.py [--smoke] [--out=DIR] [--resume] [--overwrite]
                     [--key.sub=value ...]
       jaxnas inject RUN [--rates=R,R,...] [--trials=N]
       jaxnas report RUN
       jaxnas search [CONFIG.py] --help    explains every key, with unit and default

search   evolves, trains and measures networks, and writes a run directory
inject   measures the networks of a run directory under bit faults again
report   writes report.md and the figures of a run directory again

PYTHONDEVMODE=1 in the environment shows the traceback behind an error."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class SearchOptions:
    """How the run is carried out."""

    out: Path | None = None
    """Run directory to write; None for runs/ and the name of the config file."""

    resume: bool = False
    """Whether to continue the interrupted run in the run directory."""

    overwrite: bool = False
    """Whether to delete the run in the run directory and start again."""

    smoke: bool = False
    """Whether to take smoke() of the config file, the same path made tiny."""

    def __post_init__(self):
        if self.resume and self.overwrite:
            raise ValueError(
                "--resume continues a run and --overwrite deletes it; give one of them"
            )


@dataclasses.dataclass(frozen=True, kw_only=True)
class InjectOptions:
    """Which faults are measured."""

    rates: tuple[float, ...] = (1e-4, 1e-3, 1e-2)
    """Bit error rates (per stored bit)."""

    trials: int = 200
    """Random fault patterns per network, number scheme, target and rate (count)."""

    def __post_init__(self):
        if not self.rates or not all(0 < rate < 1 for rate in self.rates):
            raise ValueError(
                f"--rates is {self.rates}, expected bit error rates between 0 and 1; "
                "for example --rates=1e-4,1e-3"
            )
        if self.trials < 2:
            raise ValueError(
                f"--trials is {self.trials}, expected at least 2: intervals come from "
                "the spread of trials"
            )


def main(arguments: list[str] | None = None) -> int:
    """Runs one command and returns its exit status: 0, 2 (bad input) or 130."""
    arguments = sys.argv[1:] if arguments is None else arguments
    set_jax_defaults()
    try:
        return _run(arguments)
    except ValueError as error:
        if sys.flags.dev_mode:
            raise
        print(f"error: {' '.join(str(error).split())}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print(f"interrupted; {_continuation(arguments)}", file=sys.stderr)
        return 130


def set_jax_defaults() -> None:
    """Keeps compiled programs in the user's cache directory, and uses every core.

    By environment variables, which JAX reads when it is imported: the user's own
    values stay in force, and JAX need not be imported to set them.
    """
    caches = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    defaults = {
        "JAX_COMPILATION_CACHE_DIR": str(Path(caches) / "jaxnas" / "xla"),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0.5",
        "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "0",
        # XLA runs small programs on one core: one device per core uses them all.
        "JAX_NUM_CPU_DEVICES": str(os.cpu_count() or 1),
    }
    for name, value in defaults.items():
        os.environ.setdefault(name, value)


class _Line(NamedTuple):
    """The arguments of one command; settings are still text."""

    command: str
    arguments: list[str]
    targets: list[str]
    settings: dict[str, list[str]]

    @property
    def text(self) -> str:
        return shlex.join(["jaxnas", self.command, *self.arguments])

    def target(self, what: str, example: str) -> Path:
        """The one argument that is no setting."""
        if len(self.targets) != 1:
            found = " ".join(self.targets) or "none"
            raise ValueError(
                f"'jaxnas {self.command}' takes one {what}, found {found}; "
                f"for example: jaxnas {self.command} {example}"
            )
        return Path(self.targets[0])


def _run(arguments: list[str]) -> int:
    command, *rest = arguments or [""]
    if command in ("-h", "--help"):
        print(USAGE)
        return 0
    if command == "--version":
        print(f"jaxnas {__version__}")
        return 0
    if command not in COMMANDS:
        raise ValueError(
            f"unknown command {command!r}{suggestion(command, COMMANDS)}; expected "
            "search, inject or report, which 'jaxnas --help' explains"
        )
    flags = {f.name for f in dataclasses.fields(SearchOptions) if f.type is bool}
    rest = ["--help" if argument == "-h" else argument for argument in rest]
    targets, settings = split_arguments(rest, {*flags, "help"})
    return COMMANDS[command](_Line(command, rest, targets, settings))


def _search(line: _Line) -> int:
    wants_help = line.settings.pop("help", None) is not None
    smoke_text = {"smoke": line.settings.get("smoke", ["False"])}
    (first,) = override((SearchOptions(),), smoke_text)
    if wants_help and not line.targets:
        from jaxnas.config import SearchConfig

        config = SearchConfig()
    else:
        path = line.target("config file", "configs/digits.py")
        config = load_config(path, "smoke" if first.smoke else "config")
    if wants_help:
        command = f"jaxnas search {' '.join(line.targets) or 'CONFIG.py'}"
        configs = {"options": first, "config": config}
        print_help(command, "Evolves, trains and measures networks.", configs)
        return 0
    options, config = override((first, config), line.settings)

    from jaxnas.experiment import search

    run = search(
        config,
        options.out or Path("runs") / (path.stem + "-smoke" * options.smoke),
        name=path.stem,
        resume=options.resume,
        overwrite=options.overwrite,
        command=line.text,
    )
    print(f"wrote {run}")
    return 0


def _inject(line: _Line) -> int:
    if "help" in line.settings:
        options = {"options": InjectOptions()}
        description = "Measures the networks of a run directory under bit faults."
        print_help("jaxnas inject RUN", description, options)
        return 0
    (options,) = override((InjectOptions(),), line.settings)
    run = line.target("run directory", "runs/digits")
    if not (run / "config.json").is_file():
        raise ValueError(
            f"{run} is no run directory (it has no config.json); give the folder that "
            "'jaxnas search' wrote, such as runs/digits"
        )

    from jaxnas.experiment import inject

    inject(run, options.rates, options.trials)
    print(f"wrote {run / 'faults.jsonl'}")
    return 0


def _report(line: _Line) -> int:
    if "help" in line.settings:
        print(USAGE)
        return 0
    override((), line.settings)
    run = line.target("run directory", "runs/digits")

    from jaxnas.report import write_report

    print(f"wrote {write_report(run)}")
    return 0


COMMANDS = {"search": _search, "inject": _inject, "report": _report}


def load_config(path: Path, function: str = "config"):
    """What the function of a config file returns, a `jaxnas.config.SearchConfig`.

    Raises:
      ValueError: the file is missing or fails, or does not define such a function.
    """
    example = "give a Python file such as configs/digits.py"
    if not path.is_file():
        raise ValueError(f"config file {path} does not exist; {example}")
    if path.suffix != ".py":
        raise ValueError(f"config file {path} does not end in .py; {example}")
    try:
        definitions = runpy.run_path(str(path))
    except Exception as error:
        raise ValueError(f"config file {path} fails: {_cause(error, path)}") from error
    if not callable(definitions.get(function)):
        raise ValueError(
            f"config file {path} defines no function {function}(); it must define "
            "config() and smoke(), each returning a jaxnas.config.SearchConfig"
        )
    try:
        config = definitions[function]()
    except Exception as error:
        what = f"{function}() of config file {path} fails"
        raise ValueError(f"{what}: {_cause(error, path)}") from error

    from jaxnas.config import SearchConfig

    if not isinstance(config, SearchConfig):
        raise ValueError(
            f"{function}() of config file {path} returns {type(config).__name__}; "
            "it must return a jaxnas.config.SearchConfig"
        )
    return config


def _cause(error: Exception, path: Path) -> str:
    frames = traceback.extract_tb(error.__traceback__)
    lines = [frame.lineno for frame in frames if frame.filename == str(path)]
    where = f" (line {lines[-1]})" if lines else ""
    kind = "" if isinstance(error, ValueError) else f"{type(error).__name__}: "
    return f"{kind}{error}{where}"


def _continuation(arguments: list[str]) -> str:
    if arguments[:1] != ["search"]:
        return "run the same command again"
    kept = [a for a in arguments if a not in ("--overwrite", "--resume")]
    return f"continue with: {shlex.join(['jaxnas', *kept, '--resume'])}"


if __name__ == "__main__":
    sys.exit(main())
