"""One item after another on every device: how groups of networks and trials run.

A leading axis is parted over this host's devices; each runs its share in a loop. Items
do not meet, so a result depends on its own item and never on the number of devices.

Operands are copied to all devices before the program and results to the first one after
it. The program itself, and whatever is computed from its results, then needs no
collective operation; on the CPU those can wait for each other for ever.
"""

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.sharding import Mesh, NamedSharding, PartitionSpec

AXIS = "items"


def map_over_devices(function: Callable, items, *shared):
    """`[function(item, *shared) for item in items]` as arrays with a leading axis.

    `items` is a pytree with a common leading axis. One program is compiled for every
    function object, shape and dtype: pass a function that lasts, not a new closure. Not
    to be called inside `jit`.
    """
    devices = jax.local_devices()
    count = jax.tree.leaves(items)[0].shape[0]
    # The last item is repeated until the devices' shares are equal.
    rows = np.arange(count + -count % len(devices)).clip(max=count - 1)
    items = jax.tree.map(lambda leaf: jnp.asarray(leaf)[rows], items)
    everywhere = NamedSharding(_mesh(), PartitionSpec())
    operands = jax.device_put((items, shared), everywhere)
    results = jax.device_put(_program()(function, *operands), devices[0])
    return jax.tree.map(lambda leaf: leaf[:count], results)


def _mesh() -> Mesh:
    return Mesh(np.array(jax.local_devices()), (AXIS,))


@functools.cache
def _program():
    """`_parted`, compiled; on the CPU with less effort.

    For a supernet's training step that took a quarter less time to compile and ran as
    fast: its time goes into matrix products, which are compiled already.
    """
    options = {"xla_backend_optimization_level": 1}
    on_cpu = jax.default_backend() == "cpu"
    return jax.jit(
        _parted,
        static_argnames="function",
        compiler_options=options if on_cpu else None,
    )


def _parted(function, items, shared):
    def share(items, shared):
        return _one_by_one(lambda item: function(item, *shared), items)

    mapped = jax.shard_map(
        share,
        mesh=_mesh(),
        in_specs=(PartitionSpec(AXIS), PartitionSpec()),
        out_specs=PartitionSpec(AXIS),
        check_vma=False,
    )
    return mapped(items, shared)


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
