"""Milliseconds a generation of EvoMO 0.3.1's NSGA-II on ZDT1, as JSON on the last line.

    python peer_evomo.py '{"100": 200, "1000": 10}'

Run as a black box with its default operators, eagerly, on as many threads as PyTorch
chooses. Runs in an environment of its own: pip install evomo==0.3.1 evox==1.4.0
"""

import json
import sys

import torch
from evomo.algorithms import NSGA2
from evox.core import Problem
from evox.workflows import StdWorkflow
from timing import TURNS, best, spent

GENES = 30


class Zdt1(Problem):
    def evaluate(self, genomes):
        g = 1 + 9 * torch.mean(genomes[:, 1:], dim=1)
        second = g * (1 - torch.sqrt(genomes[:, 0] / g))
        return torch.stack([genomes[:, 0], second], dim=1)


def main():
    rows = [measured(int(size), n) for size, n in json.loads(sys.argv[1]).items()]
    print(json.dumps(rows))


def measured(size: int, generations: int) -> dict:
    turns = []
    for _ in range(TURNS):
        algorithm = NSGA2(size, 2, torch.zeros(GENES), torch.ones(GENES))
        workflow = StdWorkflow(algorithm, Zdt1())
        workflow.init_step()

        def search(step=workflow.step):
            for _ in range(generations):
                step()

        turns.append(spent(search, generations))
    return {"population": size, **best(turns), "threads": torch.get_num_threads()}


if __name__ == "__main__":
    main()
