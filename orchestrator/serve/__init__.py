"""The endpoint: one HTTP server that answers for every task in the catalog.

A request's way: ``ingress`` authenticates, admits and decodes it, and hands it to one of the ``engine``
replicas (to another one, if that dies). The engine batches rows of any tasks and runs them in one forward
pass.

A prompt's way: ``poller`` writes the registry's champions, canaries and shadows into the catalog in the
store. The ``residency`` of each engine follows the catalog, loads and checks what is new, and swaps it in.

``launch`` starts and stops everything: a Ray, the deployments on it, and at the end the draining of requests.
"""
