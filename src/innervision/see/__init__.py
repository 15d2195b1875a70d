"""What a network holds, shown: what its layers answer to a picture.

A map's insertion and deletion curves: `see.curves.curves(network, image, target, map)`, with
`importance(map, method)` for a map of colours and `chance(image)` to compare with; `see.curves.chart` draws
them. On the command line: `innervision attribute --curves`.
"""
