"""One item after another on every device: how groups of networks and trials run.

A leading axis is parted over this host's devices; each runs its share in a loop. Items
do not meet, so a result depends on its own item and never on the number of devices (on
the CPU, of up to eight or as many as it has cores; `jaxnas/__init__.py` says why).

Operands are copied to all devices and results to the first one. No program needs a
collective operation; on the CPU those can wait for each other for ever. Where several
processes share the items, they exchange results only when all of these are at hand.
"""

import functools
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.sharding import Mesh, NamedSharding, PartitionSpec

AXIS = "items"


def map_over_devices(function: Callable, items, *shared):
    """`[function(item, *shared) for item in items]` as arrays with a leading axis.

    `items` is a pytree with a common leading axis. For every function object, shape and
    dtype a program is compiled on every device: pass a function that lasts, not a new
    closure. Not to be called inside `jit`.

    One program for all devices would be simplified in another order than one for a
    single device, which can replace a division by a multiplication: the last bits of
    results would then tell whether there were several.
    """
    devices = jax.local_devices()
    count = jax.tree.leaves(items)[0].shape[0]
    # The last item is repeated until the devices' shares are equal.
    rows = np.arange(count + -count % len(devices)).clip(max=count - 1)

    def begin(device, rows):
        part = jax.tree.map(lambda leaf: jnp.asarray(leaf)[rows], items)
        return _program()(function, *jax.device_put((part, shared), device))

    # What is traced for the first device is not traced again, and the others compile
    # side by side.
    first, *rest = zip(devices, np.split(rows, len(devices)), strict=True)
    parts = [begin(*first)]
    if rest:
        with ThreadPoolExecutor(len(rest)) as pool:
            parts += pool.map(lambda share: begin(*share), rest)
    parts = jax.device_put(parts, devices[0])
    return jax.tree.map(lambda *leaves: jnp.concatenate(leaves)[:count], *parts)


def map_over_processes(function: Callable, items, *shared):
    """`map_over_devices` whose items are parted over all processes first.

    Every process of `jax.distributed` calls this alike, computes its share and gets the
    results of all.
    """
    processes = jax.process_count()
    if processes == 1:
        return map_over_devices(function, items, *shared)
    _meet()
    count = jax.tree.leaves(items)[0].shape[0]
    rows = np.arange(count + -count % processes).clip(max=count - 1)
    own = np.split(rows, processes)[jax.process_index()]
    share = jax.tree.map(lambda leaf: jnp.asarray(leaf)[own], items)
    gathered = across_processes(map_over_devices(function, share, *shared))
    return jax.tree.map(
        lambda leaf: jnp.asarray(np.concatenate(leaf)[:count]), gathered
    )


def across_processes(arrays):
    """What every process of `jax.distributed` passes, stacked: `[processes, ...]`.

    Host arrays of the same shapes in all processes, which must call this alike. One
    device of each process takes part, so that none waits for another of its own host.
    """
    if jax.process_count() == 1:
        return jax.tree.map(lambda leaf: np.asarray(leaf)[None], arrays)
    mesh, gather = _process_gather()
    parted = NamedSharding(mesh, PartitionSpec(AXIS))

    def place(leaf):
        own = np.asarray(leaf)[None]
        shape = (jax.process_count(), *own.shape[1:])
        return jax.make_array_from_process_local_data(parted, own, shape)

    gathered = gather(jax.tree.map(place, arrays))
    return jax.tree.map(lambda leaf: np.asarray(leaf.addressable_data(0)), gathered)


@functools.cache
def _meet():
    """The first exchange, before there is any work that could make a process late for
    it: half a minute late is too late to connect, while later exchanges wait."""
    across_processes(np.zeros(1))


@functools.cache
def _process_gather():
    firsts = {}
    for device in jax.devices():
        firsts.setdefault(device.process_index, device)
    devices = [firsts[number] for number in range(jax.process_count())]
    mesh = Mesh(np.array(devices), (AXIS,))
    everywhere = NamedSharding(mesh, PartitionSpec())
    return mesh, jax.jit(lambda tree: tree, out_shardings=everywhere)


def _program():
    """The loop over a share, compiled for each function; on the CPU with less effort.

    For a supernet's training step that took a quarter less time to compile and ran as
    fast: its time goes into matrix products, which are compiled already. Who asks JAX
    for less effort still gets that.
    """
    on_cpu = jax.default_backend() == "cpu"
    reduced = on_cpu and not jax.config.read("jax_disable_most_optimizations")
    return _compiled_with(1 if reduced else None)


@functools.cache
def _compiled_with(level):
    options = None if level is None else {"xla_backend_optimization_level": level}
    return jax.jit(_share, static_argnames="function", compiler_options=options)


def _share(function, items, shared):
    return _one_by_one(lambda item: function(item, *shared), items)


def _one_by_one(function: Callable, items):
    """`lax.map(function, items)`, its length hidden from the compiler.

    A loop known to turn once is taken apart and its body fused with what surrounds it,
    which rounds differently: on more devices, an item would give other bits. The same
    happens to what is sliced from one row, so a lone item gets a second, unused one.
    """
    count = jax.tree.leaves(items)[0].shape[0]
    if count == 1:
        items = jax.tree.map(lambda leaf: jnp.concatenate([leaf, leaf]), items)

    @jax.jit  # traced once for the shapes and the loop
    def result(number):
        return function(jax.tree.map(lambda leaf: leaf[number], items))

    def turn(number, results):
        return jax.tree.map(
            lambda leaf, value: leaf.at[number].set(value), results, result(number)
        )

    empty = jax.tree.map(
        lambda leaf: jnp.zeros((max(count, 2), *leaf.shape), leaf.dtype),
        jax.eval_shape(result, jnp.int32(0)),
    )
    end = lax.optimization_barrier(jnp.int32(count))
    results = lax.fori_loop(0, end, turn, empty)
    return jax.tree.map(lambda leaf: leaf[:count], results)
