"""The examples of the README run, and compute what they say."""

import re
from pathlib import Path

import jax.numpy as jnp

ENDS = ("", "/input")
README = (Path(__file__).parents[1] / "README.md").read_text()


def test_the_examples_run_in_order_and_say_the_truth(capsys):
    names = {}
    for block in re.findall(r"```python\n(.*?)```", README, re.DOTALL):
        exec(compile(block, "README.md", "exec"), names)
    printed = capsys.readouterr().out.splitlines()
    assert printed[0] == "[2304.]" and float(printed[1]) == 36
    assert printed[-2:] == ["True", "True"]
    assert names["words"].dtype == jnp.uint8
    assert names["changed"].shape == (100,)
    # 288 bits at a rate of 0.01: about 94 of 100 trials flip at least one.
    assert 60 < names["changed"].sum() <= 100
    layers = ("params/Conv_0/kernel", "params/Dense_0/kernel")
    assert set(names["scales"]) == {f"{name}{end}" for name in layers for end in ENDS}
    clean = names["stored"](names["variables"], names["images"])
    assert clean.shape == (1, 10) and (names["logits"] != clean).any()
    assert names["found"].stopped and 0 < names["high"] - names["low"] <= 0.1
    (flip,) = names["flips"]
    assert (flip.before ^ flip.after).bit_count() == 1
    assert names["again"].shape == (1, 10)
    assert names["census"].trials == 36 * 8 and names["table"].trials.tolist() == 8 * [
        36
    ]
    assert names["sample"].trials.tolist() == 8 * [8]
    truth = names["census"].columns["sdc1"].mean()
    assert names["estimate"].low <= truth <= names["estimate"].high
