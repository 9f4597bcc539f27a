#!/usr/bin/env bash
# Guess: destroy_process_group ends the default process group and the threads of its backend.
# Seen: torch.distributed.nn keeps the group that exists when it is first imported as the default of its functions
# (group=group.WORLD). Imported after init_process_group, by whatever library, it keeps gloo's threads until the process ends.
# Versions: torch 2.14.1.
# Output: threads of the group that are left: imported before it 0 of 3, imported after it 3 of 3
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check torch==2.14.1 numpy==2.4.6
cat > "$folder/threads.py" <<'PYTHON'
import os
import sys

import torch

os.environ |= {"RANK": "0", "WORLD_SIZE": "1", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "0"}
if sys.argv[1] == "before":
    import torch.distributed.nn


def threads() -> int:
    return len(os.listdir("/proc/self/task"))


alone = threads()
store = torch.distributed.HashStore()
torch.distributed.init_process_group("gloo", store=store, rank=0, world_size=1)
torch.distributed.all_reduce(torch.ones(1))
if sys.argv[1] == "after":
    import torch.distributed.nn
begun = threads() - alone
torch.distributed.destroy_process_group()
print(f"{threads() - alone} of {begun}")
PYTHON
before=$("$folder/venv/bin/python" "$folder/threads.py" before)
after=$("$folder/venv/bin/python" "$folder/threads.py" after)
echo "threads of the group that are left: imported before it $before, imported after it $after"
[ "${before##* }" -ge 1 ] && [ "${before%% *}" = 0 ] && [ "${after##* }" -ge 1 ] && [ "${after%% *}" = "${after##* }" ]
