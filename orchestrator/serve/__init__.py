"""One endpoint that answers for every task in the catalog.

A request's way through these files: ``admission`` lets it in; ``app`` leads it to one of ``routes``; ``door``
(with ``form``, ``json_document``, ``batch_request`` and ``tensor_request``) checks it before anything is
decoded; ``front`` is what routes share; ``engine_client`` hands it to an ``engine`` replica (another one, if
that dies), which batches rows of any tasks and has ``answering`` run them in one forward pass; ``problems``
words what goes wrong.

A prompt's way: ``poller`` writes the registry's champions, and what is tried beside them, into the catalog;
each engine's ``follower`` reads it (``kept_catalog``, while the store is down); ``loader`` fetches (through
``disk_cache``) and checks what is new; ``residency`` swaps it in and says who answers: by ``champions``, what
is wanted and what answers meanwhile, ``loads``, one a prompt, in the order of ``load_queue``, ``in_advance``,
what nobody asked for yet, ``prompt_memory``, who goes when there is no room (``slot_release`` waits for it),
and ``canary``, which of two versions a key gets. ``standing`` words how tasks stand. ``shadow`` compares,
once the reply is out.

``run`` is the command, ``endpoint`` starts and stops everything: a Ray (``session``), the ``deployments`` on
it, and at the end ``drain``. Of all these, ``engine``, ``engine_client``, ``deployments``, ``session`` and
``endpoint`` know Ray.
"""
