"""FastAPI with a `def` endpoint over one onnxruntime session: no batching, FastAPI's thread pool."""

import os

import uvicorn
from fastapi import FastAPI
from pydantic import BaseModel

from benchmarks.peers.encoder import Encoder

app = FastAPI()
encoder = Encoder()


class Query(BaseModel):
    """One text, and an id that comes back."""

    id: str = ""
    text: str


class Reply(BaseModel):
    """Its probabilities."""

    id: str
    scores: list[float]


@app.post("/predict")
def predict(query: Query) -> Reply:
    """Classify one text."""
    return Reply(id=query.id, scores=encoder.scores([query.text])[0])


if __name__ == "__main__":
    uvicorn.run(app, host="127.0.0.1", port=int(os.environ["PEER_PORT"]), access_log=False)
