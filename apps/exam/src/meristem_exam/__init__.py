"""Turn evaluation results into measurement: Rasch scales, fit, ranking with intervals and diagnostics in one report."""
