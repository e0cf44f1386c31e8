"""The stages of the pipeline: each module here is one stage of dvc.yaml and is named after a verb."""
