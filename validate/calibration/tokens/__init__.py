"""The token estimate's weights and errors, from real tokenizers and texts that packages carry: `kvplan validate tokens DIR`."""
