"""What hpcml itself costs: ratios against peers and limits, all measured in one run."""
