"""Hugging Face checkpoint folders: config.json and model.safetensors, or shards with an index, read and written.

    config = huggingface.read_config(folder)
    params = huggingface.read_params(folder, config)
    huggingface.write(other_folder, config, params)

Which classes of transformers there are, and how their tensors map to our parameters, is the table in `classes`; files
are in `tensors`, vocabularies in `tokenizer`, whole folders in `exchange`.
"""

from jaxopt_lm.model.huggingface.exchange import check_vocabulary, read_config, read_params, write

__all__ = ["check_vocabulary", "read_config", "read_params", "write"]
