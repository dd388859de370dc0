"""FastAPI over transformers' pipeline: what the tutorials show. PEER_ENCODER is the model's folder."""

import os
from typing import Any

import uvicorn
from fastapi import FastAPI
from pydantic import BaseModel
from transformers import pipeline

app = FastAPI()
classify: Any = pipeline("text-classification", model=os.environ["PEER_ENCODER"], device="cpu", truncation=True)


class Query(BaseModel):
    """One text, and an id that comes back."""

    id: str = ""
    text: str


@app.post("/predict")
def predict(query: Query) -> dict[str, Any]:
    """Classify one text."""
    return {"id": query.id, **classify(query.text)[0]}


if __name__ == "__main__":
    uvicorn.run(app, host="127.0.0.1", port=int(os.environ["PEER_PORT"]), access_log=False)
