"""The command line of `etha.kvstore`: look into a store, write to it, wait on it, and find out what is wrong with it.

The command is ``etha-kv``; ``etha-kv --help`` lists what it does.
"""
