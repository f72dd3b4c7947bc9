"""Search indexes, one a file; `tests/kits/index_kit.py` is what each must do (`ports.CandidateIndex`) as tests."""
