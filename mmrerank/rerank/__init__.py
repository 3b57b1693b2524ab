"""Reranking: the driver, the parser, judgements and strategies."""
