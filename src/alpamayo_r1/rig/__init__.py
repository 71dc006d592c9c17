"""Cameras of any car: lenses, the nominal rig that the model knows, and its views re-rendered from other cameras."""
