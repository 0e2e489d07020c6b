"""From clips to embedding shards: what `mmembed extract` does.

Parts: `content` (what is stored of a clip), `shards` (clips to shards), `formats` (complete shards
as one npy, safetensors or Parquet file), `rehearsal` (look at everything, write nothing).
"""
