"""The recipe of the bundled backbone: a small ViT, trained on pictures that it draws itself.

``python -m ship.pretrain --out DIR`` trains, ``python -m ship.pretrain probe`` shows what came of it.
"""
