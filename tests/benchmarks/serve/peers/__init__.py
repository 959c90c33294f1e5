"""The endpoint beside what people would use instead: LitServe, FastAPI and Ray Serve with PEFT's LoRA."""
