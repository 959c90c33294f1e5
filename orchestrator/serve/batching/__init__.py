"""Fair queue of rows and the batches gathered from it, for ingress and engines; without Ray and torch."""
