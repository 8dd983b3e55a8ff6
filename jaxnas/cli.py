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
from jaxnas.options import (
    CostOptions,
    InjectOptions,
    ProfileOptions,
    SearchOptions,
)
from jaxnas.overrides import override, print_help, split_arguments, suggestion

USAGE = """\
usage: jaxnas search CONFIG.py [--smoke] [--out=DIR] [--resume] [--overwrite]
                     [--key.sub=value ...]
       jaxnas inject RUN_OR_CHECKPOINT [--fault=KIND] [--rates=R,R,...]
                     [--stored=weight,activation] [--target-halfwidth=W] [--trials=N]
                     [--sensitivity-trials=N]
       jaxnas report RUN
       jaxnas cost MODEL_OR_RUN [--image=N] [--classes=N] [--bits=N] [--operations]
                     [--network=ID] [--hardware=NAME_OR_FILE]
       jaxnas profile CONFIG.py [--networks=N] [--fitted=N] [--batch=N] [--seed=N]
                     [--out=DIR] [--resume] [--overwrite]
       jaxnas search [CONFIG.py] --help    explains every key, with unit and default
       jaxnas inject|cost|profile --help   the same

search   evolves, trains and measures networks, and writes a run directory
inject   measures the networks of a run directory, or of one of its checkpoints
         RUN/checkpoints/final-SCHEME, under faults again
report   writes report.md and the figures of a run directory again
cost     prints the layers of a published network, such as mobilenet_v2, with their
         costs; or what the networks of a run directory cost
profile  measures the latencies of layers and of random networks of a search space on
         this device, and how well the networks are predicted from their layers

PYTHONDEVMODE=1 in the environment shows the traceback behind an error."""


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
            "search, inject, report, cost or profile, which 'jaxnas --help' explains"
        )
    options = (SearchOptions, CostOptions, ProfileOptions)
    fields = [field for one in options for field in dataclasses.fields(one)]
    flags = {field.name for field in fields if field.type is bool}
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


def _options(line: _Line, defaults, target: str, description: str):
    """The options of a command, or None where its help was asked for, and printed."""
    if "help" in line.settings:
        command = f"jaxnas {line.command} {target}"
        print_help(command, description, {"options": defaults})
        return None
    (options,) = override((defaults,), line.settings)
    return options


def _inject(line: _Line) -> int:
    description = (
        "Measures the networks of a finished search under faults, and writes "
        "faults.csv, faults.json, sensitivity.csv, figures and report.md into its "
        "run directory. RUN is that directory; RUN/checkpoints/final-SCHEME, a "
        "checkpoint of networks in one number scheme, measures only those."
    )
    options = _options(line, InjectOptions(), "RUN_OR_CHECKPOINT", description)
    if options is None:
        return 0
    given = line.target("run directory or checkpoint", "runs/digits")
    run, scheme = _run_and_scheme(given)

    from jaxnas.experiment import inject

    inject(
        run,
        options.rates,
        options.most,
        half_width=options.target_halfwidth,
        kind=options.fault,
        stored=options.stored,
        sensitivity_trials=options.sensitivity_trials,
        **({"schemes": (scheme,)} if scheme else {}),
    )
    print(f"wrote {run / 'faults.csv'}")
    return 0


def _run_and_scheme(path: Path) -> tuple[Path, str | None]:
    """The run directory, and the scheme if `path` is one of its final checkpoints."""
    if (path / "config.json").is_file():
        return path, None
    # A checkpoint alone does not say how its networks are read, or on which images.
    resolved = path.resolve()
    run = resolved.parent.parent
    inside = resolved.parent.name == "checkpoints" and (run / "config.json").is_file()
    if resolved.is_dir() and inside and resolved.name.startswith("final-"):
        return run, resolved.name.removeprefix("final-")
    raise ValueError(
        f"{path} is no run directory (it has no config.json) and no checkpoint of "
        "finished networks in one; give the folder that 'jaxnas search' wrote, such as "
        "runs/digits, or runs/digits/checkpoints/final-fixed_point"
    )


def _report(line: _Line) -> int:
    if "help" in line.settings:
        print(USAGE)
        return 0
    override((), line.settings)
    run = line.target("run directory", "runs/digits")

    from jaxnas.report import write_report

    print(f"wrote {write_report(run)}")
    return 0


def _cost(line: _Line) -> int:
    description = "Prints layers, multiply-accumulates, parameters, memory, cycles."
    options = _options(line, CostOptions(), "MODEL_OR_RUN", description)
    if options is None:
        return 0
    target = line.target("network or run directory", "mobilenet_v2")

    from jaxnas.costs import print_costs

    print_costs(str(target), **dataclasses.asdict(options))
    return 0


def _profile(line: _Line) -> int:
    description = "Measures layers and networks of a search space on this device."
    options = _options(line, ProfileOptions(), "CONFIG.py", description)
    if options is None:
        return 0
    path = line.target("config file", "configs/digits.py")
    config = load_config(path)

    from jaxnas.preparation import search_space
    from jaxnas.profiling import Profile, profile

    measured = Profile(
        space=search_space(config),
        batch=options.batch,
        networks=options.networks,
        fitted=options.fitted,
        seed=options.seed,
    )
    out = options.out or Path("runs") / f"{path.stem}-profile"
    flags = {"resume": options.resume, "overwrite": options.overwrite}
    for name, found in profile(measured, out, command=line.text, **flags).items():
        print(
            f"{name.replace('_', ' ')}: relative RMSE {found.relative_rmse:.3f}, "
            f"Spearman {found.spearman:.3f} over {found.networks} networks"
        )
    print(f"wrote {out}")
    return 0


COMMANDS = {
    "search": _search,
    "inject": _inject,
    "report": _report,
    "cost": _cost,
    "profile": _profile,
}


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
    if arguments[:1] not in (["search"], ["profile"]):
        return "run the same command again"
    kept = [a for a in arguments if a not in ("--overwrite", "--resume")]
    return f"continue with: {shlex.join(['jaxnas', *kept, '--resume'])}"


if __name__ == "__main__":
    sys.exit(main())
