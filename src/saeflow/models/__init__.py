"""Language models: loading, hooks, whole and partial forward passes, training a small one."""
