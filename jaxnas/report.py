"""A run directory read back: the tables of `report.md` and the data of the figures.

Reads files only: nothing is trained or measured again, and the same files always give
the same report.
"""

import itertools
import os
from pathlib import Path

import numpy as np

from jaxnas import plots
from jaxnas.analysis.resilience import rank_agreement
from jaxnas.lineage import ancestry, changes
from jaxnas.reading import FLIPS, Run, group_words, named, read_run
from jaxnas.results import read_heat_maps, write_fault_tables

ERROR = "validation_error"


def write_report(run: str | os.PathLike) -> Path:
    """Writes the figures, tables and `report.md` of a run; returns the report.

    Raises ValueError as `read_run` does, before anything is written.
    """
    read = read_run(run)
    (read.path / "figures").mkdir(exist_ok=True)
    sections = [
        _summary(read),
        _front_section(read),
        _fault_section(read),
        _sensitivity_section(read),
        _agreement_section(read),
        _scheme_section(read),
        _progress_section(read),
        _family_section(read),
        _provenance_section(read),
    ]
    write_fault_tables(read.path, read.faults.values())
    report = read.path / "report.md"
    report.write_text("\n".join(filter(None, sections)), encoding="utf-8")
    return report


def _summary(run: Run) -> str:
    generations = len({record["generation"] for record in run.records.values()})
    objectives = run.config["config"]["evolution"]["objectives"]
    names = ", ".join(plots.quantity_label(name) for name in objectives)
    return f"""# {run.config["name"]}

{len(run.records)} networks were trained and measured in {generations} generations; \
{len(run.front)} of them are mutually non-dominated in {names}, all minimised. \
The search saw training and validation images only; test accuracies and fault \
measurements were made when it had finished.
"""


def _front_section(run: Run) -> str:
    names = _objectives(run)
    columns = {
        name: np.array([r["objectives"][name] for r in run.records.values()], float)
        for name in names
    }
    members = {int(row["id"]) for row in run.front}
    on_front = np.array([number in members for number in run.records])
    others = {name: values for name, values in columns.items() if name != ERROR}
    figure = run.path / "figures" / "front.png"
    plots.plot_front(figure, columns[ERROR], others, on_front)

    tests = [name for name in run.front[0] if name.startswith("test_accuracy_")]
    header = ["id", *map(plots.quantity_label, [*names, *tests]), "architecture"]
    rows = [
        [
            row["id"],
            *(_number(float(row[name]), name) for name in [*names, *tests]),
            f"`{row['architecture']}`".replace("|", "\\|"),
        ]
        for row in run.front
    ]
    shown = {name: columns[name][on_front] for name in names}
    plots.plot_parallel(run.path / "figures" / "parallel.png", shown)
    images = [_image("front", "Front"), _image("parallel", "Every network as a line")]
    return _section("The front", _table(header, rows), *images)


def _objectives(run: Run) -> list[str]:
    names = run.records[int(run.front[0]["id"])]["objectives"]
    return [ERROR, *(name for name in names if name != ERROR)]


def _fault_section(run: Run) -> str:
    if not run.faults:
        return ""
    text, panels = [], {}
    names = _objectives(run)
    shade = "weight_bytes" if "weight_bytes" in names else names[-1]
    for group in _groups(run):
        title, rates = group_words(*group), _rates(run, *group)
        rows, panels[title] = [], []
        for member in run.front:
            number = int(member["id"])
            cells = [run.faults[number, *group, rate] for rate in rates]
            accuracies = [_interval(c["accuracy"], c["low"], c["high"]) for c in cells]
            clean = _number(cells[0]["clean_accuracy"], "accuracy")
            rows.append([member["id"], clean, *accuracies])
            values = [[c[k] for c in cells] for k in ("accuracy", "low", "high")]
            size = float(run.records[number]["objectives"][shade])
            curve = plots.Curve(np.array(rates), *np.array(values, float), size)
            panels[title].append(curve)
        header = ["id", "no faults", *(f"rate {rate:g}" for rate in rates)]
        text += [f"**{title.capitalize()}**", _table(header, rows)]
    figure = run.path / "figures" / "faults.png"
    plots.plot_fault_curves(figure, panels, shade_label=plots.quantity_label(shade))
    some = next(iter(run.faults.values()))
    intro = (
        "Mean accuracy over random faults (every stored bit flips independently, with "
        "the rate given per bit, where no other fault is named) and the interval of "
        "that mean; "
        f"{min(f['trials'] for f in run.faults.values())} trials or more of "
        f"{some['images_per_trial']} images each."
    )
    return _section("Under bit faults", intro, *text, _image("faults", "Fault curves"))


