"""One script a published figure or claim; each prints claim and measurement side by side."""
