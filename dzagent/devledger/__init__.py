"""The development ledger: a small JSON-RPC server that answers from real account bytes, and the verbs that change it.

`records` is what it holds, `document` and `store` keep it in one file, `people`, `fleet` and `world` are the
changes, `layout` and `bank` make the account bytes, `methods` and `dispatch` answer requests, `node` and `server`
serve them. Nothing here imports the agent's decoder: the two are checked against each other.
"""