def _sensitivity_section(run: Run) -> str:
    panels = read_heat_maps(run.path)
    if not panels:
        return ""
    figure = run.path / "figures" / "sensitivity.png"
    label = "SDC-1 of one flip"
    plots.plot_heat_maps(figure, panels, share_label=label)
    intro = (
        "How probably one flipped bit changes a prediction, by layer and bit position, "
        "in the best network of the front; `sensitivity.csv` has the intervals."
    )
    return _section("Critical bits", intro, _image("sensitivity", "Critical bits"))


def _agreement_section(run: Run) -> str:
    rows, panels = [], {}
    for scheme, target, fault in _groups(run):
        predictor = f"{target}_fragility"
        # What is predicted is the effect of flips.
        if predictor not in _objectives(run) or fault != FLIPS:
            continue
        for rate in _rates(run, scheme, target, fault):
            panel = _comparison(run, predictor, (scheme, target, fault, rate))
            title = f"{group_words(scheme, target, fault)}, at {rate:g}"
            try:
                found = rank_agreement(panel.predicted, panel.measured)
                spearman = f"{found.spearman:.2f} [{found.low:.2f}, {found.high:.2f}]"
                panels[f"{title}\nSpearman {found.spearman:.2f}"] = panel
            except ValueError as error:
                spearman = f"not defined: {error}"
                panels[title] = panel
            rows.append([scheme.replace("_", " "), target, f"{rate:g}", spearman])
    if not rows:
        return ""
    columns = len({rate for *_, rate in run.faults})
    figure = run.path / "figures" / "agreement.png"
    plots.plot_agreement(figure, panels, columns=columns)
    intro = (
        "Spearman's rank correlation, over the front, between the fragility predicted "
        "from the topology alone and the accuracy lost to faults, with a 95 % "
        "bootstrap interval. Positive means that the prediction ranks rightly."
    )
    header = ["scheme", "target", "rate", "Spearman"]
    image = _image("agreement", "Predicted and measured resilience")
    return _section("Predicted against measured", intro, _table(header, rows), image)


def _comparison(run: Run, predictor: str, group) -> plots.Comparison:
    numbers = [int(row["id"]) for row in run.front]
    found = [run.faults[number, *group] for number in numbers]
    predicted = [run.records[number]["objectives"][predictor] for number in numbers]
    lost = [
        [fault["clean_accuracy"] - fault[bound] for fault in found]
        for bound in ("accuracy", "high", "low")
    ]
    return plots.Comparison(np.array(predicted, float), *np.array(lost, float))


def _scheme_section(run: Run) -> str:
    schemes = sorted({scheme for scheme, _, _ in _groups(run)})
    rows = []
    for first, second in itertools.combinations(schemes, 2):
        for what in sorted({(target, fault) for _, target, fault in _groups(run)}):
            shared = set(_rates(run, first, *what)) & set(_rates(run, second, *what))
            for rate in sorted(shared):
                a = _faults_of_front(run, first, *what, rate)
                b = _faults_of_front(run, second, *what, rate)
                both = list(zip(a, b, strict=True))
                difference = np.mean([x["accuracy"] - y["accuracy"] for x, y in both])
                better = sum(x["low"] > y["high"] for x, y in both)
                worse = sum(x["high"] < y["low"] for x, y in both)
                counts = [str(better), str(worse), str(len(both) - better - worse)]
                points = f"{100 * difference:+.2f}"
                cells = [named(*what), f"{rate:g}", points, *counts]
                rows.append([f"{first} − {second}".replace("_", " "), *cells])
    if not rows:
        return ""
    header = ["schemes", "target", "rate", "mean difference in accuracy (points)"]
    header += ["first better", "second better", "intervals overlap"]
    return _section("The number schemes compared", _table(header, rows))


