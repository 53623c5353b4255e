"""Other simulators of caches, which pip installs, over the same requests: what they say and how long they take, beside kvplan."""
