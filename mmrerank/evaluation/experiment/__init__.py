"""An experiment: first stage, reranking, journal, forecast, provenance."""
