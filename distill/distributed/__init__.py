"""Training past one machine: the ranks of torchrun share one table, row-wise, by TorchRec."""
