"""What c2gm-eval computes: painters, metrics, scores and picture sheets."""
