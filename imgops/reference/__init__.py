"""The truth: each op as short, plain PyTorch, differentiable to any order in any floating-point dtype.

Every fast backend is tested against these functions in float64. Nothing here validates its input; that
is the work of :mod:`imgops.ops`.
"""
