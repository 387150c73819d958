"""The files of a run folder from which the page's numbers come, by the names that its footnotes show."""

DATASET = ("dataset/manifest.json",)
SELECTION = ("selection/manifest.json",)  # with its parts, which it lists
PROPOSAL = ("search/proposal.json",)
BATCHES = ("search/batches.json",)
CONFIRM = ("search/confirm.json",)
COMPARISON = ("evaluate/comparison.json",)
TRIALS = ("trials/",)
STAGES = ("stages/",)
SAMPLES = ("samples.parquet",)
IDENTITY = ("identity.json",)
RECIPE = ("recipe.resolved.yaml",)
