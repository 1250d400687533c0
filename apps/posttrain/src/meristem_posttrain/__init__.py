"""Fine-tune and align a causal language model with any loss by name."""
