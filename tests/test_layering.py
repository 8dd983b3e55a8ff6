"""The import order of the package, and the size of its files and functions."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1] / "jaxnas"

# A module may import only modules that stand before it.
ORDER = """
types trees progress jaxprs rewriting devices switches
numerics.formats numerics.words numerics.lookups numerics.fixed_point
numerics.codebooks numerics.logarithmic numerics.two_terms numerics.floats
numerics.machine numerics.exponents numerics.posits
numerics.primitives numerics.calibration numerics.blocks
numerics.histograms numerics.observers numerics.learned
numerics.rules numerics.provenance numerics.planning numerics.models numerics.scales
numerics.integer_formats numerics.steps numerics.integers
numerics.deployment numerics.export
arithmetic topology layer_shapes maps tracing
networks.convolutions networks.layers networks.space networks.extents networks.tables
networks.supernet networks.compact networks.materialize
networks.normalised networks.vgg networks.residual networks.mobilenet networks.nasnet
networks.references
data training checkpoints runs
faults.rates faults.masks faults.bits faults.models faults.flips faults.upsets
faults.defects faults.memory faults.noise faults.kinds faults.ftt
faults.sites faults.striking faults.injection faults.corruption faults.gradients
faults.statistics faults.means faults.sampling_plans faults.stratified
faults.sequential faults.paired faults.vulnerability
faults.outcomes faults.records faults.trials faults.tasks faults.findings
faults.campaigns faults.exhaustion faults.strata
hardware.arrays hardware.technologies hardware.accelerators
hardware.folding hardware.systolic hardware.memory
hardware.windows hardware.flushed_buffers hardware.pinned_buffers hardware.dram
hardware.bandwidth hardware.energy hardware.area hardware.exposure hardware.counts
hardware.relaxation hardware.latency
analysis.resilience
search.ordering search.noise search.pareto search.crowding search.density
search.hypervolume search.indicators
search.identity search.pruning search.morphisms search.objectives search.limits
search.founders
search.genomes search.matings search.repeats search.archives search.states
search.generations
search.nsga2 search.nsga3 search.aging search.lemonade search.cheap
search.islands search.variations search.catalogue search.strikes search.stores
search.surrogates search.improvement
search.evaluation search.screening search.evolution
measurement sensitivity plots profiling results lineage reading report config
overrides preparation
evolving front costs experiment options cli
""".split()


def module_name(path):
    """`numerics.formats` for a module, `numerics` for its package, `` for the root."""
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


FILES = {module_name(path): path for path in sorted(ROOT.rglob("*.py"))}


def position(name):
    """A package stands where its last module stands: importing it imports them all."""
    inside = [i for i, row in enumerate(ORDER) if f"{row}.".startswith(f"{name}.")]
    return max(inside, default=None)


def imported_modules(path):
    """Names, within the package, of everything a file imports, lazily or not."""
    package = ["jaxnas", *path.relative_to(ROOT).parts[:-1]]
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            targets = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            prefix = ".".join([*base, node.module] if node.module else base)
            targets = [
                f"{prefix}.{alias.name}"
                if f"{prefix}.{alias.name}".removeprefix("jaxnas.") in FILES
                else prefix
                for alias in node.names
            ]
        else:
            continue
        for target in targets:
            if target == "jaxnas" or target.startswith("jaxnas."):
                yield target.removeprefix("jaxnas").removeprefix(".")


def test_table_and_package_hold_the_same_modules():
    modules = {name for name, path in FILES.items() if path.name != "__init__.py"}
    assert modules == set(ORDER)


@pytest.mark.parametrize("name", [name for name in FILES if name])
def test_module_imports_only_earlier_ones(name):
    own, is_package = position(name), FILES[name].name == "__init__.py"
    assert own is not None, f"{name} is missing from the table"
    for imported in imported_modules(FILES[name]):
        if is_package:
            assert imported.startswith(f"{name}."), f"{name} re-exports {imported}"
        elif imported:
            assert position(imported) < own, f"{name} imports {imported}"


def test_root_package_imports_no_module_of_its_own():
    assert not list(imported_modules(FILES[""]))


@pytest.mark.parametrize("name", FILES)
def test_files_and_functions_stay_small(name):
    text = FILES[name].read_text()
    assert text.count("\n") <= 400
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            body = node.body[1:] if ast.get_docstring(node) else node.body
            lines = body[-1].end_lineno - body[0].lineno + 1 if body else 0
            assert lines <= 60, f"{name}.{node.name} has {lines} lines"
