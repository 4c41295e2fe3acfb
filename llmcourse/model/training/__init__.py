"""How course-tiny comes about: trainer, optimizer, packing, evaluation, model card, and the `llmcourse train` command.

Nothing that serves the model needs this folder. Week 1 trains a model like it in miniature.
"""
