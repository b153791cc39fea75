"""The multiple-choice knapsack and its limits."""
