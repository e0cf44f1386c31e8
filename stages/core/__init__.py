"""What the stages share: contracts that know nothing of DVC, params.yaml or the working directory."""
