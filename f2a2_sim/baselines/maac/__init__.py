"""MAAC (Iqbal and Sha, ICML 2019): central training with one attention critic, decentralised policies."""
