"""The command line, with the library behind it replaced."""

import os
import subprocess
import sys
import tomllib
import types
from pathlib import Path

import pytest

import jaxnas
from jaxnas import cli
from jaxnas.options import MOST_TRIALS

SETTINGS = '''
import dataclasses

@dataclasses.dataclass(frozen=True, kw_only=True)
class Training:
    """How networks are trained."""

    steps: int = 300
    """Length of training (gradient steps)."""

    def __post_init__(self):
        if self.steps < 1:
            raise ValueError(f"training.steps is {self.steps}; give at least 1")

@dataclasses.dataclass(frozen=True, kw_only=True)
class SearchConfig:
    """A search."""

    training: Training = Training()
    seed: int = 0
    """Where all random numbers come from (count)."""
    mirror: bool = False
    """Whether to mirror images."""
'''

CONFIG = """
from jaxnas.config import SearchConfig, Training

def config():
    return SearchConfig(seed=5)

def smoke():
    return SearchConfig(seed=5, training=Training(steps=2))
"""


@pytest.fixture(autouse=True)
def library(monkeypatch, tmp_path):
    """Stand-ins for the modules behind the command line; the list of their calls."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    # What main() sets for JAX is then taken back with the rest.
    for name in ("COMPILATION_CACHE_DIR", "PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"):
        monkeypatch.setenv(f"JAX_{name}", "1")
    monkeypatch.setenv("JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES", "1")
    (tmp_path / "settings.py").write_text(SETTINGS)
    (tmp_path / "digits.py").write_text(CONFIG)
    config, experiment, costs = map(types.ModuleType, ("config", "experiment", "costs"))
    # Help is read from the source, so the stand-in needs a file.
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "settings", raising=False)
    import settings

    config.SearchConfig, config.Training = settings.SearchConfig, settings.Training
    calls = []

    def search(config, out, **options):
        calls.append((config, out, options))
        return out

    experiment.search = search
    experiment.inject = lambda *given, **options: calls.append((*given, options))
    monkeypatch.setitem(sys.modules, "jaxnas.config", config)
    monkeypatch.setitem(sys.modules, "jaxnas.experiment", experiment)
    costs.print_costs = lambda target, **options: calls.append((target, options))
    monkeypatch.setitem(sys.modules, "jaxnas.costs", costs)
    monkeypatch.setattr(jaxnas, "config", config, raising=False)
    monkeypatch.setattr(jaxnas, "experiment", experiment, raising=False)
    return types.SimpleNamespace(calls=calls, config=config, experiment=experiment)


def test_search_hands_over_config_folder_and_flags(library, capsys):
    assert cli.main(["search", "digits.py"]) == 0
    config, out, options = library.calls[0]
    assert config == library.config.SearchConfig(seed=5) and out == Path("runs/digits")
    assert options == {
        "name": "digits",
        "resume": False,
        "overwrite": False,
        "command": "jaxnas search digits.py",
    }
    assert capsys.readouterr().out == f"wrote {out}\n"


def test_settings_may_stand_anywhere_in_any_form(library):
    text = "search --smoke digits.py --training.steps 7 --mirror --seed=9 --out my/run"
    assert cli.main([*text.split(), "--resume"]) == 0
    config, out, options = library.calls[0]
    training = library.config.Training(steps=7)
    expected = library.config.SearchConfig(training=training, seed=9, mirror=True)
    assert config == expected and out == Path("my/run") and options["resume"]
    assert options["command"] == f"jaxnas {text} --resume"


def test_smoke_runs_do_not_take_the_folder_of_the_real_run(library):
    assert cli.main(["search", "digits.py", "--smoke"]) == 0
    config, out, _ = library.calls[0]
    assert config.training.steps == 2 and out == Path("runs/digits-smoke")


BAD = {
    "": "unknown command '';",
    "serach digits.py": "unknown command 'serach', did you mean search?",
    "search": "'jaxnas search' takes one config file, found none; for example",
    "search a.py b.py": "takes one config file, found a.py b.py",
    "search none.py": "config file none.py does not exist; give",
    "search notes.txt": "config file notes.txt does not end in .py; give",
    "search digits.py --training.step=3": "did you mean --training.steps?",
    "search digits.py --steps=3": "did you mean --training.steps?",
    "search digits.py --training.steps=x": "--training.steps is 'x', expected int",
    "search digits.py --training.steps=0": "training.steps is 0; give at least 1",
    "search digits.py --smoke=perhaps": "--smoke is 'perhaps', expected True or False",
    "search digits.py --resume --overwrite": "give one of them",
    "search broken.py": "config file broken.py fails: NameError: name 'nothing'",
    "search syntax.py": "config file syntax.py fails: SyntaxError",
    "search failing.py": "config() of config file failing.py fails: training.steps is",
    "search empty.py": "config file empty.py defines no function config()",
    "search other.py": "config() of config file other.py returns int; it must return",
    "inject": "'jaxnas inject' takes one run directory or checkpoint, found none",
    "inject none": "none is no run directory (it has no config.json) and no checkpoint",
    "inject . --rates=2": "--rates is (2.0,), expected fault rates between",
    "inject . --trials=1": "--trials is 1, expected at least 2",
    "inject . --fault=flips": "--fault is 'flips', expected one of bit_flips, top_bit",
    "inject . --stored=logit": "--stored is 'logit', expected",
    "inject . --stored=weight,weight": "expected each kind of words at most once",
    "inject . --target-halfwidth=0.5": "--target-halfwidth is 0.5, expected a share",
    "inject . --target-halfwidth=0.1 --trials=200": "expected more than 200 with",
    "inject . --sensitivity-trials=-1": "--sensitivity-trials is -1, expected 0",
    "inject none --rate=1e-3": "unknown key --rate, did you mean --rates?",
    "report none": "none is no run directory",
    "cost": "'jaxnas cost' takes one network or run directory, found none; for example",
    "cost vgg16 --images=3": "unknown key --images, did you mean --image?",
    "report none --dpi=3": "unknown key --dpi",
}


@pytest.mark.parametrize("text", BAD)
def test_bad_input_is_one_line_and_status_2(text, library, capfd):
    Path("notes.txt").write_text("")
    Path("broken.py").write_text("x = 1\nnothing\n")
    Path("syntax.py").write_text("def (:\n")
    Path("empty.py").write_text("")
    Path("other.py").write_text("def config():\n    return 3\n")
    call = "    return Training(steps=-1)\n"
    head = "from jaxnas.config import Training\ndef config():\n"
    Path("failing.py").write_text(head + call)
    assert cli.main(text.split()) == 2
    out, err = capfd.readouterr()
    assert out == "" and err.startswith("error: ") and err.count("\n") == 1
    assert BAD[text] in err
    assert not library.calls and not Path("runs").exists()


def test_the_line_of_a_broken_config_is_named(capsys):
    Path("broken.py").write_text("x = 1\nnothing\n")
    assert cli.main(["search", "broken.py"]) == 2
    assert "(line 2)" in capsys.readouterr().err


def test_errors_of_the_library_are_one_line_too(library, capsys):
    def search(*_, **__):
        raise ValueError("first\n  second")

    library.experiment.search = search
    assert cli.main(["search", "digits.py"]) == 2
    assert capsys.readouterr().err == "error: first second\n"


def test_an_interrupt_says_how_to_go_on(library, capsys):
    def interrupted(*_, **__):
        raise KeyboardInterrupt

    library.experiment.search = library.experiment.inject = interrupted
    assert cli.main(["search", "digits.py", "--out", "a b", "--overwrite"]) == 130
    expected = (
        "interrupted; continue with: jaxnas search digits.py --out 'a b' --resume"
    )
    assert capsys.readouterr().err == expected + "\n"
    Path("config.json").write_text("{}")
    assert cli.main(["inject", "."]) == 130
    assert capsys.readouterr().err == "interrupted; run the same command again\n"


@pytest.mark.parametrize("arguments", [["--help"], ["digits.py", "--help"], ["-h"]])
def test_help_explains_every_setting_with_unit_and_default(arguments, library, capsys):
    assert cli.main(["search", *arguments]) == 0
    text = " ".join(capsys.readouterr().out.replace("│", " ").split())
    for expected in (
        "--training.steps INT Length of training (gradient steps). (default: 300)",
        "--mirror {True,False} Whether to mirror images. (default: False)",
        "--out {None}|PATH Run directory to write;",
        "How networks are trained.",
        f"(count). (default: {5 if 'digits.py' in arguments else 0})",
    ):
        assert expected in text
    assert not library.calls


@pytest.mark.parametrize("arguments", [["--help"], ["report", "--help"]])
def test_the_short_help_names_all_commands(arguments, capsys):
    assert cli.main(arguments) == 0
    out = capsys.readouterr().out
    assert all(f"jaxnas {command} " in out for command in cli.COMMANDS)
    assert max(map(len, out.splitlines())) <= 88


def test_inject_and_report_work_on_a_run_directory(library, finished_run, capsys):
    assert cli.main(["inject", str(finished_run), "--rates=1e-3", "--trials=7"]) == 0
    ((run, rates, trials, options),) = library.calls
    assert (run, rates, trials) == (finished_run, (1e-3,), 7)
    assert options == {
        "half_width": 0.0,
        "kind": "bit_flips",
        "stored": ("weight", "activation"),
        "sensitivity_trials": 100,
    }
    assert capsys.readouterr().out == f"wrote {finished_run / 'faults.csv'}\n"
    assert cli.main(["report", str(finished_run)]) == 0
    assert capsys.readouterr().out.endswith(f"wrote {finished_run / 'report.md'}\n")
    assert (finished_run / "report.md").is_file()


def test_inject_takes_a_checkpoint_of_one_scheme(library, finished_run, capsys):
    checkpoints = finished_run / "checkpoints"
    for name in ("search", "final-logarithmic"):
        (checkpoints / name).mkdir(parents=True)
    text = "--fault stuck_at --stored=weight --target-halfwidth 0.005"
    final = checkpoints / "final-logarithmic"
    assert cli.main(["inject", str(final), *text.split()]) == 0
    ((run, _, most, options),) = library.calls
    assert run == finished_run and most == MOST_TRIALS
    expected = {"half_width": 0.005, "kind": "stuck_at", "stored": ("weight",)}
    assert options.items() >= (expected | {"schemes": ("logarithmic",)}).items()
    for other in (checkpoints / "search", checkpoints, checkpoints / "final-none"):
        assert cli.main(["inject", str(other)]) == 2
        assert f"{other} is no run directory" in capsys.readouterr().err
    assert len(library.calls) == 1


def test_help_of_inject_explains_every_option(capsys):
    assert cli.main(["inject", "--help"]) == 0
    text = " ".join(capsys.readouterr().out.replace("│", " ").split())
    assert "RUN/checkpoints/final-SCHEME" in text
    for expected in (
        "--fault {bit_flips,top_bit_flips,",
        "(per stored bit; of word_faults and dead_elements per stored word).",
        "(share of images); 0 for a fixed number of trials. (default: 0.0)",
        "None for 200, or at most 20000. (default: None)",
        "(count); 0 for none. (default: 100)",
    ):
        assert expected in text


def test_cost_hands_over_target_and_options(library, capsys):
    assert cli.main("cost vgg16 --image 64 --operations --bits=8".split()) == 0
    ((target, options),) = library.calls
    assert target == "vgg16"
    given = {"image": 64, "bits": 8, "operations": True}
    assert options == {"classes": None, "network": None, "hardware": None} | given
    assert cli.main(["cost", "--help"]) == 0
    assert "None for float32. (default: None)" in " ".join(
        capsys.readouterr().out.split()
    )


CACHE = """
import sys
from jaxnas import cli
from jaxnas.options import MOST_TRIALS
assert cli.main(["search", "missing.py"]) == 2
assert "jax" not in sys.modules and "matplotlib" not in sys.modules
import jax
print(jax.config.jax_compilation_cache_dir)
print(jax.config.jax_persistent_cache_min_compile_time_secs)
print(jax.config.jax_persistent_cache_min_entry_size_bytes)
"""


@pytest.mark.parametrize("chosen", [None, "/elsewhere"])
def test_the_compilation_cache_is_on_before_jax_is_imported(chosen, tmp_path):
    kept = {k: v for k, v in os.environ.items() if not k.startswith("JAX_")}
    kept |= {"JAX_PLATFORMS": "cpu", "PYTHONPATH": str(Path(cli.__file__).parents[1])}
    kept |= {"JAX_COMPILATION_CACHE_DIR": chosen} if chosen else {}
    command = [sys.executable, "-c", CACHE]
    done = subprocess.run(command, env=kept, capture_output=True, text=True, check=True)
    folder = chosen or str(tmp_path / "cache" / "jaxnas" / "xla")
    assert done.stdout.split() == [folder, "0.5", "0"]


def test_development_mode_shows_the_traceback():
    environment = os.environ | {"PYTHONPATH": str(Path(cli.__file__).parents[1])}
    command = [sys.executable, "-X", "dev", "-m", "jaxnas.cli", "search", "missing.py"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert "Traceback" in done.stderr and "missing.py does not exist" in done.stderr


def test_package_and_project_agree_on_version_and_command(capsys):
    project = tomllib.loads(
        (Path(cli.__file__).parents[1] / "pyproject.toml").read_text()
    )["project"]
    assert cli.main(["--version"]) == 0
    assert capsys.readouterr().out == f"jaxnas {project['version']}\n"
    assert project["scripts"] == {"jaxnas": "jaxnas.cli:main"}


def test_profile_hands_over_space_options_and_flags(library, monkeypatch, capsys):
    preparation, profiling = map(types.ModuleType, ("preparation", "profiling"))
    preparation.search_space = lambda config: ("space of", config.seed)
    profiling.Profile = lambda **given: given

    def profile(measured, out, **options):
        library.calls.append((measured, out, options))
        found = {"relative_rmse": 0.05, "spearman": 0.99, "networks": 4}
        return {"slope_and_bias": types.SimpleNamespace(**found)}

    profiling.profile = profile
    for module in (preparation, profiling):
        monkeypatch.setitem(sys.modules, f"jaxnas.{module.__name__}", module)
    text = "profile digits.py --networks=9 --fitted 5 --resume"
    assert cli.main(text.split()) == 0
    ((measured, out, options),) = library.calls
    expected = {"space": ("space of", 5), "networks": 9, "fitted": 5}
    assert measured == expected | {"batch": 32, "seed": 0}
    assert out == Path("runs/digits-profile")
    command = f"jaxnas {text}"
    assert options == {"resume": True, "overwrite": False, "command": command}
    printed = capsys.readouterr().out
    assert "slope and bias: relative RMSE 0.050, Spearman 0.990 over 4" in printed
    assert cli.main(["profile", "--help"]) == 0
    assert "--fitted INT" in capsys.readouterr().out