def _faults_of_front(run: Run, *group) -> list[dict]:
    return [run.faults[int(row["id"]), *group] for row in run.front]


def _progress_section(run: Run) -> str:
    if not run.progress:
        return ""
    last = run.progress[-1]
    names = ("evaluated", "hypervolume", "best_validation_error")
    dtypes = (np.int64, np.float64, np.float64)
    arrays = [
        np.array([line[name] for line in run.progress], dtype)
        for name, dtype in zip(names, dtypes, strict=True)
    ]
    plots.plot_progress(run.path / "figures" / "progress.png", *arrays)
    text = (
        f"After {last['evaluated']} networks the front's hypervolume was "
        f"{last['hypervolume']:.4g}."
    )
    return _section("Progress", text, _image("progress", "Progress"))


def _family_section(run: Run) -> str:
    """How the front came to be, and the most accurate of it step by step."""
    members = [int(row["id"]) for row in run.front]
    lines = {number: ancestry(run.records, number) for number in members}
    family = {one["id"]: one for line in lines.values() for one in line}
    plots.plot_family(
        run.path / "figures" / "family.png",
        np.array([one["generation"] for one in family.values()]),
        np.array([one["objectives"][ERROR] for one in family.values()], float),
        [[list(family).index(p) for p in one["parents"]] for one in family.values()],
        np.array([number in members for number in family]),
    )
    best = min(members, key=lambda n: run.records[n]["objectives"][ERROR])
    rows, before = [], None
    for one in lines[best]:
        steps = changes(before, one["architecture"]) if before else ["initial network"]
        error = _number(one["objectives"][ERROR], ERROR)
        text = "; ".join(steps) or "the same network, trained on"
        rows.append([str(one["id"]), str(one["generation"]), error, text])
        before = one["architecture"]
    header = ["id", "generation", "validation error", "what changed"]
    text = f"Network {best}, the most accurate of the front, step by step:"
    return _section("Family", _image("family", "Family"), text, _table(header, rows))


def _provenance_section(run: Run) -> str:
    lines = [f"- {name}: `{value}`" for name, value in _flat(run.provenance)]
    config = "\n".join(
        f"{name} = {value}" for name, value in _flat(run.config["config"])
    )
    block = f"Configuration:\n\n```\n{config}\n```"
    return _section("Provenance", "\n".join(lines), block)


def _flat(tree, prefix: str = ""):
    """Dotted names and values of nested dictionaries and lists of dictionaries."""
    if isinstance(tree, list):
        tree = dict(enumerate(tree))
    for name, value in tree.items():
        nested = isinstance(value, list) and value and isinstance(value[0], dict)
        if nested or isinstance(value, dict):
            yield from _flat(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value


def _groups(run: Run) -> list[tuple[str, str, str]]:
    """Schemes, targets and faults that were measured."""
    return sorted({(s, t, fault) for _, s, t, fault, _ in run.faults})


def _rates(run: Run, *group: str) -> list[float]:
    return sorted({rate for _, *of, rate in run.faults if tuple(of) == group})


def _number(value: float, name: str) -> str:
    if "accuracy" in name or "error" in name:
        return f"{100 * value:.2f} %"
    return f"{value:.0f}" if abs(value) >= 1000 else f"{value:.4g}"


def _interval(value: float, low: float, high: float) -> str:
    return f"{100 * value:.1f} [{100 * low:.1f}, {100 * high:.1f}] %"


def _section(title: str, *paragraphs: str) -> str:
    return "\n\n".join([f"## {title}", *paragraphs]) + "\n"


def _table(header: list[str], rows: list[list[str]]) -> str:
    cells = [header, ["---"] * len(header), *rows]
    return "\n".join(f"| {' | '.join(row)} |" for row in cells)


def _image(name: str, text: str) -> str:
    return f"![{text}](figures/{name}.png)"
