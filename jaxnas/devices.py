"""One item after another on every device: how groups of networks and trials run.

A leading axis is parted over all devices; each runs its share with `lax.map`. Items do
not meet, so a result depends on its own item and never on the number of devices.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.sharding import Mesh, NamedSharding, PartitionSpec

AXIS = "items"


def map_over_devices(function: Callable, items, *shared):
    """`[function(item, *shared) for item in items]` as arrays with a leading axis.

    `items` is a pytree with a common leading axis; `shared` is copied to every device.
    Call it inside `jit`. The last item is repeated to fill up the devices' shares.
    """
    mesh = _all_devices()
    count = jax.tree.leaves(items)[0].shape[0]
    missing = -count % mesh.size

    def fill(leaf):
        last = jnp.broadcast_to(leaf[-1:], (missing, *leaf.shape[1:]))
        return jnp.concatenate([leaf, last])

    def share(items, *shared):
        return lax.map(lambda item: function(item, *shared), items)

    mapped = jax.shard_map(
        share,
        mesh=mesh,
        in_specs=(PartitionSpec(AXIS), *(PartitionSpec() for _ in shared)),
        out_specs=PartitionSpec(AXIS),
        check_vma=False,
    )
    results = mapped(jax.tree.map(fill, items) if missing else items, *shared)
    return jax.tree.map(lambda leaf: leaf[:count], results)


def replicate(tree):
    """A pytree of arrays, every one copied to all devices.

    A program is compiled anew for every way in which its operands lie on the devices:
    give it these, and arrays fresh, computed or restored all share one.
    """
    return jax.device_put(tree, NamedSharding(_all_devices(), PartitionSpec()))


def _all_devices() -> Mesh:
    return Mesh(np.array(jax.devices()), (AXIS,))
