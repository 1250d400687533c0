"""Watch features appear, peak and vanish over a language model's pre-training: crosscoders, analyses and an explorer page."""
