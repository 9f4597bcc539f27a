"""Found by every Python process of a launch that has this folder on its path: spoils the ranks that SABOTAGE names."""

import json
import os

if "RANK" in os.environ and "SABOTAGE" in os.environ:
    from tests.reliability import sabotage

    for name, options in json.loads(os.environ["SABOTAGE"]).get(os.environ["RANK"], {}).items():
        getattr(sabotage, name)(**options)
