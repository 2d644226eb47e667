"""Writers of traces: what a program computed, in the form that docs/traces.md defines.

Ours (keras_model.py), OpenCV's reader of cfgs (in the family's folder), ONNX Runtime (onnx_model.py), PyTorch by
hooks (torch_module.py), and files without a manifest (convert.py). `python -m tools.record` is the command.
Other programs write the form themselves; docs/traces.md has a recipe in C.
"""
