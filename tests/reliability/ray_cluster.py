"""A Ray cluster of nodes on this machine; reads one word a line: `kill` ends the last node with SIGKILL, `end` all.

Run as a script, in a process of its own: Ray talks to itself over the network, which a test may not.
"""

from __future__ import annotations

import sys

from ray.cluster_utils import Cluster


def main(nodes: int) -> None:
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
    others = [cluster.add_node(num_cpus=1) for _ in range(nodes - 1)]
    print(cluster.address, flush=True)
    for line in sys.stdin:
        if line.strip() == "kill":
            cluster.remove_node(others.pop(), allow_graceful=False)
            print("killed", flush=True)
        else:
            break
    cluster.shutdown()


if __name__ == "__main__":
    main(int(sys.argv[1]))
